//! The part of a configuration that isolation takes over from the runtime, so that its mounts are locked: those that
//! the runtime would make come too late for that.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use eci_fs_protocol::locks::{Locks, ReadOnlyMount};
use serde::{Deserialize, Serialize};

use super::container::{Container, ReadOnly};
use super::edits::{PING_GROUPS, clamp_groups};

/// Directories below which a mount is in the tree of /proc or /sys.
const TOPS: [&str; 2] = ["/proc", "/sys"];

/// The directory of a container that its runtime fills after the hooks.
const DEVICES: &str = "/dev";

/// Sysctls of the ipc namespace and of the uts namespace.
const OF_NAMESPACES: [&str; 9] = [
    "kernel/domainname",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Directories of sysctls of the ipc namespace and of the network namespace.
const DIRECTORIES_OF_NAMESPACES: [&str; 2] = ["fs/mqueue/", "net/"];

/// The part of a configuration that the hook carries out in place of the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenOver {
    /// The mounts that the daemon makes and locks.
    pub locks: Locks,
    /// Values of sysctls, by the path of the file below /proc/sys. They are written before that is read-only.
    pub sysctls: BTreeMap<PathBuf, String>,
}

impl TakenOver {
    /// Returns the part that is taken over, of a container with this number of ids.
    pub fn of(container: &Container, ids: u32) -> Self {
        let taken = |paths: &[PathBuf]| paths.iter().filter_map(|path| taken_path(path)).collect();
        let mounts = container.mounts.iter().filter_map(|mount| {
            let point = clean(&mount.destination);
            let in_devices = point.starts_with(DEVICES);
            let is_taken = mount.read_only != ReadOnly::None && !mount.is_own && !in_devices;
            is_taken.then_some(ReadOnlyMount {
                point,
                recursive: mount.read_only == ReadOnly::All,
            })
        });
        let sysctls = container.sysctl.iter().filter_map(|(name, value)| {
            let value = match name == PING_GROUPS {
                true => clamp_groups(value, ids),
                false => value.clone(),
            };
            Some((taken_sysctl(name)?, value))
        });
        Self {
            locks: Locks {
                masked: taken(&container.masked_paths),
                read_only: taken(&container.readonly_paths),
                mounts: mounts.collect(),
            },
            sysctls: sysctls.collect(),
        }
    }
}

/// Returns a path that is masked or read-only as the daemon wants it; none if it is left to the runtime, because it lies in
/// no tree that is locked.
pub(super) fn taken_path(path: &Path) -> Option<PathBuf> {
    let path = clean(path);
    let is_below = |top: &str| path.starts_with(top) && path != Path::new(top);
    TOPS.iter().any(|top| is_below(top)).then_some(path)
}

/// Returns the path of a sysctl below /proc/sys; none if it is left to the runtime, because it is of no namespace. The
/// runtime refuses it, or the kernel does.
pub(super) fn taken_sysctl(name: &str) -> Option<PathBuf> {
    // A name has slashes in the place of dots, or the other way round: the first of them tells.
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path = match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'.') => name.chars().map(swapped).collect(),
        _ => name.to_owned(),
    };
    let is_taken = OF_NAMESPACES.contains(&path.as_str())
        || DIRECTORIES_OF_NAMESPACES
            .iter()
            .any(|directory| path.starts_with(directory));
    let is_plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (is_taken && is_plain && !path.contains('\0')).then(|| path.into())
}

/// Returns a path in a container as runtimes understand it: from its root, without "." and "..".
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_proc_and_sys_are_taken_and_others_left() {
        for (path, wanted) in [
            ("/proc/kcore", Some("/proc/kcore")),
            ("//proc/./sys//", Some("/proc/sys")),
            ("/x/../sys/firmware", Some("/sys/firmware")),
            ("proc/keys", Some("/proc/keys")),
            ("/proc", None),
            ("/proc/../etc/x", None),
            ("/process/x", None),
            ("/etc/shadow", None),
        ] {
            assert_eq!(
                taken_path(Path::new(path)),
                wanted.map(PathBuf::from),
                "{path}"
            );
        }
    }

    #[test]
    fn sysctls_of_namespaces_are_taken_and_others_left() {
        for (name, wanted) in [
            ("net.core.somaxconn", Some("net/core/somaxconn")),
            ("net/core/somaxconn", Some("net/core/somaxconn")),
            (
                "net.ipv4.conf.eth0/7.forwarding",
                Some("net/ipv4/conf/eth0.7/forwarding"),
            ),
            ("kernel.shmmax", Some("kernel/shmmax")),
            ("fs.mqueue.msg_max", Some("fs/mqueue/msg_max")),
            ("kernel.domainname", Some("kernel/domainname")),
            ("kernel.panic", None),
            ("vm.swappiness", None),
            ("kernel.shmmaxx", None),
            ("net/../vm/swappiness", None),
            ("net/", None),
            ("", None),
        ] {
            assert_eq!(taken_sysctl(name), wanted.map(PathBuf::from), "{name}");
        }
    }
}
