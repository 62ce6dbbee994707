//! The resources of a process: descriptors, threads, inotify watches, mounts and memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What one process has at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// What its descriptors are, and how many of each; sockets and anonymous files by their kind.
    pub(crate) descriptors: BTreeMap<String, usize>,
    pub(crate) threads: usize,
    pub(crate) watches: usize,
    /// In all mount namespaces that its threads are in.
    pub(crate) mounts: usize,
}

impl Footprint {
    /// None when the process ends just now, or one of its threads does.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let mut this = Self {
            descriptors: BTreeMap::new(),
            threads: 0,
            watches: 0,
            mounts: 0,
        };
        for fd in names(&dir.join("fd"))? {
            let what = fs::read_link(dir.join("fd").join(&fd)).ok()?;
            let what = what.display().to_string();
            let kind = what.split('[').next().unwrap_or_default().to_owned();
            *this.descriptors.entry(kind).or_default() += 1;
            let info = fs::read_to_string(dir.join("fdinfo").join(&fd)).ok()?;
            let watches = info.lines().filter(|line| line.starts_with("inotify"));
            this.watches += watches.count();
        }
        let mut namespaces = BTreeMap::new();
        for task in names(&dir.join("task"))? {
            let task = dir.join("task").join(task);
            this.threads += 1;
            let namespace = fs::read_link(task.join("ns/mnt")).ok()?;
            let mounts = fs::read_to_string(task.join("mountinfo")).ok()?;
            namespaces.insert(namespace, mounts.lines().count());
        }
        this.mounts = namespaces.values().sum();
        Some(this)
    }
}

/// Memory of a process that no file stands behind, in KiB.
pub(crate) fn anonymous_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    support::number_after(&rollup, "Anonymous:")
}

fn names(dir: &Path) -> Option<Vec<std::ffi::OsString>> {
    let entries = fs::read_dir(dir).ok()?;
    entries.map(|entry| Some(entry.ok()?.file_name())).collect()
}
