//! The ids that containers may have: the lines of a user in /etc/subuid and /etc/subgid, cut into ranges.
//!
//! A range is never one that has an id of the host's root, of a user or group of the host, or of another user's lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;

use crate::regular_file;
use eci_fs_protocol::error::{Error, Result};

/// The number of ids in a range.
pub const IDS: u32 = 65_536;

/// The first id and the number of ids that are taken where the user has no lines: those that systemd keeps for
/// containers.
pub const DEFAULT: (u32, u32) = (524_288, 1_878_523_904);

/// The end of the ids that are used: some programs take an id for a signed number.
const END: u64 = 1 << 31;

/// The most bytes of a file of users.
const MAX_FILE: u64 = 64 << 20;

/// Ids that are never given, whoever has them: root, nobody, the one that programs take for -1, and the server's own.
const NEVER: [(u64, &str); 4] = [
    (0, "the host's root"),
    (65_534, "nobody"),
    (65_535, "the id that means none"),
    (0x7ec1_f500, "the server of eci-fs"),
];

/// A span of ids: the first one, and the first one after it.
type Span = (u64, u64);

/// The files that say which ids are whose.
#[derive(Debug, Clone)]
pub struct Files {
    subuid: PathBuf,
    subgid: PathBuf,
    passwd: PathBuf,
    group: PathBuf,
}

/// The ranges, and what was found while they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// The first id of each range, in ascending order.
    pub first_ids: Vec<u32>,
    /// True if the user has no lines, and [`DEFAULT`] is taken.
    pub is_default: bool,
    /// A sentence for each user, group or line of others that has ids among those of the user.
    pub overlaps: Vec<String>,
}

/// A line of /etc/subuid or /etc/subgid.
struct Line<'a> {
    number: usize,
    owner: &'a str,
    first: &'a str,
    count: &'a str,
}

impl Files {
    /// Returns the files of the host whose root directory is `root`.
    pub fn below(root: &Path) -> Self {
        let file = |name: &str| root.join("etc").join(name);
        Self {
            subuid: file("subuid"),
            subgid: file("subgid"),
            passwd: file("passwd"),
            group: file("group"),
        }
    }

    /// Returns what changes when one of the files does.
    pub(super) fn stamp(&self) -> String {
        let mut stamp = String::new();
        for path in [&self.subuid, &self.subgid, &self.passwd, &self.group] {
            // A file that is not there has a stamp too.
            let Stat {
                st_ino,
                st_size,
                st_mtime,
                st_mtime_nsec,
                ..
            } = match rustix::fs::stat(path) {
                Ok(stat) => stat,
                Err(error) => {
                    let _ = write!(stamp, "{error};");
                    continue;
                }
            };
            let _ = write!(stamp, "{st_ino} {st_size} {st_mtime} {st_mtime_nsec};");
        }
        stamp
    }

    /// Returns the ranges of `user`.
    ///
    /// # Errors
    /// When a file cannot be read, a line of the user is none, or no range is left. The error names the file and the
    /// line.
    pub fn ranges(&self, user: &str) -> Result<Ranges> {
        let passwd = read(&self.passwd)?;
        let (subuid, subgid) = (read(&self.subuid)?, read(&self.subgid)?);
        let number = ids_of(&passwd).find(|(_, name, _)| *name == user);
        let names = [
            user.to_owned(),
            number.map_or_else(String::new, |(_, _, id)| id.to_string()),
        ];
        let uids = spans(&self.subuid, &subuid, &names)?;
        let gids = spans(&self.subgid, &subgid, &names)?;
        if uids.is_empty() != gids.is_empty() {
            let (has, lacks) = match gids.is_empty() {
                true => (&self.subuid, &self.subgid),
                false => (&self.subgid, &self.subuid),
            };
            return Err(Error::refused(format!(
                "user {user} has lines in {}, and none in {}",
                has.display(),
                lacks.display()
            ))
            .remedy("give it the same lines in both, or in none"));
        }
        let is_default = uids.is_empty();
        let default = (
            u64::from(DEFAULT.0),
            u64::from(DEFAULT.0) + u64::from(DEFAULT.1),
        );
        let own = match is_default {
            true => vec![default],
            false => both(&union(uids), &union(gids)),
        };
        let mut blocked: BTreeMap<Span, String> = BTreeMap::new();
        for (id, whose) in NEVER {
            blocked.insert((id, id + 1), format!("{id} is {whose}"));
        }
        let group = read(&self.group)?;
        for (path, text, what) in [
            (&self.passwd, &passwd, "user"),
            (&self.group, &group, "group"),
        ] {
            for (line, name, id) in ids_of(text) {
                let words = format!(
                    "{what} {name} has the id {id} (line {line} of {})",
                    path.display()
                );
                blocked.entry((id, id + 1)).or_insert(words);
            }
        }
        for (path, text) in [(&self.subuid, &subuid), (&self.subgid, &subgid)] {
            for line in lines(text).filter(|line| !names.iter().any(|name| name == line.owner)) {
                // A line that no program can read gives nobody ids.
                let Some((first, end)) = line.span() else {
                    continue;
                };
                let words = format!(
                    "user {} has the ids {first} to {} (line {} of {})",
                    line.owner,
                    end - 1,
                    line.number,
                    path.display()
                );
                blocked.entry((first, end)).or_insert(words);
            }
        }
        let overlaps = blocked
            .iter()
            .filter(|((first, end), _)| own.iter().any(|own| own.0 < *end && *first < own.1));
        let overlaps: Vec<String> = overlaps.map(|(_, words)| words.clone()).collect();
        let blocked = union(blocked.into_keys().collect());
        let free = |first: &u64| {
            let after = blocked.partition_point(|(_, end)| *end <= *first);
            blocked
                .get(after)
                .is_none_or(|(next, _)| *next >= first + u64::from(IDS))
        };
        let whole = |&(first, end): &Span| {
            let last = end.min(END).saturating_sub(u64::from(IDS) - 1);
            (first..last).step_by(IDS as usize)
        };
        let first_ids = own.iter().flat_map(whole).filter(free);
        let first_ids: Vec<u32> = first_ids.filter_map(|id| u32::try_from(id).ok()).collect();
        if first_ids.is_empty() {
            return Err(self.none_left(user, &overlaps));
        }
        Ok(Ranges {
            first_ids,
            is_default,
            overlaps,
        })
    }

