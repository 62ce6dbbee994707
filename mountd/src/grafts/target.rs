//! The targets of grafts: entries of a container's /proc and /sys, opened and checked.
//!
//! A container decides about its mount namespace, so nothing here trusts it. Paths are walked name by name with
//! `openat2`, without symbolic links. A directory is only searched if its mount is the kernel's or one of ours: a file
//! system of the container's own may never answer. The kernel says which mount that is without asking its file system
//! (`STATX_MNT_ID`), and mountinfo says what kind of mount it is.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::open::{At, at, link_or, open_root, open_top};
use super::source_mounts::{FSTYPE, SOURCE};
use super::visits::Visit;
use crate::container::mountinfo::Mount;
use crate::container::procfs::{Namespace, Proc};
use crate::container::{Subject, open_below};
use eci_fs_protocol::error::{Error, Result};

/// The time in which the peers of all shared mounts of a container are looked for. Containers choose how many mounts they
/// have, and of how many groups.
const PEERS_LIMIT: Duration = Duration::from_secs(2);

/// The /proc and /sys of a container, and what is mounted there.
#[derive(Debug)]
pub(super) struct Targets<'a> {
    visit: &'a Visit,
    proc: &'a Proc,
    subject: &'a Subject,
    mounts: HashMap<u64, Mount>,
    /// The `st_dev` of the two connections, as mountinfo writes it. The kernel gives these numbers, so no other file
    /// system can pass for one of ours.
    connections: &'a [String],
    /// Ids of mounts of ours that were made after `mounts` was read.
    fresh: RefCell<HashSet<u64>>,
    /// Peer groups that are known to be inside of the container only.
    inside: RefCell<HashSet<u64>>,
    /// The time that may still be taken to look for peers.
    left: Cell<Duration>,
    /// Directories that have been walked to, by path.
    dirs: RefCell<HashMap<String, Rc<OwnedFd>>>,
    /// Those of them that lie in a mount of ours. Our server answers for them, and not the container.
    ours: RefCell<HashSet<String>>,
    proc_dir: Option<Rc<OwnedFd>>,
    sys_dir: Option<Rc<OwnedFd>>,
}

/// The container's /proc or /sys.
#[derive(Debug)]
pub(super) struct Top<'a> {
    /// The directory.
    pub(super) dir: &'a OwnedFd,
    /// The mount of the directory.
    pub(super) mount: &'a Mount,
    /// The mounts on that, without grafts.
    pub(super) others: Vec<&'a Mount>,
}

/// One entry, opened.
#[derive(Debug)]
pub(super) struct Target {
    /// The entry itself.
    pub(super) entry: OwnedFd,
    /// True if it is a directory.
    pub(super) directory: bool,
    /// The directory that holds it, and its name there: `umount2` takes a path.
    pub(super) parent: Rc<OwnedFd>,
    pub(super) name: String,
    /// The occupant of the entry.
    pub(super) occupant: Occupant,
}

/// The mount that covers an entry already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occupant {
    /// The entry has no mount of ours: it is the kernel's, or what the container has mounted there.
    Other,
    /// A graft of the container in this slot, by this daemon. A container in a container inherits those of the outer
    /// one.
    Graft(u64),
    /// A graft of another daemon, living or dead, or what passes for one.
    Foreign,
}

