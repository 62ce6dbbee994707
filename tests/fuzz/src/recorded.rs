//! Recorded hosts with containers, whose files a target changes: the fixtures of the emulators.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use archive::Archive;
use eci_fs_emulators::{Host, TUNABLES};
use tempfile::TempDir;

use crate::made_up::Edit;

/// The fixtures: both versions of cgroups, many files, and nested cgroups.
pub const FIXTURES: [&str; 4] = [
    "6.12-v2-limits",
    "6.18-v1-limits",
    "6.1-v2-dense",
    "5.10-v2-nested",
];

/// A recorded host, unpacked.
#[derive(Debug)]
pub struct Recorded {
    archive: Archive,
    dir: TempDir,
    /// The files of the container's cgroups and of those above, without those of other controllers.
    cgroup: Vec<String>,
    /// The files of the host.
    host: Vec<String>,
    hierarchies: Vec<Hierarchy>,
    changed: BTreeSet<String>,
}

/// The cgroup of the container in one hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    /// 1 or 2.
    pub version: u8,
    /// The controllers, by the kernel's names.
    pub controllers: Vec<String>,
    /// The number of cgroups above it.
    pub depth: u32,
    /// Its directory in the archive.
    path: String,
}

impl Recorded {
    /// Unpacks a fixture of [`FIXTURES`].
    pub fn unpack(fixture: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../emulators/tests/fixtures")
            .join(format!("{fixture}.txt"));
        let archive = Archive::read(&path).unwrap();
        let dir = tempfile::tempdir().unwrap();
        archive.unpack(dir.path()).unwrap();
        // Few tunables were recorded.
        for tunable in TUNABLES.iter().copied().flatten() {
            let path = dir.path().join(format!("host{}", tunable.path()));
            if !path.exists() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "60\n").unwrap();
            }
        }
        let files = |top: &str| -> Vec<String> {
            let paths = archive.paths().filter(|path| path.starts_with(top));
            let files = paths.filter(|path| archive.file(path).is_some());
            files.map(str::to_owned).collect()
        };
        let recorded = archive.file("container.json").unwrap();
        let recorded: serde_json::Value = serde_json::from_slice(recorded).unwrap();
        let hierarchies = recorded["hierarchies"].as_array().unwrap().iter();
        let hierarchies = hierarchies.map(|recorded| {
            let path = recorded["path"].as_str().unwrap().trim_matches('/');
            let parts = path.split('/').filter(|part| !part.is_empty());
            Hierarchy {
                version: serde_json::from_value(recorded["version"].clone()).unwrap(),
                controllers: serde_json::from_value(recorded["controllers"].clone()).unwrap(),
                depth: u32::try_from(parts.count()).unwrap(),
                path: format!("cgroup/{}/{path}", recorded["dir"].as_str().unwrap()),
            }
        });
        Self {
            cgroup: files("cgroup/"),
            host: files("host/"),
            hierarchies: hierarchies.collect(),
            archive,
            dir,
            changed: BTreeSet::new(),
        }
    }

    /// Returns the host.
    pub fn host(&self) -> Host {
        Host::from_dirs(self.open("host/proc"), self.open("host/sys"))
    }

    /// Returns the container's cgroups and their directories.
    pub fn hierarchies(&self) -> impl Iterator<Item = (&Hierarchy, OwnedFd)> {
        let hierarchies = self.hierarchies.iter();
        hierarchies.map(|hierarchy| (hierarchy, self.open(&hierarchy.path)))
    }

    fn open(&self, path: &str) -> OwnedFd {
        File::open(self.path(path)).unwrap().into()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Changes a file.
    pub fn edit(&mut self, edit: &Edit) {
        let files = if edit.of_cgroup {
            &self.cgroup
        } else {
            &self.host
        };
        let file = files[usize::from(edit.file) % files.len()].clone();
        let path = self.path(&file);
        match edit.apply(fs::read(&path).unwrap_or_default()) {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap_or_default(),
        }
        self.changed.insert(file);
    }

    /// Undoes all changes.
    pub fn restore(&mut self) {
        for file in std::mem::take(&mut self.changed) {
            fs::write(self.path(&file), self.archive.file(&file).unwrap()).unwrap();
        }
    }
}
