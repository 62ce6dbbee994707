//! The record of raised values in the runtime directory, for the next daemon and for people.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::procfs::Proc;
use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::host_sysctl::HostSysctl;

/// The name of the file.
pub const FILE: &str = "raised.json";

/// The content of the file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    version: Version,
    /// The kernel's boot_id: after a reboot the host has its own values again.
    boot_id: String,
    /// The sysctls that are raised, or that a container asks to raise.
    tunables: BTreeMap<HostSysctl, SysctlRecord>,
}

/// The version of the record, because the daemon that reads it may be a later one. (It is not a tag: behind one, serde
/// takes no numbers for keys.)
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[serde(rename = "1")]
    V1,
}

/// The record of one sysctl.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlRecord {
    /// The change of the host's value; none when it is as somebody else has set it.
    pub raised: Option<Raised>,
    /// The values that containers have set, by slot, where they are above the host's own value.
    #[serde(rename = "wishes")]
    pub requests: BTreeMap<u64, Request>,
}

/// A change of the host's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// The value that is given back.
    pub original: u64,
    /// The value that we set.
    pub set: u64,
    /// The value that was there just before, while it is not known whether it was replaced already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}

/// The value that one container has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The value.
    pub value: u64,
    /// True once somebody else has set the host's value: the request counts no more, until the container sets another
    /// value.
    #[serde(default)]
    pub void: bool,
}

/// Returns the record of raised values in a runtime directory, if it was written since the host was booted.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read(runtime: &RuntimeDir, boot_id: &str) -> Result<BTreeMap<HostSysctl, SysctlRecord>> {
    let Some(text) = runtime.read(FILE)? else {
        return Ok(BTreeMap::new());
    };
    let saved: Saved = serde_json::from_str(&text).map_err(|e| {
        let path = runtime.path().join(FILE);
        Error::io("understand", path, std::io::Error::from(e))
    })?;
    Ok(if saved.boot_id == boot_id {
        saved.tunables
    } else {
        BTreeMap::new()
    })
}

/// As [`read`], for the host that we run on.
///
/// # Errors
/// As [`read`].
pub fn read_here(runtime: &RuntimeDir) -> Result<BTreeMap<HostSysctl, SysctlRecord>> {
    let boot_id = Proc::open()?.read("sys/kernel/random/boot_id")?;
    read(runtime, boot_id.trim())
}

/// Returns the text of the record; none when there is nothing to write down.
///
/// # Errors
/// When it cannot be encoded.
pub(super) fn encode(
    boot_id: &str,
    tunables: &BTreeMap<HostSysctl, SysctlRecord>,
) -> Result<Option<String>> {
    if tunables.is_empty() {
        return Ok(None);
    }
    let saved = Saved {
        version: Version::V1,
        boot_id: boot_id.to_owned(),
        tunables: tunables.clone(),
    };
    serde_json::to_string(&saved)
        .map(Some)
        .map_err(|e| Error::io("encode", FILE, std::io::Error::from(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon of another release reads it.
    #[test]
    fn the_bytes_of_the_record_are_kept() {
        let entry = SysctlRecord {
            raised: Some(Raised {
                original: 1,
                set: 3,
                before: Some(2),
            }),
            requests: BTreeMap::from([(
                7,
                Request {
                    value: 3,
                    void: false,
                },
            )]),
        };
        let bytes = concat!(
            r#"{"version":"1","boot_id":"b","tunables":{"/proc/sys/fs/file-max":{"#,
            r#""raised":{"original":1,"set":3,"before":2},"wishes":{"7":{"value":3,"void":false}}}}}"#,
        );
        let tunables = BTreeMap::from([(HostSysctl::FileMax, entry)]);
        assert_eq!(encode("b", &tunables).unwrap().as_deref(), Some(bytes));
        let saved: Saved = serde_json::from_str(bytes).unwrap();
        assert_eq!(saved.tunables, tunables);
        let least = r#"{"raised":{"original":1,"set":3},"wishes":{"7":{"value":3}}}"#;
        let entry: SysctlRecord = serde_json::from_str(least).unwrap();
        assert_eq!(entry.raised.unwrap().before, None);
        assert!(!entry.requests[&7].void);
    }
}