impl<'a> Targets<'a> {
    /// Opens the container's /proc and /sys below its root directory; or below `root`, where its root file system lies
    /// while it has not entered it.
    ///
    /// # Errors
    /// [`Refused`](eci_fs_protocol::error::Kind::Refused) when the namespace is the host's, when /proc is not a procfs, or
    /// when what is mounted there would appear outside of the container too.
    pub(super) fn open(
        visit: &'a Visit,
        subject: &'a Subject,
        root: Option<&Path>,
    ) -> Result<Self> {
        let mounts = visit.mounts();
        let (proc, connections) = (&*mounts.proc, mounts.devices.as_slice());
        let pid = subject.pid;
        refuse_host(proc, subject)?;
        let (proc_dir, sys_dir) = open_tops(visit, subject, root)?;
        let mounts: HashMap<u64, Mount> = proc
            .mounts(&format!("{pid}/mountinfo"))?
            .into_iter()
            .map(|mount| (mount.id, mount))
            .collect();
        let mut this = Self {
            visit,
            proc,
            subject,
            mounts,
            connections,
            fresh: RefCell::default(),
            inside: RefCell::default(),
            left: Cell::new(PEERS_LIMIT),
            dirs: RefCell::default(),
            ours: RefCell::default(),
            proc_dir: None,
            sys_dir: None,
        };
        // A container may do without /sys, and without /proc too if it is made so: what is not there tells nothing.
        this.proc_dir = this.top(proc_dir, "/proc", "proc", root.is_none())?;
        this.sys_dir = this.top(sys_dir, "/sys", "sysfs", false)?;
        Ok(this)
    }

