//! Text archives: a tree of small text files in one file that people read and git compares.
//!
//! ```text
//! cgroup/unified/cgroup.procs:
//! host/proc/meminfo:
//!     MemTotal:       16294096 kB
//!     MemFree:         7163304 kB
//! host/proc/uptime = 5168.63 9967.10
//! host/sys/devices/system/cpu/cpu0/node0 -> ../../node/node0
//! ```
//!
//! * `PATH = LINE` is a file of one line.
//! * `PATH:` is a file of the lines that follow it, each behind a tab. Without such lines the file is empty.
//! * `PATH -> TARGET` is a symbolic link.
//! * `PATH/` is an empty directory. Other directories are known from what is in them.
//! * `PATH (mode 0755)`, with one of the endings of a file, is a file whose mode is not 0644.
//! * `PATH (escaped):` is a file that is not plain text, or whose last line has no newline. `\\` is a backslash,
//!   `\xNN` a byte, and `\` at the end of a line says that no newline follows.
//!
//! The entries are sorted by path, so that equal trees make equal archives.
//!
//! Each entry begins with its path at the start of the line. Thus git names the changed file at the head of each hunk
//! of a difference, and no content can look like an entry. The txtar format of Go is the model. It is not used itself,
//! because it has no links, no modes and no files without a last newline, and because a file of one line takes two
//! lines in it: four of five recorded files have one line.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write as _};
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::iter::Peekable;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// The mode of a file whose entry names none.
pub const MODE: u32 = 0o644;

/// A tree of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

/// What is at one path of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// Its content.
        bytes: Vec<u8>,
        /// Its permission bits.
        mode: u32,
    },
    /// A symbolic link with its target, which is relative and stays in the tree.
    Link(String),
    /// A directory with nothing in it.
    EmptyDirectory,
}

impl Archive {
    /// Reads the archive in the file `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path);
        text.map_err(Into::into)
            .and_then(|text| Self::parse(&text))
            .with_context(|| format!("cannot read {}", path.display()))
    }

    /// Writes the archive to the file `path`, which has either the old or the new content at any time.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        fs::write(&new, self.to_string())
            .and_then(|()| fs::rename(&new, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Parses the text of an archive. An error names the line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut archive = Self::default();
        let mut lines = text.split_terminator('\n').enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            parse_entry(line, &mut lines)
                .and_then(|(path, entry)| {
                    ensure!(!archive.entries.contains_key(path), "{path} is there twice");
                    archive.insert(path, entry)
                })
                .with_context(|| format!("line {}", index + 1))?;
        }
        Ok(archive)
    }

    /// Puts an entry at `path`, in the place of one that is there.
    ///
    /// Refuses a path that is absolute, that has an empty component, `.` or `..`, or characters other than visible
    /// ASCII. Refuses a link whose target is absolute or above the tree, and an entry below one that is no directory.
    pub fn insert(&mut self, path: &str, entry: Entry) -> Result<()> {
        check_path(path)?;
        if let Entry::Link(target) = &entry {
            check_target(path, target)?;
        }
        let below = format!("{path}/");
        let next = self.entries.range(below.clone()..).next();
        if let Some((next, _)) = next.filter(|(next, _)| next.starts_with(&below)) {
            bail!("{path} is the directory of {next}");
        }
        for (end, _) in path.match_indices('/') {
            let above = &path[..end];
            ensure!(
                !self.entries.contains_key(above),
                "{path} is below {above}, which is an entry itself"
            );
        }
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// Puts a file of mode 0644 at `path`; see [`Archive::insert`].
    pub fn insert_file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Result<()> {
        let bytes = bytes.into();
        self.insert(path, Entry::File { bytes, mode: MODE })
    }

    /// The content of the file at `path`, if there is one.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        match self.entries.get(path)? {
            Entry::File { bytes, .. } => Some(bytes),
            Entry::Link(_) | Entry::EmptyDirectory => None,
        }
    }

    /// The paths of all entries, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Makes the tree below `dir`, which is made if missing. Nothing that is there is replaced.
    pub fn unpack(&self, dir: &Path) -> Result<()> {
        let mut made = None;
        for (path, entry) in &self.entries {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            if made.replace(parent) != Some(parent) {
                let parent = dir.join(parent);
                fs::create_dir_all(&parent)
                    .with_context(|| format!("cannot make {}", parent.display()))?;
            }
            let path = dir.join(path);
            unpack_entry(entry, &path)
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(())
    }

    /// Makes the tree in a new directory, which is deleted when the returned value is dropped.
    pub fn unpack_temporary(&self) -> Result<TempDir> {
        // Hundreds of files that live for a moment: a disk takes ten times as long as memory.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.context("cannot make a temporary directory")?;
        self.unpack(dir.path())?;
        Ok(dir)
    }

    /// The archive of the tree below `dir`.
    pub fn pack(dir: &Path) -> Result<Self> {
        let mut archive = Self::default();
        archive.pack_below(dir, "")?;
        Ok(archive)
    }

    /// Adds what is in a directory, whose path in the archive is `path`.
    fn pack_below(&mut self, dir: &Path, path: &str) -> Result<()> {
        let mut empty = true;
        let entries = fs::read_dir(dir);
        for entry in entries.with_context(|| format!("cannot list {}", dir.display()))? {
            empty = false;
            let entry = entry?;
            let whole = entry.path();
            let name = entry.file_name();
            let name = name.to_str();
            let name = name.with_context(|| format!("{whole:?} is not UTF-8"))?;
            let path = match path {
                "" => name.to_owned(),
                _ => format!("{path}/{name}"),
            };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.pack_below(&whole, &path)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&whole)?;
                let target = target.to_str();
                let target = target.with_context(|| format!("{whole:?} links to no UTF-8"))?;
                self.insert(&path, Entry::Link(target.to_owned()))?;
            } else if kind.is_file() {
                let bytes = fs::read(&whole);
                let bytes = bytes.with_context(|| format!("cannot read {}", whole.display()))?;
                let mode = entry.metadata()?.permissions().mode() & 0o7777;
                self.insert(&path, Entry::File { bytes, mode })?;
            } else {
                bail!("{} is neither a file nor a link", whole.display());
            }
        }
        if empty && !path.is_empty() {
            self.insert(path, Entry::EmptyDirectory)?;
        }
        Ok(())
    }
}

