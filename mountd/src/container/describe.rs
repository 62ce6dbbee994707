//! The way from a pidfd to [`Facts`] and descriptors.
//!
//! 1. The pid behind the pidfd is found and the container's init looked for.
//! 2. Everything about them is read and opened.
//! 3. The pidfd is asked again whether its process lives: if it does, no pid was reused in between, and
//!    what was read is about this process and none other.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::cgroup::{Membership, namespace_root, open_hierarchy, parse_memberships};
use super::disks;
use super::network;
use super::procfs::{Namespace, Proc, Process, parse_boottime_offset};
use eci_fs_protocol::capabilities::bounding_set_can_measure;
use eci_fs_protocol::control::CgroupChoice;
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::facts::{Facts, HierarchyFacts};

/// A container, by the process whose life is its, and by its namespaces.
#[derive(Debug)]
pub struct Subject {
    /// The process whose life is the container's: its init where that shares the mount namespace.
    pub pid: i32,
    /// The start of the process in clock ticks, to tell it from a later process of the same pid.
    pub start_ticks: u64,
    /// The pidfd of the process, which is readable when it has ended.
    pub pidfd: OwnedFd,
    /// The mount namespace of the process.
    pub mount_namespace: Namespace,
    /// The pid namespace of the process.
    pub pid_namespace: Namespace,
    /// The network namespace of the process; none where it is that of the host.
    pub network_namespace: Option<Namespace>,
}

impl Subject {
    /// Returns the same subject with a pidfd of its own.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn duplicate(&self) -> Result<Self> {
        let pidfd = self
            .pidfd
            .try_clone()
            .map_err(|e| Error::io("duplicate", "a pidfd", e))?;
        Ok(self.description().with(pidfd))
    }

    /// Returns all but the descriptor.
    pub(crate) fn description(&self) -> SubjectDescription {
        SubjectDescription {
            pid: self.pid,
            start_ticks: self.start_ticks,
            mount_namespace: self.mount_namespace,
            pid_namespace: self.pid_namespace,
            network_namespace: self.network_namespace,
        }
    }
}

/// A [`Subject`] without its descriptor, which another thread may have by another number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SubjectDescription {
    pid: i32,
    start_ticks: u64,
    mount_namespace: Namespace,
    pid_namespace: Namespace,
    network_namespace: Option<Namespace>,
}

impl SubjectDescription {
    /// Returns the subject with a pidfd of its process.
    pub(crate) fn with(self, pidfd: OwnedFd) -> Subject {
        Subject {
            pid: self.pid,
            start_ticks: self.start_ticks,
            pidfd,
            mount_namespace: self.mount_namespace,
            pid_namespace: self.pid_namespace,
            network_namespace: self.network_namespace,
        }
    }
}

/// A container, described.
#[derive(Debug)]
pub struct Described {
    /// The process and its namespaces.
    pub subject: Subject,
    /// The facts for the server.
    pub facts: Facts,
    /// A directory for each of `facts.hierarchies`.
    pub dirs: Vec<OwnedFd>,
    /// The cgroups that the directories are of. A container may move its processes to others later.
    pub cgroups: Vec<Membership>,
}

/// Describes the container of the process behind `pidfd`. `measures_cpus` is as [`Attach::measures_cpus`].
///
/// # Errors
/// [`Kind::NotFound`] when the process ends meanwhile; [`Kind::System`] when the kernel's files cannot be read.
///
/// [`Attach::measures_cpus`]: eci_fs_protocol::control::Attach::measures_cpus
pub fn describe(
    proc: &Proc,
    pidfd: BorrowedFd<'_>,
    id: Option<String>,
    choice: CgroupChoice,
    measures_cpus: Option<bool>,
) -> Result<Described> {
    describe_again(proc, pidfd, id, choice, measures_cpus, &[])
}

