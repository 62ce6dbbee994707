//! What shall be covered: entries of a container's /proc and /sys, opened and checked.
//!
//! A container decides what lies in its mount namespace, so nothing here trusts it. Paths are opened one
//! after the other with `openat2`, without symbolic links; what lies at them is judged by the kernel's
//! mountinfo, because `statfs` would ask a file system that may be the container's own and may never answer.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::place::{FSTYPE, SOURCE};
use crate::container::Subject;
use crate::container::mountinfo::{Mount, parse_mountinfo};
use crate::container::procfs::{Namespace, Proc};
use crate::error::{Error, Kind, Result};

/// The /proc and /sys of a container, and what is mounted there.
#[derive(Debug)]
pub struct Targets<'a> {
    proc: &'a Proc,
    subject: &'a Subject,
    mounts: HashMap<u64, Mount>,
    proc_dir: OwnedFd,
    sys_dir: Option<OwnedFd>,
}

/// One entry, opened.
#[derive(Debug)]
pub(super) struct Target {
    /// The entry itself.
    pub(super) entry: OwnedFd,
    /// The directory that holds it, and its name there: `umount2` wants a path.
    pub(super) parent: OwnedFd,
    pub(super) name: String,
    /// Whether a graft of ours lies there already, living or dead.
    pub(super) ours: bool,
}

impl<'a> Targets<'a> {
    /// Open the container's /proc and /sys below its root directory.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the namespace is the host's, when /proc is not a procfs, or when what is mounted
    /// there would appear outside of the container too.
    pub fn open(proc: &'a Proc, subject: &'a Subject) -> Result<Self> {
        let pid = subject.pid;
        refuse_host(proc, subject)?;
        let root = proc.open_at(&format!("{pid}/root"), OFlags::PATH | OFlags::DIRECTORY)?;
        let mounts: HashMap<u64, Mount> = parse_mountinfo(&proc.read(&format!("{pid}/mountinfo"))?)
            .into_iter()
            .map(|mount| (mount.id, mount))
            .collect();
        let proc_dir = open_top(&root, "proc")?.ok_or_else(|| {
            Error::refused(format!("process {pid} has no /proc")).remedy("mount procfs there first")
        })?;
        let sys_dir = open_top(&root, "sys")?;
        let this = Self {
            proc,
            subject,
            mounts,
            proc_dir,
            sys_dir,
        };
        this.check_top(&this.proc_dir, "/proc", "proc")?;
        if let Some(sys) = &this.sys_dir {
            // A container may do without /sys: an empty directory is no reason to refuse it.
            if this
                .mount_of(sys)?
                .is_some_and(|mount| mount.fstype == "sysfs")
            {
                this.check_top(sys, "/sys", "sysfs")?;
            } else {
                return Ok(Self {
                    sys_dir: None,
                    ..this
                });
            }
        }
        Ok(this)
    }

    /// Open the entry at `path`. None where the container does not have it.
    ///
    /// # Errors
    /// When the path is not one of /proc or /sys, or leads over a symbolic link or into a mount that is not
    /// the kernel's.
    pub(super) fn find(&self, path: &str) -> Result<Option<Target>> {
        let (top, rest) = match (path.strip_prefix("/proc/"), path.strip_prefix("/sys/")) {
            (Some(rest), _) => (Some(&self.proc_dir), rest),
            (_, Some(rest)) => (self.sys_dir.as_ref(), rest),
            _ => {
                return Err(Error::refused(format!(
                    "{path} is neither below /proc nor below /sys"
                )));
            }
        };
        let Some(top) = top else { return Ok(None) };
        let (dir, name) = rest.rsplit_once('/').unwrap_or((".", rest));
        if name.is_empty() || rest.split('/').any(|part| part == "..") {
            return Err(Error::refused(format!("{path} is not a path of an entry")));
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let parent = match open_below(top, dir, flags | OFlags::DIRECTORY) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(link_or(e, path)),
        };
        let entry = match open_below(&parent, name, flags | OFlags::NOFOLLOW) {
            Ok(entry) => entry,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(link_or(e, path)),
        };
        let mount = self.mount_of(&entry)?;
        if let Some(group) = mount.and_then(|mount| mount.shared) {
            self.refuse_shared(group, path)?;
        }
        let ours = mount.is_some_and(|mount| mount.source == SOURCE && mount.fstype == FSTYPE);
        Ok(Some(Target {
            entry,
            parent,
            name: name.to_owned(),
            ours,
        }))
    }