/// The text of the archive.
impl Display for Archive {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for (path, entry) in &self.entries {
            match entry {
                Entry::EmptyDirectory => writeln!(out, "{path}/")?,
                Entry::Link(target) => writeln!(out, "{path} -> {target}")?,
                Entry::File { bytes, mode } => write_file(out, path, bytes, *mode)?,
            }
        }
        Ok(())
    }
}

fn write_file(out: &mut Formatter<'_>, path: &str, bytes: &[u8], mode: u32) -> fmt::Result {
    let plain = plain(bytes);
    out.write_str(path)?;
    match (mode, plain) {
        (MODE, Some(_)) => {}
        (MODE, None) => out.write_str(" (escaped)")?,
        (_, Some(_)) => write!(out, " (mode {mode:04o})")?,
        (_, None) => write!(out, " (mode {mode:04o}, escaped)")?,
    }
    let Some(text) = plain else {
        out.write_str(":\n")?;
        return bytes
            .split_inclusive(|byte| *byte == b'\n')
            .try_for_each(|line| writeln!(out, "\t{}", escape(line)));
    };
    match text.split_terminator('\n').collect::<Vec<_>>()[..] {
        [line] if !line.is_empty() => writeln!(out, " = {line}"),
        ref lines => {
            out.write_str(":\n")?;
            lines.iter().try_for_each(|line| writeln!(out, "\t{line}"))
        }
    }
}

/// The text of a file that needs no escapes: all lines end with a newline, and tabs are the only other control
/// characters.
fn plain(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let whole = text.is_empty() || text.ends_with('\n');
    let visible = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    (whole && text.chars().all(visible)).then_some(text)
}