    /// Checks that nobody of the host has an id of a user namespace that another manager has made.
    ///
    /// # Errors
    /// When somebody has, and when a file cannot be read.
    pub(super) fn check_foreign(&self, first_id: u32, ids: u32) -> Result<()> {
        let (first, end) = (u64::from(first_id), u64::from(first_id) + u64::from(ids));
        let refuse = |id: u64, whose: &str| {
            Err(Error::refused(format!(
                "the user namespace has the ids {first} to {}, and {id} is {whose} on the host",
                end - 1
            )))
        };
        let is_in = |id: u64| first <= id && id < end;
        if let Some((id, whose)) = NEVER.iter().find(|(id, _)| is_in(*id)) {
            return refuse(*id, whose);
        }
        for (path, what) in [(&self.passwd, "the user"), (&self.group, "the group")] {
            let text = read(path)?;
            if let Some((_, name, id)) = ids_of(&text).find(|(_, _, id)| is_in(*id)) {
                return refuse(id, &format!("{what} {name}"));
            }
        }
        Ok(())
    }

    fn none_left(&self, user: &str, overlaps: &[String]) -> Error {
        let because = match overlaps.first() {
            Some(first) => format!(": {first}"),
            None => String::new(),
        };
        Error::refused(format!(
            "the lines of user {user} in {} and {} have no {IDS} ids for a container{because}",
            self.subuid.display(),
            self.subgid.display()
        ))
        .remedy(format!(
            "write {user}:{}:{} into both, or other ids below {END} that nobody has",
            DEFAULT.0, DEFAULT.1
        ))
    }
}

impl Line<'_> {
    /// Returns the ids; none if the line does not name any.
    fn span(&self) -> Option<Span> {
        let first: u32 = self.first.trim().parse().ok()?;
        let count: u32 = self.count.trim().parse().ok()?;
        (count > 0).then(|| (u64::from(first), u64::from(first) + u64::from(count)))
    }
}

/// Returns the text of a file; an empty one if it is not there.
fn read(path: &Path) -> Result<String> {
    match regular_file::read(path, MAX_FILE) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

/// Returns the lines of /etc/subuid or /etc/subgid.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let numbered = text.lines().zip(1..);
    numbered.filter_map(|(line, number)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let mut fields = line.splitn(3, ':');
        Some(Line {
            number,
            owner: fields.next()?,
            first: fields.next().unwrap_or_default(),
            count: fields.next().unwrap_or_default(),
        })
    })
}

/// Returns the ids of the lines whose owner is one of `names`.
///
/// # Errors
/// When such a line names no ids.
fn spans(path: &Path, text: &str, names: &[String]) -> Result<Vec<Span>> {
    let own = lines(text).filter(|line| names.iter().any(|name| name == line.owner));
    own.map(|line| {
        line.span().ok_or_else(|| {
            Error::refused(format!(
                "line {} of {} names no ids: {}:{}:{}",
                line.number,
                path.display(),
                line.owner,
                line.first,
                line.count
            ))
            .remedy("a line is USER:FIRST-ID:NUMBER-OF-IDS")
        })
    })
    .collect()
}

/// Returns the line, the name and the id of each entry of /etc/passwd or /etc/group.
fn ids_of(text: &str) -> impl Iterator<Item = (usize, &str, u64)> {
    let numbered = text.lines().zip(1..);
    numbered.filter_map(|(line, number)| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u32 = fields.nth(1)?.trim().parse().ok()?;
        Some((number, name, u64::from(id)))
    })
}

/// Returns the same ids as spans that do not touch, in ascending order.
pub(super) fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut out: Vec<Span> = Vec::new();
    for (first, end) in spans {
        match out.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => out.push((first, end)),
        }
    }
    out
}

