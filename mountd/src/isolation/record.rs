//! The record of a container that has a range: a file in the runtime directory, named by the container's key. It outlives
//! the daemon, and commands read it without one.

use std::hash::Hasher as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::ranges::IDS;
use super::state::Held;
use crate::container::procfs::Proc;
use crate::regular_file;
use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::control::MAX_KEY;
use eci_fs_protocol::error::{Error, Kind, Result};

/// The name of the directory of records, in the runtime directory.
pub const DIR: &str = "isolated";

/// The most bytes of a record.
const MAX_RECORD: u64 = 1 << 20;

/// The length of the longest file name that is the key itself.
const MAX_NAME: usize = 200;

/// A process that holds a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The process id.
    pub pid: i32,
    /// The start of the process, in clock ticks of the host's CLOCK_BOOTTIME.
    pub start_ticks: u64,
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: Version,
    pub(super) key: String,
    pub(super) first_id: u32,
    pub(super) ids: u32,
    pub(super) members: Vec<Member>,
    /// The overlays of members that have no views.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) overlays: Vec<EngineOverlay>,
}

/// The overlay that the engine of a container has mounted for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EngineOverlay {
    /// The process of the container, which is a member.
    pub(super) pid: i32,
    /// The path of the overlay.
    pub(super) path: PathBuf,
}

/// The version of the record, because the daemon that reads it may be a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[serde(rename = "1")]
    V1,
}

/// A container that has a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The id of the host that is 0 in the container.
    pub first_id: u32,
    /// The number of ids.
    pub ids: u32,
    /// The processes that hold the range, and live.
    pub members: Vec<Member>,
    /// The path of the stage.
    pub stage: PathBuf,
}

/// Returns the range of the container `key`, as the record in a runtime directory says it; none if it has none, or all
/// of its processes have ended.
///
/// # Errors
/// When the directory cannot be trusted, or the record cannot be read.
pub fn find(runtime_dir: &Path, key: &str) -> Result<Option<Found>> {
    let runtime = match RuntimeDir::open(runtime_dir) {
        Ok(runtime) => runtime,
        Err(error) if error.kind == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let path = runtime.path().join(DIR).join(name_of(key));
    let Some(record) = read(&path)? else {
        return Ok(None);
    };
    let proc = Proc::open()?;
    let mut members = record.members;
    members.retain(|member| member.lives(&proc));
    if members.is_empty() || record.key != key {
        return Ok(None);
    }
    Ok(Some(Found {
        first_id: record.first_id,
        ids: record.ids,
        members,
        stage: super::stage::path(runtime.path()),
    }))
}

impl Member {
    /// Returns true if the process lives: no other process has its number now.
    pub(super) fn lives(self, proc: &Proc) -> bool {
        let now = proc.process(self.pid);
        now.is_ok_and(|now| now.start_ticks == self.start_ticks)
    }
}

impl Record {
    pub(super) fn new(key: String, first_id: u32, members: Vec<Member>) -> Self {
        Self {
            version: Version::V1,
            key,
            first_id,
            ids: IDS,
            members,
            overlays: Vec::new(),
        }
    }

    /// Returns the record of a range that is given.
    pub(super) fn of(first_id: u32, held: &Held) -> Self {
        let members = held.members.iter().map(|one| one.member).collect();
        let overlays = held.members.iter().filter_map(|one| {
            let path = one.watched.as_ref()?.engine_root.clone();
            let pid = one.member.pid;
            Some(EngineOverlay { pid, path })
        });
        Self {
            overlays: overlays.collect(),
            ..Self::new(held.key.clone(), first_id, members)
        }
    }

    /// Returns the text of the record.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub(super) fn encode(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::io("encode", &self.key, std::io::Error::from(e)))
    }

    /// Returns what is wrong with a record that was read, if anything is.
    fn fault(&self, path: &Path) -> Option<&'static str> {
        let first = u64::from(self.first_id);
        let named = path
            .file_name()
            .is_some_and(|name| name == name_of(&self.key).as_str());
        if self.key.len() > MAX_KEY || !named {
            Some("it is of another container")
        } else if self.ids != IDS || first == 0 || first + u64::from(IDS) > 1 << 31 {
            Some("it has no range")
        } else if self.members.iter().any(|member| member.pid <= 0) {
            Some("it has a process that there cannot be")
        } else {
            None
        }
    }
}