/// A line, with its newline if it has one, as [`unescape`] reads it.
fn escape(line: &[u8]) -> String {
    let (line, end) = match line.strip_suffix(b"\n") {
        Some(line) => (line, ""),
        None => (line, "\\"),
    };
    let mut out = String::new();
    for &byte in line {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\t' | b' '..=b'~' => out.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
    out + end
}

/// The bytes of a line that was escaped.
fn unescape(line: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        if after.is_empty() {
            return Ok(out);
        }
        rest = if let Some(rest) = after.strip_prefix('\\') {
            out.push(b'\\');
            rest
        } else {
            let digits = after.strip_prefix('x').and_then(|after| after.get(..2));
            let byte = digits
                .filter(|digits| !digits.starts_with('+'))
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            out.push(byte.with_context(|| format!("an unknown escape: \\{after}"))?);
            &after[3..]
        };
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'\n');
    Ok(out)
}

/// Parses the entry that begins with `line`, and takes the lines of its content.
fn parse_entry<'a>(
    line: &'a str,
    lines: &mut Peekable<impl Iterator<Item = (usize, &'a str)>>,
) -> Result<(&'a str, Entry)> {
    let (path, rest) = match line.split_once(' ') {
        Some(parts) => parts,
        None => match line.strip_suffix('/') {
            Some(path) => return Ok((path, Entry::EmptyDirectory)),
            None => line.split_at(line.strip_suffix(':').map_or(line.len(), str::len)),
        },
    };
    let (mut mode, mut escaped, mut rest) = (MODE, false, rest);
    if let Some(inside) = rest.strip_prefix('(') {
        let (words, after) = inside.split_once(')').context("a parenthesis is open")?;
        for word in words.split(", ") {
            match word.strip_prefix("mode ") {
                Some(digits) => mode = u32::from_str_radix(digits, 8).context("not a mode")?,
                None if word == "escaped" => escaped = true,
                None => bail!("neither a mode nor `escaped`: {word}"),
            }
        }
        ensure!(mode <= 0o7777, "not a mode: {mode:o}");
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    if let Some(target) = rest.strip_prefix("-> ") {
        return Ok((path, Entry::Link(target.to_owned())));
    }
    let mut bytes = Vec::new();
    if let Some(line) = rest.strip_prefix("= ").filter(|_| !escaped) {
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    } else {
        ensure!(rest == ":", "not the first line of an entry: {line}");
        while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with('\t')) {
            match escaped {
                true => bytes.extend(unescape(&line[1..])?),
                false => {
                    bytes.extend_from_slice(&line.as_bytes()[1..]);
                    bytes.push(b'\n');
                }
            }
        }
    }
    Ok((path, Entry::File { bytes, mode }))
}

/// Refuses a path that could lead out of the tree, or could not be written down.
fn check_path(path: &str) -> Result<()> {
    ensure!(
        path.bytes().all(|byte| byte.is_ascii_graphic()),
        "a path may have visible ASCII only: {path:?}"
    );
    ensure!(
        !path.split('/').any(|name| matches!(name, "" | "." | "..")),
        "a path may not be empty, absolute, or have the names `.` and `..`: {path:?}"
    );
    Ok(())
}

/// Refuses the target of a link that leads out of the tree, or could not be written down.
fn check_target(path: &str, target: &str) -> Result<()> {
    ensure!(
        !target.is_empty() && !target.starts_with('/') && !target.contains(char::is_control),
        "the target of a link is a relative path: {path} -> {target:?}"
    );
    let mut depth = path.matches('/').count();
    for name in target.split('/') {
        depth = match name {
            "" | "." => Some(depth),
            ".." => depth.checked_sub(1),
            _ => Some(depth + 1),
        }
        .with_context(|| format!("a link leads out of the tree: {path} -> {target}"))?;
    }
    Ok(())
}

fn unpack_entry(entry: &Entry, path: &Path) -> std::io::Result<()> {
    match entry {
        Entry::EmptyDirectory => fs::create_dir(path),
        Entry::Link(target) => symlink(target, path),
        Entry::File { bytes, mode } => {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(*mode)
                .open(path)?;
            file.write_all(bytes)?;
            if *mode != MODE {
                // The umask has taken bits away.
                file.set_permissions(Permissions::from_mode(*mode))?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
