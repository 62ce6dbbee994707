//! A table of differences, and the texts that it is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{CPU, MEMINFO, STAT};

/// What was found, and what is wrong with the table.
pub(crate) struct Table<'a> {
    out: &'a Path,
    section: &'a str,
    rows: BTreeSet<(String, String)>,
    wrong: Vec<String>,
}

impl<'a> Table<'a> {
    /// The table of this part of the page, with what the guest left in this folder.
    pub(crate) fn new(out: &'a Path, section: &'a str) -> Self {
        Self {
            out,
            section,
            rows: BTreeSet::new(),
            wrong: Vec::new(),
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// All that is wrong, a line each.
    pub(crate) fn wrong(&self) -> String {
        self.wrong.join("\n")
    }

    pub(crate) fn text(&self, who: &str, path: &str) -> String {
        fs::read_to_string(self.out.join(format!("{who}{path}"))).unwrap_or_default()
    }

    /// Both texts of a file.
    pub(crate) fn texts(&self, path: &str) -> (String, String) {
        (self.text("lxcfs", path), self.text("ours", path))
    }

    /// A number of the cgroup, before both were read and after.
    pub(crate) fn used(&self, path: &str, key: &str) -> (u64, u64) {
        let of = |when| number(&self.text(when, path), key);
        (of("before"), of("after"))
    }

    /// That the table has a row, and that what it tells holds.
    pub(crate) fn row(&mut self, cells: [&str; 4], holds: bool, found: impl std::fmt::Debug) {
        let [file, field, lxcfs, ours] = cells;
        if !holds {
            self.wrong.push(format!(
                "{file}, {field}: not {lxcfs:?} and {ours:?} but {found:?}"
            ));
        }
        let line = format!("| {file} | {field} | {lxcfs} | {ours} | ");
        if !self.section.lines().any(|has| has.starts_with(&line)) {
            self.wrong
                .push(format!("docs/lxcfs.md lacks the row {line}"));
        }
        self.rows.insert((file.to_owned(), field.to_owned()));
    }

    fn has(&self, file: &str, field: &str) -> bool {
        self.rows.contains(&(file.to_owned(), field.to_owned()))
    }

    /// That whatever differs has a row.
    pub(crate) fn differences_have_rows(&mut self) {
        let mut missing = Vec::new();
        for (file, path, split) in [
            ("meminfo", MEMINFO, ':'),
            ("cpuinfo", "/proc/cpuinfo", ':'),
            ("stat", STAT, ' '),
        ] {
            let (lxcfs, ours) = self.texts(path);
            let fields = |text: &str| -> BTreeMap<String, String> {
                let pairs = text.lines().filter_map(|line| line.split_once(split));
                pairs
                    .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                    .collect()
            };
            let (lxcfs, ours) = (fields(&lxcfs), fields(&ours));
            for key in lxcfs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
                let (lxcfs, ours) = (lxcfs.get(key), ours.get(key));
                // The nominal frequency is as near to the present one as the machine is idle; what is
                // free, is after what was taken for reading it.
                let moves = ["cpu MHz", "MemFree", "MemAvailable"].contains(&key.as_str());
                if lxcfs != ours && !moves && !key.starts_with("cpu0") && !key.starts_with("cpu1") {
                    missing.push((file, key.clone()));
                }
            }
        }
        let paths = files(&self.out.join("lxcfs"));
        for path in paths.iter().filter(|path| path.starts_with(CPU)) {
            let (lxcfs, ours) = self.texts(path);
            if lxcfs != ours && !path.contains("/cpu0/") {
                missing.push((
                    "cpu",
                    path.rsplit('/').next().unwrap_or_default().to_owned(),
                ));
            }
        }
        missing.retain(|(file, field)| !self.has(file, field));
        for (file, field) in missing {
            self.wrong
                .push(format!("{file}, {field}: differs without a row"));
        }
    }

    /// That there is no row that nothing checks.
    pub(crate) fn rows_are_checked(&mut self) {
        let rows = self.section.lines().filter(|line| line.ends_with(" |"));
        for row in rows.skip(1) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            if let [_, file, field, ..] = cells[..]
                && !self.has(file, field)
            {
                self.wrong.push(format!("nothing checks the row {row}"));
            }
        }
    }
}

/// The number that follows a key, or 0.
pub(crate) fn number(text: &str, key: &str) -> u64 {
    let rest = text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?;
        let next = rest.chars().next()?;
        (key.is_empty() || !(next.is_alphanumeric() || next == '_') || key.ends_with('='))
            .then_some(rest)
    });
    let digits = rest
        .unwrap_or_default()
        .trim_start_matches([' ', '\t', ':']);
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

/// The numbers of a row.
pub(crate) fn row_of(text: &str, name: &str) -> Vec<u64> {
    let row = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let words = row.unwrap_or_default().split_whitespace();
    let mut numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    numbers.resize(numbers.len().max(10), 0);
    numbers
}

/// The paths of all files below a folder, from there.
fn files(top: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(below) = path.strip_prefix(top) {
                found.push(format!("/{}", below.display()));
            }
        }
    }
    found
}