/// As [`describe`], for a container that was described before, and had the cgroups `known` then. With
/// [`CgroupChoice::Own`] these stay its cgroups: its init may have moved itself to one below, as systemd does.
///
/// # Errors
/// As [`describe`].
pub fn describe_again(
    proc: &Proc,
    pidfd: BorrowedFd<'_>,
    id: Option<String>,
    choice: CgroupChoice,
    measures_cpus: Option<bool>,
    known: &[Membership],
) -> Result<Described> {
    let pid = proc.pid_of(pidfd)?;
    let named = proc.process(pid)?;
    let init = find_init(proc, &named)?;
    let mut subject = subject(proc, &named, &init, pidfd)?;
    let network = network::inspect(proc, subject.pid, subject.pidfd.as_fd())?;
    subject.network_namespace = network.as_ref().map(|(namespace, _)| *namespace);
    let mut cgroups = known.to_vec();
    if cgroups.is_empty() || choice != CgroupChoice::Own {
        cgroups = memberships(proc, pid, pidfd, choice)?;
    }
    let hierarchies = match hierarchies(proc, &cgroups) {
        Err(error) if !known.is_empty() => {
            tracing::warn!(%error, pid, "the cgroup that the container had is gone, taking the one that it has");
            cgroups = memberships(proc, pid, pidfd, choice)?;
            hierarchies(proc, &cgroups)?
        }
        other => other?,
    };
    let (facts, dirs): (Vec<HierarchyFacts>, Vec<OwnedFd>) = hierarchies.into_iter().unzip();
    let pid_level = u32::try_from(init.nspid.len().saturating_sub(1)).unwrap_or(0);
    let facts = Facts {
        id: id.unwrap_or_else(|| format!("pid-{}", subject.pid)),
        start_nsec: ticks_to_nsec(match choice {
            CgroupChoice::NamespaceRoot => init.start_ticks,
            CgroupChoice::Own => named.start_ticks,
        }),
        boottime_offset_nsec: boottime_offset(proc, pid)?,
        pid_level,
        pid_max_is_own: pid_level > 0 && super::pid_max::is_per_namespace(),
        network: network.map(|(_, facts)| facts),
        disks: disks(proc, subject.pid, None)?,
        uid: proc.mapped_root(pid, "uid_map")?,
        gid: proc.mapped_root(pid, "gid_map")?,
        hierarchies: facts,
        can_measure_cpus: measures_cpus != Some(false) && can_measure_cpus(proc, subject.pid)?,
    };
    if has_ended(pidfd)? || has_ended(subject.pidfd.as_fd())? {
        return Err(Error::not_found(format!(
            "process {pid} ended while its container was looked at"
        )));
    }
    Ok(Described {
        subject,
        facts,
        dirs,
        cgroups,
    })
}

/// Returns true if a process may have programs that measure what runs on any CPU.
fn can_measure_cpus(proc: &Proc, pid: i32) -> Result<bool> {
    if !proc.namespace(pid, "user")?.is_initial_user() {
        return Ok(false);
    }
    let status = proc.read(&format!("{pid}/status"))?;
    Ok(bounding_set_can_measure(&status).unwrap_or(false))
}

/// Returns true if the process of a pidfd has ended.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>) -> Result<bool> {
    let mut poll = [PollFd::new(&pidfd, PollFlags::IN)];
    let ready = rustix::event::poll(
        &mut poll,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .map_err(|e| Error::io("poll", "a pidfd", e))?;
    Ok(ready > 0)
}

/// Returns true if the process `pid` that began at `start_ticks`, in clock ticks, still lives.
pub fn lives(proc: &Proc, pid: i32, start_ticks: u64) -> bool {
    let Ok(pidfd) = open_pidfd(pid) else {
        return false;
    };
    // The pidfd comes first: if its process still lives afterwards, the pid meant that process all the while.
    let is_it = proc
        .process(pid)
        .is_ok_and(|process| process.start_ticks == start_ticks);
    is_it && !has_ended(pidfd.as_fd()).unwrap_or(true)
}

/// Returns pid 1 of the pid namespace of `named`; `named` itself in the host's, or where pid 1 cannot be seen.
fn find_init(proc: &Proc, named: &Process) -> Result<Process> {
    if named.nspid.len() < 2 || named.is_init() {
        return Ok(named.clone());
    }
    let namespace = proc.namespace(named.pid, "pid")?;
    let is_it = |process: &Process| {
        process.nspid.len() == named.nspid.len()
            && process.is_init()
            && proc
                .namespace(process.pid, "pid")
                .is_ok_and(|other| other == namespace)
    };
    // Mostly pid 1 is an ancestor. A process that entered by setns has other ancestors: then all are looked at.
    let mut at = named.clone();
    while at.ppid > 0 {
        let Ok(parent) = proc.process(at.ppid) else {
            break;
        };
        if is_it(&parent) {
            return Ok(parent);
        }
        at = parent;
    }
    let found = proc
        .pids()?
        .into_iter()
        .filter_map(|pid| proc.process(pid).ok())
        .find(is_it);
    Ok(found.unwrap_or_else(|| named.clone()))
}

fn subject(proc: &Proc, named: &Process, init: &Process, pidfd: BorrowedFd<'_>) -> Result<Subject> {
    let mount_namespace = proc.namespace(named.pid, "mnt")?;
    // With a pid namespace that a pod shares, init is another container's: then the life of the container is that of
    // the named process.
    let life = if proc
        .namespace(init.pid, "mnt")
        .is_ok_and(|ns| ns == mount_namespace)
    {
        init
    } else {
        named
    };
    let own = if life.pid == named.pid {
        pidfd
            .try_clone_to_owned()
            .map_err(|e| Error::io("duplicate", "a pidfd", e))?
    } else {
        open_pidfd(life.pid)?
    };
    // The pidfd was opened by number: it is the right one if the process behind it started when ours did.
    if proc.process(life.pid)?.start_ticks != life.start_ticks {
        return Err(Error::not_found(format!("process {} has ended", life.pid)));
    }
    Ok(Subject {
        pid: life.pid,
        start_ticks: life.start_ticks,
        pidfd: own,
        mount_namespace,
        pid_namespace: proc.namespace(named.pid, "pid")?,
        network_namespace: None,
    })
}

