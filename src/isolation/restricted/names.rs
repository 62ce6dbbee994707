//! All names that a file has in a list of mounts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use eci_fs_mountd::container::mountinfo::{Mount, mount_at};

/// The file systems of the kernel that have no disk, and the paths at which they are mounted.
const USUAL: [(&str, &str); 17] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("mqueue", "/dev/mqueue"),
    ("cgroup", "/sys/fs/cgroup"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("securityfs", "/sys/kernel/security"),
    ("configfs", "/sys/kernel/config"),
    ("pstore", "/sys/fs/pstore"),
    ("bpf", "/sys/fs/bpf"),
    ("efivarfs", "/sys/firmware/efi/efivars"),
    ("fusectl", "/sys/fs/fuse/connections"),
    ("resctrl", "/sys/fs/resctrl"),
    ("binfmt_misc", "/proc/sys/fs/binfmt_misc"),
];

/// The place of a file: a file system, and the path in that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location<'a> {
    dev: &'a str,
    fstype: &'a str,
    path: PathBuf,
}

impl<'a> Location<'a> {
    /// Returns the place of `path`, which is found in `mount`.
    pub(super) fn of(mount: &'a Mount, path: &Path) -> Option<Self> {
        let rest = path.strip_prefix(&mount.point).ok()?;
        Some(Self {
            dev: &mount.dev,
            fstype: &mount.fstype,
            path: joined(Path::new(&mount.root), rest),
        })
    }

    /// Returns whether the other place is below this one.
    pub(super) fn contains(&self, other: &Self) -> bool {
        self.dev == other.dev && self.path != other.path && other.path.starts_with(&self.path)
    }
}

/// The mounts of the host, by file system.
#[derive(Debug)]
pub(super) struct Names<'a> {
    mounts: &'a [Mount],
    by_dev: HashMap<&'a str, Vec<&'a Mount>>,
}

impl<'a> Names<'a> {
    pub(super) fn new(mounts: &'a [Mount]) -> Self {
        let mut by_dev: HashMap<&str, Vec<&Mount>> = HashMap::new();
        for mount in mounts.iter().filter(|mount| !mount.is_deleted()) {
            by_dev.entry(&mount.dev).or_default().push(mount);
        }
        Self { mounts, by_dev }
    }

    /// Returns the mount with an id.
    pub(super) fn mount(&self, id: u64) -> Option<&'a Mount> {
        self.mounts.iter().find(|mount| mount.id == id)
    }

    /// Returns the place of a path without links.
    pub(super) fn location(&self, path: &Path) -> Option<Location<'a>> {
        Location::of(mount_at(self.mounts, path.to_str()?)?, path)
    }

    /// Returns the mounts below `path`.
    pub(super) fn below(&self, path: &Path) -> impl Iterator<Item = &'a Mount> {
        self.mounts
            .iter()
            .filter(|mount| !mount.is_deleted())
            .filter(move |mount| Path::new(&mount.point) != path)
            .filter(move |mount| Path::new(&mount.point).starts_with(path))
    }

    /// Returns the paths at which a place is seen, also if another mount covers it there. A file system of the kernel that was
    /// mounted once more is not the one at its usual path, but has the same files.
    pub(super) fn of(&self, location: &Location<'_>) -> Vec<PathBuf> {
        let same = self.by_dev.get(location.dev).into_iter().flatten();
        let seen = same.filter_map(|mount| {
            let rest = location.path.strip_prefix(&mount.root).ok()?;
            Some(joined(Path::new(&mount.point), rest))
        });
        let usual = USUAL.iter().filter(|(kind, _)| *kind == location.fstype);
        let usual = usual.filter_map(|(_, path)| {
            let rest = location.path.strip_prefix("/").ok()?;
            Some(joined(Path::new(path), rest))
        });
        seen.chain(usual).collect()
    }
}

/// Returns a path with names added, without a slash at its end.
fn joined(path: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        path.to_owned()
    } else {
        path.join(rest)
    }
}