/// Returns the ids that are in both. Each is a [`union`].
fn both(one: &[Span], other: &[Span]) -> Vec<Span> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a, b)));
    let shared = pairs.map(|(a, b)| (a.0.max(b.0), a.1.min(b.1)));
    shared.filter(|(first, end)| first < end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host's files with these texts, in a directory that lives as long as the test.
    fn ranges(subuid: &str, subgid: &str, passwd: &str) -> Result<Ranges> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        for (name, text) in [("subuid", subuid), ("subgid", subgid), ("passwd", passwd)] {
            std::fs::write(dir.path().join("etc").join(name), text).unwrap();
        }
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nvideo:x:700000:\n").unwrap();
        Files::below(dir.path()).ranges("eci-fs")
    }

    #[test]
    fn a_user_namespace_of_others_has_no_id_of_a_user_of_the_host() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "ann:x:200005:1::/:/bin/sh\n").unwrap();
        let files = Files::below(dir.path());
        files.check_foreign(100_000, IDS).unwrap();
        files.check_foreign(200_006, IDS).unwrap();
        for (first_id, words) in [
            (200_000, "the user ann"),
            (140_470, "the user ann"),
            (1, "nobody"),
            (0, "root"),
        ] {
            let error = files.check_foreign(first_id, IDS).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn without_lines_the_range_of_systemd_is_taken_but_for_ids_of_others() {
        let none = ranges("", "", "root:x:0:0::/:/bin/sh\n").unwrap();
        assert!(none.is_default);
        // One range of 28,664 has the group video.
        assert_eq!(none.first_ids.len(), 28_663);
        assert_eq!(none.first_ids[0], 524_288);
        assert!(!none.first_ids.contains(&655_360), "it has the id 700000");
        assert_eq!(*none.first_ids.last().unwrap() + (IDS - 1), 1_879_048_191);
        assert!(none.overlaps[0].contains("group video has the id 700000 (line 2 of"));
    }

    #[test]
    fn only_whole_ranges_that_are_in_both_files_are_taken() {
        let lines = "eci-fs:100000:200000\n# eci-fs:5:5\n\nother:900000:65536\n";
        let found = ranges(lines, "eci-fs:150000:131072\neci-fs:400000:65535\n", "").unwrap();
        assert_eq!(found.first_ids, [150_000, 215_536]);
        assert!(!found.is_default);
        // Lines that touch are one.
        let touching = "eci-fs:1000000:30000\neci-fs:1030000:35536\n";
        assert_eq!(
            ranges(touching, touching, "").unwrap().first_ids,
            [1_000_000]
        );
        // The number of the user stands for its name.
        let by_id = "990:1000000:65536\n";
        let passwd = "eci-fs:x:990:990::/:/bin/false\n";
        assert_eq!(ranges(by_id, by_id, passwd).unwrap().first_ids, [1_000_000]);
    }

    #[test]
    fn ids_of_users_groups_and_other_lines_are_never_given_and_are_named() {
        let lines = "bob:330000:10\neci-fs:200000:262144\n";
        let passwd = "root:x:0:0::/:/bin/sh\nann:x:200005:1::/:/bin/sh\n";
        let found = ranges(lines, lines, passwd).unwrap();
        assert_eq!(found.first_ids, [331_072, 396_608]);
        let words = found.overlaps.join("\n");
        assert!(
            words.contains("user ann has the id 200005 (line 2 of"),
            "{words}"
        );
        assert!(
            words.contains("user bob has the ids 330000 to 330009 (line 1 of"),
            "{words}"
        );
    }

    #[test]
    fn neither_root_nor_nobody_nor_an_id_above_31_bits_is_ever_given() {
        let all = "eci-fs:0:4294967295\n";
        let found = ranges(all, all, "").unwrap();
        assert_eq!(found.first_ids[0], 65_536);
        assert_eq!(*found.first_ids.last().unwrap(), (1u32 << 31) - IDS);
        let server = 0x7ec1_f500 / IDS * IDS;
        assert!(!found.first_ids.contains(&server));
        // Without those of root, of the server and of the group video.
        assert_eq!(found.first_ids.len(), 32_765);
        for lines in [
            "eci-fs:0:65536\n",
            "eci-fs:2147483648:65536\n",
            "eci-fs:70000:65535\n",
        ] {
            let error = ranges(lines, lines, "").unwrap_err().to_string();
            assert!(
                error.contains("eci-fs:524288:1878523904"),
                "{lines}: {error}"
            );
        }
    }

    #[test]
    fn a_line_that_names_no_ids_is_refused_with_its_number_if_it_is_the_users() {
        for line in [
            "eci-fs",
            "eci-fs:1",
            "eci-fs:a:b",
            "eci-fs:-1:65536",
            "eci-fs:1:0",
            "eci-fs:1:5000000000",
        ] {
            let text = format!("other:x:y\n{line}\n");
            let error = ranges(&text, &text, "").unwrap_err().to_string();
            assert!(
                error.contains("line 2 of") && error.contains("subuid"),
                "{line}: {error}"
            );
        }
        let one = ranges("eci-fs:100000:65536\n", "", "")
            .unwrap_err()
            .to_string();
        assert!(one.contains("none in") && one.contains("subgid"), "{one}");
    }
}