    /// Returns the /proc of the container, if it has one.
    pub(super) fn proc(&self) -> Result<Option<Top<'_>>> {
        self.top_of(self.proc_dir.as_deref(), "/proc")
    }

    /// Returns the /sys of the container, if it has one.
    pub(super) fn sys(&self) -> Result<Option<Top<'_>>> {
        self.top_of(self.sys_dir.as_deref(), "/sys")
    }

    fn top_of<'s>(&'s self, dir: Option<&'s OwnedFd>, path: &str) -> Result<Option<Top<'s>>> {
        let Some(dir) = dir else { return Ok(None) };
        let Some(mount) = self.mount_of(dir, path)? else {
            return Ok(None);
        };
        let others = self.on(mount);
        Ok(Some(Top { dir, mount, others }))
    }

    /// Returns the mounts on a mount, without grafts.
    pub(super) fn on(&self, mount: &Mount) -> Vec<&Mount> {
        let all = self.mounts.values();
        all.filter(|other| other.parent == mount.id && self.occupant_of(other) == Occupant::Other)
            .collect()
    }

    /// Returns true if the container has a /proc.
    pub(super) fn has_proc(&self) -> bool {
        self.proc_dir.is_some()
    }

    /// Returns the directory at `path` if the kernel's `fstype` is mounted there, which it must be if it is `needed`.
    fn top(
        &self,
        dir: Option<OwnedFd>,
        path: &str,
        fstype: &str,
        needed: bool,
    ) -> Result<Option<Rc<OwnedFd>>> {
        let pid = self.subject.pid;
        let Some(dir) = dir else {
            if needed {
                return Err(Error::refused(format!("process {pid} has no {path}"))
                    .remedy(format!("mount {fstype} there first")));
            }
            return Ok(None);
        };
        let mount = self.mount_of(&dir, path)?;
        if !needed && mount.is_some_and(|mount| mount.fstype != fstype) {
            return Ok(None);
        }
        self.check_top(&dir, path, fstype)?;
        Ok(Some(Rc::new(dir)))
    }

    /// Adds a mount of ours that has just been made in the container.
    pub(super) fn add_fresh(&self, mount: u64) {
        self.fresh.borrow_mut().insert(mount);
    }

    /// Opens the entry at `path`. Returns none in three cases: the container does not have the entry; a mount of its
    /// own lies on the way; or it has mounted a deleted file there, as systemd-nspawn does with a boot_id. The kernel
    /// mounts nothing over a deleted file.
    ///
    /// # Errors
    /// As [`Self::look`], and when it is mounted shared with processes outside of the container.
    pub(super) fn find(&self, path: &str) -> Result<Option<Target>> {
        let Some((target, mount)) = self.look_at(path)? else {
            return Ok(None);
        };
        if let Some(group) = mount.and_then(|mount| mount.shared)
            && !self.inside.borrow().contains(&group)
        {
            self.refuse_shared(group, path)?;
            self.inside.borrow_mut().insert(group);
        }
        Ok(Some(target))
    }

    /// Opens the entry at `path` like [`Self::find`], to take a graft out. The mount may be shared with others: they got the
    /// graft with the container, and lose it with the container.
    ///
    /// # Errors
    /// When the path is not one of /proc or /sys, leads over a symbolic link, or lies in a mount that mountinfo does not
    /// have.
    pub(super) fn look(&self, path: &str) -> Result<Option<Target>> {
        Ok(self.look_at(path)?.map(|(target, _)| target))
    }

    fn look_at(&self, path: &str) -> Result<Option<(Target, Option<&Mount>)>> {
        let (parent_path, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() || path.split('/').any(|part| part == "..") {
            return Err(Error::refused(format!("{path} is not a path of an entry")));
        }
        let Some(parent) = self.walk(parent_path)? else {
            return Ok(None);
        };
        let Some((entry, at)) = self.step(&parent, name, path)? else {
            return Ok(None);
        };
        let mount = self.mounts.get(&at.mount);
        if mount.is_none() && !self.fresh.borrow().contains(&at.mount) {
            return Err(Error::refused(format!(
                "{path} of process {} lies in a mount that is not in its list of mounts",
                self.subject.pid
            ))
            .remedy("try again: the container has mounted something just now"));
        }
        if mount.is_some_and(Mount::is_deleted) {
            let pid = self.subject.pid;
            tracing::debug!(path, pid, "a deleted file of the container's own lies here");
            return Ok(None);
        }
        let occupant = mount.map_or(Occupant::Other, |mount| self.occupant_of(mount));
        let target = Target {
            entry,
            directory: at.directory,
            parent,
            name: name.to_owned(),
            occupant,
        };
        Ok(Some((target, mount)))
    }

    /// Returns the options of the mount in which an opened file lies, as a change of options has to repeat them.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn options_at(&self, file: &OwnedFd, path: &str) -> Result<MountFlags> {
        let ours = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let mount = self.mount_of(file, path)?;
        Ok(mount.map_or(ours, Mount::kept_flags))
    }

    /// Returns true if anything in the container passes for a graft of another daemon.
    pub(super) fn has_foreign(&self) -> bool {
        self.mounts
            .values()
            .any(|mount| self.occupant_of(mount) == Occupant::Foreign)
    }

    fn occupant_of(&self, mount: &Mount) -> Occupant {
        // The name of the container's directory: its slot, and mostly its generation.
        let name = || mount.root.split('/').nth(1);
        let slot = || name()?.split('-').next()?.parse().ok();
        if self.connections.contains(&mount.dev) {
            return slot().map_or(Occupant::Foreign, Occupant::Graft);
        }
        if mount.source == SOURCE && mount.fstype == FSTYPE {
            Occupant::Foreign
        } else {
            Occupant::Other
        }
    }

    /// Returns the directory at `path`, which begins with /proc or /sys.
    fn walk(&self, path: &str) -> Result<Option<Rc<OwnedFd>>> {
        match path {
            "/proc" => return Ok(self.proc_dir.clone()),
            "/sys" => return Ok(self.sys_dir.clone()),
            _ => {}
        }
        if let Some(known) = self.dirs.borrow().get(path) {
            return Ok(Some(Rc::clone(known)));
        }
        let (above, name) = path
            .rsplit_once('/')
            .filter(|(above, _)| !above.is_empty())
            .ok_or_else(|| {
                Error::refused(format!("{path} is neither below /proc nor below /sys"))
            })?;
        let Some(above) = self.walk(above)? else {
            return Ok(None);
        };
        let Some((dir, at)) = self.step(&above, name, path)? else {
            return Ok(None);
        };
        if !at.directory || !self.can_be_searched(at.mount) {
            tracing::debug!(
                path,
                pid = self.subject.pid,
                "something of the container's own lies here"
            );
            return Ok(None);
        }
        if self.is_ours(at.mount) {
            self.ours.borrow_mut().insert(path.to_owned());
        }
        let dir = Rc::new(dir);
        self.dirs
            .borrow_mut()
            .insert(path.to_owned(), Rc::clone(&dir));
        Ok(Some(dir))
    }

    /// Opens `name` in a directory; `path` is for the error. Returns none where there is none.
    fn step(&self, dir: &OwnedFd, name: &str, path: &str) -> Result<Option<(OwnedFd, At)>> {
        let open = || open_below(dir, name, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW);
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let opened = match self.ours.borrow().contains(above) {
            true => open(),
            false => self.visit.touch(open)?,
        };
        let entry = match opened {
            Ok(entry) => entry,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(link_or(e, path)),
        };
        let at = at(&entry, path)?;
        if at.link {
            return Err(link_or(Errno::LOOP, path));
        }
        Ok(Some((entry, at)))
    }

    /// Returns true if a mount is the kernel's own /proc or /sys, or of a living connection of ours.
    fn can_be_searched(&self, mount: u64) -> bool {
        let is_kernels = |mount: &Mount| matches!(mount.fstype.as_str(), "proc" | "sysfs");
        self.is_ours(mount) || self.mounts.get(&mount).is_some_and(is_kernels)
    }

    /// Returns true if a mount is of a living connection of ours.
    fn is_ours(&self, mount: u64) -> bool {
        let mounts = &self.mounts;
        let is_ours = |mount: &Mount| self.connections.contains(&mount.dev);
        self.fresh.borrow().contains(&mount) || mounts.get(&mount).is_some_and(is_ours)
    }

    /// Returns the mount in which an opened file lies; none when it is not one of the container's.
    fn mount_of(&self, fd: &OwnedFd, path: &str) -> Result<Option<&Mount>> {
        Ok(self.mounts.get(&at(fd, path)?.mount))
    }

    fn check_top(&self, dir: &OwnedFd, path: &str, fstype: &str) -> Result<()> {
        let pid = self.subject.pid;
        match self.mount_of(dir, path)? {
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

    /// Refuses a peer group that anybody outside of the container is in: a mount on a shared mount appears on all its
    /// peers.
    fn refuse_shared(&self, group: u64, path: &str) -> Result<()> {
        let began = Instant::now();
        let result = self.look_for_peers(group, path, began + self.left.get());
        self.left
            .set(self.left.get().saturating_sub(began.elapsed()));
        result
    }

    /// Does what [`Self::refuse_shared`] does, until `end`.
    fn look_for_peers(&self, group: u64, path: &str, end: Instant) -> Result<()> {
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
            let mut late = Instant::now() >= end;
            let found = self
                .proc
                .each_mount(&format!("{pid}/mountinfo"), u64::MAX, |mount| {
                    late |= Instant::now() >= end;
                    match late || mount.shared == Some(group) {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    }
                });
            if late {
                return Err(Error::refused(format!(
                    "{path} of process {} is mounted shared, and whether process {pid} would see a graft there cannot \
                     be told in time: it has too many mounts",
                    self.subject.pid
                ))
                .remedy("make it private in the container: `mount --make-rprivate /`"));
            }
            if let Ok(Some(())) = found {
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

/// Opens the directories that are the container's /proc and /sys, if they are there. All that the container decides about
/// them is the way there, so that is where it can keep us waiting.
fn open_tops(
    visit: &Visit,
    subject: &Subject,
    root: Option<&Path>,
) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    let path = format!("{}/root", subject.pid);
    visit.touch(|| {
        let proc = &visit.mounts().proc;
        let above = proc.open_at(&path, OFlags::PATH | OFlags::DIRECTORY)?;
        let top = match root {
            Some(path) => open_root(&above, path)?,
            None => above,
        };
        Ok((open_top(&top, "proc")?, open_top(&top, "sys")?))
    })?
}

/// Opens the container's /proc and /sys, and does nothing with them.
pub(super) fn knock(visit: &Visit, subject: &Subject) -> Result<()> {
    open_tops(visit, subject, None).map(drop)
}

/// Refuses the mount namespaces of the host: the daemon's own, and those of pid 1 and of the kernel's threads where
/// they can be seen. (On some hosts even root cannot look at pid 1.)
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
