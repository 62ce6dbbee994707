//! Limits, and the files that hold them.

use crate::cgroup::{Cgroup, Controller, Hierarchy, Version};
use crate::text::{parse_u64, trimmed};

/// A limit of a cgroup, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// A limit in bytes, pages or threads, depending on the file.
    Bytes(u64),
    /// No limit. It is greater than every number.
    Max,
}

/// The lowest number that v1 prints for "no limit": PAGE_COUNTER_MAX pages (mm/page_counter.h), which is LONG_MAX
/// rounded down to a page of up to 64 KiB.
const V1_UNLIMITED: u64 = (i64::MAX as u64) & !0xffff;

impl Limit {
    /// Parses a v2 limit: a number or "max".
    pub fn parse_v2(text: &[u8]) -> Option<Limit> {
        if trimmed(text) == "max" {
            return Some(Limit::Max);
        }
        parse_u64(text).map(Limit::Bytes)
    }

    /// Parses a v1 limit. A number near LONG_MAX, or -1, is no limit.
    pub fn parse_v1(text: &[u8]) -> Option<Limit> {
        if trimmed(text) == "-1" {
            return Some(Limit::Max);
        }
        let bytes = parse_u64(text)?;
        Some(if bytes >= V1_UNLIMITED {
            Limit::Max
        } else {
            Limit::Bytes(bytes)
        })
    }

    /// Returns the limit, but `most` at most.
    pub fn at_most(self, most: u64) -> u64 {
        match self {
            Limit::Bytes(bytes) => bytes.min(most),
            Limit::Max => most,
        }
    }

    /// Returns what is left of the limit when `current` is used.
    pub fn minus(self, current: u64) -> Limit {
        match self {
            Limit::Bytes(bytes) => Limit::Bytes(bytes.saturating_sub(current)),
            Limit::Max => Limit::Max,
        }
    }
}

/// A file of a limit. When it changes, static views and the sizes of all others may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitFile {
    /// The index into [`Cgroup::hierarchies`].
    pub hierarchy: usize,
    /// The name relative to the hierarchy's directory, with "../" for ancestors. The file may not exist.
    pub name: String,
}

/// Returns the limit files of the cgroup and its ancestors. inotify reports when they are written. It does not report
/// CPU hotplug, nor an effective cpuset that changes with an ancestor's.
pub fn limit_files(cgroup: &Cgroup) -> Vec<LimitFile> {
    let mut files = Vec::new();
    for controller in [Controller::Cpu, Controller::Cpuset, Controller::Memory] {
        let Some(found) = cgroup.of(controller) else {
            continue;
        };
        let same = |other: &Hierarchy| std::ptr::eq(other, found);
        let Some(index) = cgroup.hierarchies().iter().position(same) else {
            continue;
        };
        for level in found.levels() {
            for file in names(found.version, controller) {
                files.push(LimitFile {
                    hierarchy: index,
                    name: Hierarchy::name(level, file),
                });
            }
        }
    }
    files
}

fn names(version: Version, controller: Controller) -> &'static [&'static str] {
    match (version, controller) {
        (Version::V1, Controller::Cpu) => &["cpu.cfs_quota_us", "cpu.cfs_period_us"],
        (Version::V1, Controller::Cpuset) => &["cpuset.cpus", "cpuset.mems"],
        (Version::V1, Controller::Memory) => {
            &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        }
        (Version::V2, Controller::Cpu) => &["cpu.max"],
        (Version::V2, Controller::Cpuset) => &["cpuset.cpus", "cpuset.mems"],
        (Version::V2, Controller::Memory) => &["memory.max", "memory.swap.max"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_both_versions_are_read() {
        assert_eq!(Limit::parse_v2(b"max\n"), Some(Limit::Max));
        assert_eq!(Limit::parse_v2(b"4096\n"), Some(Limit::Bytes(4096)));
        assert_eq!(Limit::parse_v2(b""), None);
        assert_eq!(Limit::parse_v1(b"9223372036854771712\n"), Some(Limit::Max));
        assert_eq!(
            Limit::parse_v1(b"9223372036854710272\n"),
            Some(Limit::Max),
            "64 KiB pages"
        );
        assert_eq!(
            Limit::parse_v1(b"1073741824\n"),
            Some(Limit::Bytes(1 << 30))
        );
        assert_eq!(Limit::parse_v1(b"-1"), Some(Limit::Max));
    }

    #[test]
    fn no_limit_is_more_than_any_limit() {
        assert!(Limit::Max > Limit::Bytes(u64::MAX));
        assert_eq!(Limit::Max.at_most(7), 7);
        assert_eq!(Limit::Bytes(9).at_most(7), 7);
        assert_eq!(Limit::Bytes(9).minus(10), Limit::Bytes(0));
    }
}
