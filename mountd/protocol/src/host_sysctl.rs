//! The sysctls of the host that containers can raise. They are a fixed list, so that nobody hands the daemon a path.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A sysctl of the host. Its name is its path, in the configuration and on every channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HostSysctl {
    /// Files that can be open.
    #[serde(rename = "/proc/sys/fs/file-max")]
    FileMax,
    /// The highest limit of descriptors that a process can have.
    #[serde(rename = "/proc/sys/fs/nr_open")]
    NrOpen,
    /// Connections that are tracked.
    #[serde(rename = "/proc/sys/net/netfilter/nf_conntrack_max")]
    ConntrackMax,
    /// Buckets of the table of connections that are tracked.
    #[serde(rename = "/sys/module/nf_conntrack/parameters/hashsize")]
    ConntrackHashsize,
}

/// Bytes of one bucket (struct hlist_nulls_head).
const BUCKET: u64 = size_of::<usize>() as u64;

impl HostSysctl {
    /// Every such sysctl.
    pub const ALL: [Self; 4] = [
        Self::FileMax,
        Self::NrOpen,
        Self::ConntrackMax,
        Self::ConntrackHashsize,
    ];

    /// Returns the sysctl at `path`.
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.path() == path)
    }

    /// Returns the absolute path.
    pub fn path(self) -> &'static str {
        match self {
            Self::FileMax => "/proc/sys/fs/file-max",
            Self::NrOpen => "/proc/sys/fs/nr_open",
            Self::ConntrackMax => "/proc/sys/net/netfilter/nf_conntrack_max",
            Self::ConntrackHashsize => "/sys/module/nf_conntrack/parameters/hashsize",
        }
    }

    /// Returns the highest value that the kernel takes.
    pub fn most(self) -> u64 {
        match self {
            Self::FileMax => i64::MAX as u64,
            // INT_MAX, rounded down to the bits of a long.
            Self::NrOpen => i32::MAX as u64 & !63,
            Self::ConntrackMax => i32::MAX as u64,
            // nf_ct_alloc_hashtable
            Self::ConntrackHashsize => u64::from(u32::MAX) / BUCKET,
        }
    }

    /// Returns the value that the kernel makes of `value`, but no more than `ceiling`: it rounds the buckets up to
    /// whole pages.
    pub fn rounded(self, value: u64, ceiling: u64) -> u64 {
        let step = match self {
            Self::ConntrackHashsize => rustix::param::page_size() as u64 / BUCKET,
            _ => 1,
        };
        let up = value.min(ceiling).div_ceil(step).saturating_mul(step);
        if up <= ceiling {
            up
        } else {
            ceiling - ceiling % step
        }
    }
}

impl fmt::Display for HostSysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_by_its_path() {
        for one in HostSysctl::ALL {
            assert_eq!(HostSysctl::of_path(one.path()), Some(one));
            let said = serde_json::to_string(&one).unwrap();
            assert_eq!(said, format!("{:?}", one.path()));
        }
        assert_eq!(HostSysctl::of_path("/proc/sys/kernel/core_pattern"), None);
    }

    #[test]
    fn buckets_fill_whole_pages_and_never_exceed_the_ceiling() {
        let step = rustix::param::page_size() as u64 / BUCKET;
        let hashsize = HostSysctl::ConntrackHashsize;
        assert_eq!(hashsize.rounded(step + 1, 10 * step), 2 * step);
        assert_eq!(hashsize.rounded(step + 1, 2 * step - 1), step);
        assert_eq!(hashsize.rounded(50 * step, 3 * step), 3 * step);
        assert_eq!(HostSysctl::FileMax.rounded(1001, 1005), 1001);
        assert_eq!(HostSysctl::FileMax.rounded(1001, 7), 7);
    }
}