    /// The mount in which an opened file lies; none when it is not one of the container's.
    fn mount_of(&self, fd: impl AsFd) -> Result<Option<&Mount>> {
        Ok(self.mounts.get(&mount_id(self.proc, fd.as_fd())?))
    }

    fn check_top(&self, dir: &OwnedFd, path: &str, fstype: &str) -> Result<()> {
        let pid = self.subject.pid;
        match self.mount_of(dir)? {
            Some(mount) if mount.fstype == fstype && mount.root == "/" => Ok(()),
            Some(mount) => Err(Error::refused(format!(
                "{path} of process {pid} is not the kernel's {fstype} but {}",
                if mount.fstype == fstype {
                    "a part of one"
                } else {
                    mount.fstype.as_str()
                }
            ))
            .remedy(format!("mount {fstype} on the container's {path} first"))),
            None => Err(Error::refused(format!(
                "{path} of process {pid} lies in no mount of its namespace"
            ))
            .remedy(format!("mount {fstype} on the container's {path} first"))),
        }
    }

    /// A mount on a shared mount appears on all its peers. Those inside the container are welcome to it; if
    /// there are others, nothing is grafted.
    fn refuse_shared(&self, group: u64, path: &str) -> Result<()> {
        let own_pids = self.proc.namespace("self", "pid")?;
        let mut seen = BTreeSet::from([self.subject.mount_namespace]);
        for pid in self.proc.pids()? {
            let Ok(mounts) = self.proc.namespace(pid, "mnt") else {
                continue;
            };
            if seen.contains(&mounts) {
                continue;
            }
            let inside = self.subject.pid_namespace != own_pids
                && self
                    .proc
                    .namespace(pid, "pid")
                    .is_ok_and(|pids| pids == self.subject.pid_namespace);
            if inside {
                continue;
            }
            seen.insert(mounts);
            let Ok(text) = self.proc.read(&format!("{pid}/mountinfo")) else {
                continue;
            };
            if parse_mountinfo(&text)
                .iter()
                .any(|mount| mount.shared == Some(group))
            {
                return Err(Error::refused(format!(
                    "{path} of process {} is mounted shared: a graft there would appear to process {pid} too, \
                     outside of the container",
                    self.subject.pid
                ))
                .remedy("make it private in the container: `mount --make-rprivate /`"));
            }
        }
        Ok(())
    }
}

/// The mount namespaces that are the host's: the daemon's own, and those of pid 1 and of the kernel's threads
/// where they can be seen. (Pid 1 of some machines cannot be looked at even by root.)
fn refuse_host(proc: &Proc, subject: &Subject) -> Result<()> {
    let kthreadd = proc.read("2/comm").is_ok_and(|comm| comm == "kthreadd\n");
    let hosts: Vec<Namespace> = [
        proc.namespace("self", "mnt").ok(),
        proc.namespace(1, "mnt").ok(),
        kthreadd.then(|| proc.namespace(2, "mnt").ok()).flatten(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if hosts.contains(&subject.mount_namespace) {
        return Err(Error::refused(format!(
            "process {} is in the host's own mount namespace: grafts there would change what the host sees",
            subject.pid
        ))
        .remedy("name a process inside of a container, or use `eci-fs run`"));
    }
    Ok(())
}

fn open_top(root: &OwnedFd, name: &str) -> Result<Option<OwnedFd>> {
    match open_below(
        root,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
    ) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(link_or(e, &format!("/{name}"))),
    }
}

fn open_below(dir: impl AsFd, path: &str, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        dir,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH,
    )
}

fn link_or(errno: Errno, path: &str) -> Error {
    match errno {
        Errno::LOOP | Errno::NOTDIR => Error::refused(format!(
            "{path} of the container is a symbolic link or no directory where the kernel has one"
        ))
        .remedy("the container replaced it; mount procfs and sysfs anew in it"),
        e => Error::io("open the container's", path, e),
    }
}

/// The id of the mount in which a descriptor's file lies, without asking its file system.
pub(super) fn mount_id(proc: &Proc, fd: BorrowedFd<'_>) -> Result<u64> {
    let text = proc.read(&format!("thread-self/fdinfo/{}", fd.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| Error::new(Kind::System, "a descriptor has no mnt_id in its fdinfo"))
}