/// Reads a record; none if it is not there.
///
/// # Errors
/// When the file cannot be read, or is no record.
pub(super) fn read(path: &Path) -> Result<Option<Record>> {
    let text = match regular_file::read_to_string(path, MAX_RECORD) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    let record: Record = serde_json::from_str(&text)
        .map_err(|e| Error::io("understand", path, std::io::Error::from(e)))?;
    match record.fault(path) {
        None => Ok(Some(record)),
        Some(why) => Err(Error::refused(format!(
            "{} is no record of a range: {why}",
            path.display()
        ))),
    }
}

/// Returns the name of the file for a key: the key, with `%` and two digits for each byte that is no letter, digit, `.`,
/// `_` or `-`. The end of a long one is a hash.
pub(super) fn name_of(key: &str) -> String {
    let mut name = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                name.push(char::from(byte))
            }
            byte => name.push_str(&format!("%{byte:02x}")),
        }
    }
    if name.len() > MAX_NAME {
        let mut hasher = SipHasher13::new();
        hasher.write(key.as_bytes());
        name.truncate(MAX_NAME - 33);
        name.push_str(&format!("-{:032x}", hasher.finish128().as_u128()));
    }
    name.push_str(".json");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon or a command of another release reads it.
    #[test]
    fn the_bytes_of_the_record_and_its_name_are_kept() {
        let member = Member {
            pid: 7,
            start_ticks: 8,
        };
        let record = Record::new("/run/runc/web".to_owned(), 524_288, vec![member]);
        let bytes = concat!(
            r#"{"version":"1","key":"/run/runc/web","first_id":524288,"ids":65536,"#,
            r#""members":[{"pid":7,"start_ticks":8}]}"#,
        );
        assert_eq!(record.encode().unwrap(), bytes);
        let mut without_views = record.clone();
        let path = "/o".into();
        without_views.overlays.push(EngineOverlay { pid: 7, path });
        let with_overlays = bytes.replace("}]}", r#"}],"overlays":[{"pid":7,"path":"/o"}]}"#);
        assert_eq!(without_views.encode().unwrap(), with_overlays);
        assert_eq!(name_of("/run/runc/web"), "%2frun%2frunc%2fweb.json");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("%2frun%2frunc%2fweb.json");
        let later = bytes.replace("}]}", r#","of_a_later_release":1}],"more":2}"#);
        for text in [bytes, &later] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap(), Some(record.clone()));
        }
    }

    #[test]
    fn keys_have_names_of_their_own_that_are_no_paths() {
        let long = "/a".repeat(2000);
        let keys = [
            "",
            ".",
            "..",
            "/",
            "a/b",
            "a%2fb",
            "a b",
            "ä",
            &long,
            &format!("{long}b"),
        ];
        let names: std::collections::BTreeSet<String> =
            keys.iter().map(|key| name_of(key)).collect();
        assert_eq!(names.len(), keys.len());
        for name in names {
            assert!(
                !name.contains('/') && name.len() < 255 && name.len() > 4,
                "{name}"
            );
        }
    }

    #[test]
    fn a_torn_or_hostile_record_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name_of("a"));
        let member = Member {
            pid: 1,
            start_ticks: 0,
        };
        let good = Record::new("a".to_owned(), 524_288, vec![member]);
        let text = good.encode().unwrap();
        assert!(read(&path).unwrap().is_none());
        for bad in [
            String::new(),
            text[..text.len() / 2].to_owned(),
            text.replace("524288", "0"),
            text.replace("524288", "4294901760"),
            text.replace("65536", "4294967295"),
            text.replace("\"a\"", "\"b\""),
            text.replace("\"pid\":1", "\"pid\":-1"),
            text.replace("\"version\":\"1\"", "\"version\":\"9\""),
            "[".repeat(100_000),
            " ".repeat(2 << 20),
        ] {
            std::fs::write(&path, &bad).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("regular file")
        );
    }
}
