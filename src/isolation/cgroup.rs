//! The container's cgroup, where the container may write to it.
//!
//! In a hierarchy of version 2 a container with a writable mount of its own cgroup can make cgroups below it, if that belongs
//! to its root. crun sees to that, and runc does not. The files that set limits of the cgroup stay the host's.

use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use eci_fs_mountd::container::mountinfo::parse_mountinfo;
use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, fchown, openat};
use rustix::io::Errno;

use super::policy::parse_map;

/// The files that whoever makes cgroups below needs (cgroup-v2.rst, "Delegation"). What else the kernel calls delegatable
/// is about the memory of the cgroup itself.
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// Gives the cgroup of the process `pid` to root of its user namespace, where it is in a hierarchy of version 2.
///
/// # Errors
/// When it cannot be found, and the kernel's.
pub fn delegate(pid: i32) -> Result<()> {
    let path = format!("/proc/{pid}/uid_map");
    let map = std::fs::read_to_string(&path).map_err(|e| Error::io("read", path, e))?;
    match parse_map(&map) {
        Some((first_id, _)) if first_id != 0 => delegate_to(pid, first_id),
        _ => Err(Error::refused(format!(
            "process {pid} is in no user namespace of a container"
        ))),
    }
}

fn delegate_to(pid: i32, first_id: u32) -> Result<()> {
    let read =
        |path: String| std::fs::read_to_string(&path).map_err(|e| Error::io("read", path, e));
    let text = read(format!("/proc/{pid}/cgroup"))?;
    let Some(path) = path_in_version_2(&text) else {
        return Ok(());
    };
    let mounts = parse_mountinfo(&read("/proc/self/mountinfo".to_owned())?);
    let Some(mount) = mounts
        .iter()
        .find(|one| one.fstype == "cgroup2" && one.root == "/")
    else {
        return Ok(());
    };
    let path = Path::new(&mount.point).join(path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let cgroup =
        openat(CWD, &path, flags, Mode::empty()).map_err(|e| Error::io("open", &path, e))?;
    give(&cgroup, first_id).map_err(|e| Error::io("give the container", &path, e))
}

/// Returns the path of a cgroup in the hierarchy of version 2, relative to its root. Returns none for the root itself, and
/// outside of this cgroup namespace.
fn path_in_version_2(text: &str) -> Option<&Path> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new(path);
    let is_below = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (is_below && path.components().next().is_some()).then_some(path)
}

fn give(cgroup: &OwnedFd, first_id: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(first_id)), Some(Gid::from_raw(first_id)));
    for name in FILES {
        match chownat(cgroup, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
            // Not every cgroup has each file.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    fchown(cgroup, uid, gid)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn only_a_cgroup_below_the_root_of_version_2_is_delegated() {
        for (text, wanted) in [
            ("0::/docker/x\n", Some("docker/x")),
            ("5:memory:/a\n0::/b\n", Some("b")),
            ("5:memory:/a\n", None),
            ("0::/\n", None),
            ("0::/../x\n", None),
            ("0::/a/../../x\n", None),
            ("", None),
        ] {
            assert_eq!(path_in_version_2(text), wanted.map(Path::new), "{text}");
        }
    }

    /// A cgroup of version 2 with a process in it. Both end with this.
    struct Cgroup(PathBuf, std::process::Child);

    impl Drop for Cgroup {
        fn drop(&mut self) {
            let _ = self.1.kill();
            let _ = self.1.wait();
            // The kernel may need a moment until no process is in it.
            for _ in 0..1000 {
                if fs::remove_dir(&self.0).is_ok() {
                    break;
                }
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn privileged_the_container_gets_its_cgroup_and_no_limit_of_it() {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = parse_mountinfo(&text);
        let mount = mounts.iter().find(|one| one.fstype == "cgroup2").unwrap();
        let path = Path::new(&mount.point).join(format!("eci-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let cgroup = Cgroup(path, child);
        let pid = cgroup.1.id();
        fs::write(cgroup.0.join("cgroup.procs"), pid.to_string()).unwrap();
        assert!(
            delegate(pid.cast_signed()).is_err(),
            "it has the host's root"
        );
        assert_eq!(fs::metadata(&cgroup.0).unwrap().uid(), 0);
        delegate_to(pid.cast_signed(), 524_288).unwrap();
        let owner = |path: PathBuf| {
            let stat = fs::metadata(path).unwrap();
            (stat.uid(), stat.gid())
        };
        assert_eq!(owner(cgroup.0.clone()), (524_288, 524_288));
        for entry in fs::read_dir(&cgroup.0).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let wanted = if FILES.contains(&name.as_str()) {
                524_288
            } else {
                0
            };
            assert_eq!(owner(entry.path()), (wanted, wanted), "{name}");
        }
    }
}
