//! Delegation of the cgroups of an isolated container to its root, so that it can make cgroups below them. The files with
//! its limits stay the host's.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;

use eci_fs_mountd::config::Isolation;
use eci_fs_mountd::container::{Membership, open_directory, parse_all_memberships};
use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat};
use rustix::io::Errno;

use super::policy::parse_map;
use super::read_mounts;

/// The files of a cgroup of version 1 by which its owner puts processes into cgroups.
const FILES_OF_VERSION_1: [&str; 2] = ["cgroup.procs", "tasks"];

/// Those of version 2 (cgroups(7), "Cgroups delegation").
const FILES_OF_VERSION_2: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// Gives the cgroups of the process `pid`, which is the init of a new container, to root of its user namespace: those of
/// version 2, and those of version 1 if `settings` say so. A cgroup that also has another process is not the container's, and
/// stays as it is.
///
/// # Errors
/// When the user namespace is the host's or maps its ids in parts, and the kernel's.
pub fn delegate(pid: i32, settings: &Isolation) -> Result<()> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))
    };
    let first_id = match parse_map(&read("uid_map")?) {
        Some((first_id, _)) if first_id != 0 => first_id,
        _ => {
            return Err(Error::refused(
                "its cgroup is not delegated, because its user namespace is the host's or maps ids in parts",
            ));
        }
    };
    let mounts = read_mounts()?;
    for membership in parse_all_memberships(&read("cgroup")?) {
        let is_version_1 = !membership.controllers.is_empty();
        if is_version_1 && !settings.delegate_cgroup_v1 || !is_below_the_top(&membership) {
            continue;
        }
        let Some(found) = open_directory(&mounts, &membership)? else {
            continue;
        };
        if is_alone(pid, &found.dir) {
            give(&found.dir, is_version_1, first_id, settings)
                .map_err(|e| Error::io("delegate", format!("{}/{}", found.top, found.rest), e))?;
        }
    }
    Ok(())
}

/// Returns whether the cgroup has one above it, in our cgroup namespace.
fn is_below_the_top(membership: &Membership) -> bool {
    membership.path != "/" && !membership.path.starts_with("/..")
}

/// Returns whether the process is the only one in a cgroup that has none below it.
fn is_alone(pid: i32, dir: &OwnedFd) -> bool {
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else {
        return false;
    };
    let is_below = |entry: &rustix::io::Result<rustix::fs::DirEntry>| {
        entry.as_ref().map_or(true, |entry| {
            let name = entry.file_name().to_bytes();
            entry.file_type() == rustix::fs::FileType::Directory && !matches!(name, b"." | b"..")
        })
    };
    if entries.into_iter().any(|entry| is_below(&entry)) {
        return false;
    }
    let Ok(file) = open(dir, "cgroup.procs", OFlags::RDONLY) else {
        return false;
    };
    let text = std::io::read_to_string(file).unwrap_or_default();
    let processes: BTreeSet<&str> = text.lines().collect();
    processes.into_iter().eq([pid.to_string().as_str()])
}

fn give(
    dir: &OwnedFd,
    version_1: bool,
    first_id: u32,
    settings: &Isolation,
) -> std::result::Result<(), Errno> {
    let files: &[&str] = if version_1 {
        &FILES_OF_VERSION_1
    } else {
        bound(dir, settings)?;
        &FILES_OF_VERSION_2
    };
    let owner = (Some(Uid::from_raw(first_id)), Some(Gid::from_raw(first_id)));
    for file in files {
        match chownat(dir, *file, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    rustix::fs::fchown(dir, owner.0, owner.1)
}

/// Bounds what can be made below a cgroup of version 2, where it has no bound yet. The kernel has 65,535 memory cgroups for
/// all.
fn bound(dir: &OwnedFd, settings: &Isolation) -> std::result::Result<(), Errno> {
    for (name, most) in [
        ("cgroup.max.descendants", settings.max_descendants),
        ("cgroup.max.depth", settings.max_depth),
    ] {
        let text = std::io::read_to_string(open(dir, name, OFlags::RDONLY)?).map_err(errno)?;
        if text.trim() == "max" {
            let mut file = open(dir, name, OFlags::WRONLY)?;
            file.write_all(most.to_string().as_bytes()).map_err(errno)?;
        }
    }
    Ok(())
}

fn open(dir: &OwnedFd, name: &str, how: OFlags) -> std::result::Result<fs::File, Errno> {
    let flags = how | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map(fs::File::from)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_a_hierarchy_is_nobodys() {
        let below = |path: &str| {
            is_below_the_top(&Membership {
                controllers: Vec::new(),
                path: path.to_owned(),
            })
        };
        assert!(below("/docker/x"));
        assert!(!below("/"));
        assert!(!below("/../x"));
    }

    #[test]
    fn a_cgroup_with_other_processes_is_not_the_containers() {
        let alone = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("cgroup.procs"), text).unwrap();
            is_alone(7, &OwnedFd::from(fs::File::open(dir.path()).unwrap()))
        };
        assert!(alone("7\n"));
        assert!(!alone("7\n8\n"));
        assert!(!alone("77\n"));
        assert!(!alone(""));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.procs"), "7\n").unwrap();
        fs::create_dir(dir.path().join("of-another")).unwrap();
        let opened = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        assert!(!is_alone(7, &opened));
    }
}
