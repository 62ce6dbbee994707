//! A cgroup of the v2 hierarchy, and what its files say: the other side of every comparison.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// Where the hierarchy is.
const TOP: &str = "/sys/fs/cgroup";

/// One cgroup.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// One that is there already.
    pub(crate) fn existing(path: &str) -> Self {
        Self(Path::new(TOP).join(path))
    }

    /// A new one directly below the root.
    pub(crate) fn new(name: &str) -> Result<Self> {
        Self(TOP.into()).child(name)
    }

    /// A new one below, which gets every controller.
    pub(crate) fn child(&self, name: &str) -> Result<Self> {
        let child = Self(self.0.join(name));
        for controller in self.read("cgroup.controllers")?.split_ascii_whitespace() {
            self.set("cgroup.subtree_control", &format!("+{controller}"))?;
        }
        fs::create_dir(&child.0).map_err(|e| format!("mkdir {}: {e}", child.0.display()))?;
        Ok(child)
    }

    /// Removes it; nobody may be in it.
    pub(crate) fn remove(&self) -> Result<()> {
        fs::remove_dir(&self.0).map_err(|e| format!("rmdir {}: {e}", self.0.display()))
    }

    pub(crate) fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.0.join(file);
        // With a newline: to write nothing at all would not be a write.
        fs::write(&path, format!("{value}\n"))
            .map_err(|e| format!("write {value} to {}: {e}", path.display()))
    }

    pub(crate) fn join(&self, pid: i32) -> Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        self.0.join(file).exists()
    }

    pub(crate) fn read(&self, file: &str) -> Result<String> {
        let path = self.0.join(file);
        fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))
    }

    /// A file with one number. None where it says "max".
    pub(crate) fn number(&self, file: &str) -> Result<Option<u64>> {
        let text = self.read(file)?;
        match text.trim() {
            "max" => Ok(None),
            number => number
                .parse()
                .map(Some)
                .map_err(|e| format!("{file} of the cgroup says {number}: {e}")),
        }
    }

    /// A file with a key and a number on each line.
    pub(crate) fn keys(&self, file: &str) -> Result<BTreeMap<String, u64>> {
        Ok(keys(&self.read(file)?))
    }

    /// Quota and period in microseconds; none without a quota.
    pub(crate) fn quota(&self) -> Result<Option<(u64, u64)>> {
        let text = self.read("cpu.max")?;
        let mut words = text.split_ascii_whitespace().map(str::parse::<u64>);
        match (words.next(), words.next()) {
            (Some(Ok(quota)), Some(Ok(period))) => Ok(Some((quota, period))),
            (Some(Err(_)), Some(Ok(_))) => Ok(None),
            _ => Err(format!("cpu.max says {text}")),
        }
    }

    /// The cgroup and its ancestors, without the root.
    pub(crate) fn line(&self) -> Vec<Cgroup> {
        let all = self.0.ancestors().map(Path::to_path_buf).map(Cgroup);
        all.take_while(|cgroup| cgroup.0 != Path::new(TOP))
            .collect()
    }

    /// Its threads, and those of the cgroups below it.
    pub(crate) fn threads(&self) -> Result<Vec<i32>> {
        let mut threads: Vec<i32> = self
            .read("cgroup.threads")?
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect();
        for entry in fs::read_dir(&self.0).map_err(|e| e.to_string())?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                threads.extend(Self(entry.path()).threads()?);
            }
        }
        Ok(threads)
    }
}

/// Text with a key and a number on each line.
pub(crate) fn keys(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}
