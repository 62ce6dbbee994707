//! Memory and swap of a cgroup, as one type for both versions. The keys of memory.stat are v2's; v1's keys are
//! translated.

use crate::buffer::Row;
use crate::cgroup::{Hierarchy, Limit, Version, v1, v2};
use crate::text::{lines, parse_u64};
use crate::{Error, Text};

/// The limits of a cgroup and its ancestors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryLimits {
    /// The smallest memory limit on the way up.
    pub(crate) memory: Limit,
    /// The smallest swap limit on the way up.
    pub(crate) swap: SwapLimit,
}

/// The limit of swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwapLimit {
    /// The kernel does not account swap to cgroups (CONFIG_SWAP off, or swapaccount=0).
    Unaccounted,
    /// The limit of swap alone, with v2.
    Swap(Limit),
    /// The limit of memory and swap together, with v1.
    MemorySwap(Limit),
}

/// The usage of a cgroup, and what its limits leave.
#[derive(Debug, Default)]
pub(crate) struct MemoryUsage {
    /// Charged memory in bytes.
    pub(crate) current_bytes: u64,
    /// Swap in use in bytes.
    pub(crate) swap_current_bytes: u64,
    /// The smallest difference of limit and usage of memory on the way up.
    pub(crate) headroom: Headroom,
    /// The same for swap; v2 only.
    pub(crate) swap_headroom: Headroom,
    /// memory.stat.
    pub(crate) stat: Stat,
}

/// The smallest remainder so far; `Max` at first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headroom(pub(crate) Limit);

impl Default for Headroom {
    fn default() -> Headroom {
        Headroom(Limit::Max)
    }
}

impl Headroom {
    /// Includes one more level.
    pub(crate) fn narrow(&mut self, limit: Limit, current_bytes: u64) {
        self.0 = self.0.min(limit.minus(current_bytes));
    }
}

/// The contents of memory.stat, a flat-keyed file. The keys are ranges of its text.
#[derive(Debug, Default)]
pub(crate) struct Stat {
    text: Text,
}

/// The differences between the keys of a file and those of v2.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Keys {
    /// Only lines whose key begins with this prefix count. The rest of it is the key.
    pub(crate) prefix: &'static [u8],
    /// The keys with another name, and their names with v2.
    pub(crate) renamed: &'static [(&'static [u8], &'static [u8])],
}

impl Stat {
    /// Parses lines with a key and a value. Other lines are left out.
    pub(crate) fn parse(mut text: Text, keys: Keys) -> Stat {
        let (bytes, rows) = text.parts();
        let mut start = 0usize;
        for line in lines(bytes) {
            let end = line
                .iter()
                .position(|&byte| byte == b' ')
                .unwrap_or(line.len());
            let (key, value) = line.split_at_checked(end).unwrap_or((line, b""));
            if let Some(key) = key.strip_prefix(keys.prefix)
                && let Some(value) = parse_u64(value)
            {
                let key_end = start.saturating_add(end);
                let renamed = keys.renamed.iter().find(|(theirs, _)| *theirs == key);
                rows.push(Row {
                    key: key_end.saturating_sub(key.len())..key_end,
                    renamed: renamed.map(|(_, ours)| *ours),
                    value,
                });
            }
            start = start.saturating_add(line.len()).saturating_add(1);
        }
        Stat { text }
    }

    /// Returns the value of a key; 0 if the kernel does not print it.
    pub(crate) fn value(&self, key: &str) -> u64 {
        self.find(key).unwrap_or(0)
    }

    /// Returns the value of a key.
    pub(crate) fn find(&self, key: &str) -> Option<u64> {
        let name = |row: &Row| match row.renamed {
            Some(name) => name == key.as_bytes(),
            None => self.text.get(row.key.clone()) == Some(key.as_bytes()),
        };
        let row = self.text.rows().iter().find(|row| name(row))?;
        Some(row.value)
    }
}

/// Reads limits and usage in one walk up the tree.
pub(crate) fn read_usage(hierarchy: &Hierarchy) -> Result<(MemoryLimits, MemoryUsage), Error> {
    match hierarchy.version {
        Version::V1 => v1::memory::read_usage(hierarchy),
        Version::V2 => v2::memory::read_usage(hierarchy),
    }
}

/// Reads the smallest limit of huge pages on the way up, and the bytes in use. Returns `None` without the controller.
pub(crate) fn read_hugetlb(
    hierarchy: &Hierarchy,
    page_kib: u64,
) -> Result<Option<(Limit, u64)>, Error> {
    let size = hugetlb_size(page_kib);
    let (limit_file, usage_file) = match hierarchy.version {
        Version::V1 => (
            format!("hugetlb.{size}.limit_in_bytes"),
            format!("hugetlb.{size}.usage_in_bytes"),
        ),
        Version::V2 => (
            format!("hugetlb.{size}.max"),
            format!("hugetlb.{size}.current"),
        ),
    };
    let Some((_, usage)) = hierarchy.read_nearest(&usage_file)? else {
        return Ok(None);
    };
    let usage = number(&usage_file, &usage)?;
    let mut limit = Limit::Max;
    for level in hierarchy.levels() {
        if let Some(text) = hierarchy.read(level, &limit_file)? {
            let here = match hierarchy.version {
                Version::V1 => Limit::parse_v1(&text),
                Version::V2 => Limit::parse_v2(&text),
            };
            limit = limit.min(here.ok_or_else(|| Error::malformed(&limit_file, "not a limit"))?);
        }
    }
    Ok(Some((limit, usage)))
}

/// Returns the kernel's name of a huge page size in file names (mem_fmt, mm/hugetlb_cgroup.c).
fn hugetlb_size(page_kib: u64) -> String {
    const MIB: u64 = 1024;
    const GIB: u64 = 1024 * 1024;
    if page_kib >= GIB {
        format!("{}GB", page_kib / GIB)
    } else if page_kib >= MIB {
        format!("{}MB", page_kib / MIB)
    } else {
        format!("{page_kib}KB")
    }
}

/// Parses a file with a single number.
pub(crate) fn number(name: &str, text: &[u8]) -> Result<u64, Error> {
    parse_u64(text).ok_or_else(|| Error::malformed(name, "not a number"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stat_without_a_key_says_zero() {
        let stat = Stat::parse(
            b"anon 4096\nfile 8192\n\nodd\nfile_mapped 99999999999999999999\n"
                .to_vec()
                .into(),
            Keys::default(),
        );
        assert_eq!(stat.value("anon"), 4096);
        assert_eq!(stat.value("file"), 8192);
        assert_eq!(stat.value("file_mapped"), u64::MAX);
        assert_eq!(stat.find("odd"), None);
        assert_eq!(stat.value("slab"), 0);
    }

    #[test]
    fn huge_pages_are_named_as_the_controller_names_them() {
        assert_eq!(hugetlb_size(64), "64KB");
        assert_eq!(hugetlb_size(2048), "2MB");
        assert_eq!(hugetlb_size(1_048_576), "1GB");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Stat::parse(bytes.into(), Keys::default()).value("anon");
        }
    }
}