/// Opens a pidfd of the process `pid`.
///
/// # Errors
/// [`Kind::NotFound`] when there is none.
pub fn open_pidfd(pid: i32) -> Result<OwnedFd> {
    Pid::from_raw(pid)
        .filter(|_| pid > 0)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
        .map_err(|e| match e {
            rustix::io::Errno::SRCH | rustix::io::Errno::INVAL => {
                Error::not_found(format!("there is no process {pid}")).remedy("see `ps -e`")
            }
            e => Error::io("open a pidfd of", format!("process {pid}"), e),
        })
}

/// Returns the cgroups that stand for the container, one in each hierarchy.
fn memberships(
    proc: &Proc,
    pid: i32,
    pidfd: BorrowedFd<'_>,
    choice: CgroupChoice,
) -> Result<Vec<Membership>> {
    let mut memberships = parse_memberships(&proc.read(&format!("{pid}/cgroup"))?);
    let inside = match choice {
        CgroupChoice::Own => None,
        CgroupChoice::NamespaceRoot => memberships_inside(proc, pid, pidfd)?,
    };
    for membership in &mut memberships {
        if membership.path.contains("/..") {
            return Err(Error::refused(format!(
                "the cgroup {} of process {pid} lies outside of the cgroup namespace of eci-mountd",
                membership.path
            ))
            .remedy("run eci-mountd in the cgroup namespace of the host"));
        }
        let view = inside
            .as_ref()
            .and_then(|all| all.iter().find(|m| m.controllers == membership.controllers));
        let root = view.and_then(|view| namespace_root(&membership.path, &view.path));
        if let Some(root) = root.map(str::to_owned) {
            membership.path = root;
        }
    }
    Ok(memberships)
}

fn hierarchies(proc: &Proc, cgroups: &[Membership]) -> Result<Vec<(HierarchyFacts, OwnedFd)>> {
    // The host has several mounts for each container.
    let mut mounts = Vec::new();
    proc.each_mount("self/mountinfo", u64::MAX, |mount| {
        if matches!(mount.fstype.as_str(), "cgroup" | "cgroup2") {
            mounts.push(mount);
        }
        ControlFlow::<()>::Continue(())
    })?;
    let mut out = Vec::new();
    for membership in cgroups {
        out.extend(open_hierarchy(&mounts, membership)?);
    }
    if out.is_empty() {
        return Err(Error::new(
            Kind::System,
            "no cgroup hierarchy is mounted where eci-mountd can see it",
        )
        .remedy("mount cgroup2 on /sys/fs/cgroup"));
    }
    Ok(out)
}

/// Returns the memberships of the process as its own cgroup namespace sees them; none when it shares ours.
///
/// A thread that then ends enters the namespace, so the daemon itself never leaves its own.
fn memberships_inside(
    proc: &Proc,
    pid: i32,
    pidfd: BorrowedFd<'_>,
) -> Result<Option<Vec<Membership>>> {
    if proc.namespace(pid, "cgroup")? == proc.namespace("self", "cgroup")? {
        return Ok(None);
    }
    let text = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                move_into_thread_name_spaces(pidfd, ThreadNameSpaceType::CONTROL_GROUP)
                    .map_err(|e| Error::io("enter", format!("/proc/{pid}/ns/cgroup"), e))?;
                proc.read(&format!("{pid}/cgroup"))
            })
            .join()
            .unwrap_or_else(|_| {
                Err(Error::new(
                    Kind::System,
                    "the look into the cgroup namespace failed",
                ))
            })
    })?;
    Ok(Some(parse_memberships(&text)))
}

/// Returns the offset of a time namespace of its own, or none. A kernel without time namespaces has none.
fn boottime_offset(proc: &Proc, pid: i32) -> Result<Option<i64>> {
    let same = match (proc.namespace(pid, "time"), proc.namespace("self", "time")) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => true,
    };
    if same {
        return Ok(None);
    }
    let file = format!("{pid}/timens_offsets");
    parse_boottime_offset(&proc.read(&file)?)
        .map(Some)
        .ok_or_else(|| {
            Error::new(
                Kind::System,
                format!("/proc/{file} is not in the kernel's format"),
            )
        })
}

/// Converts clock ticks of /proc to nanoseconds (USER_HZ, `sysconf(_SC_CLK_TCK)`).
fn ticks_to_nsec(ticks: u64) -> u64 {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    ticks.saturating_mul(1_000_000_000 / per_second)
}
