//! The cgroups of a container that `run` makes: one in each hierarchy that a view or a limit needs.
//!
//! They lie at /eci-fs/run-PID, directly below the root of each hierarchy, so that no limit of the caller's own cgroup
//! applies. They are removed when the container has ended.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use eci_fs_mountd::container::mountinfo::parse_mountinfo;
use eci_fs_mountd::container::open_pidfd;
use eci_fs_protocol::error::{Error, Kind, Result};

use rustix::event::{PollFd, PollFlags};

use super::limits::{Limits, PERIOD_USEC};

/// The number of attempts to make the shared parent cgroup, which another run may remove meanwhile.
const ATTEMPTS: usize = 100;

/// The name of the parent cgroup in each hierarchy.
const PARENT: &str = "eci-fs";

/// The controllers that a view reads or a limit sets.
const WANTED: [&str; 8] = [
    "cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "io", "hugetlb",
];

/// The cgroups of one container.
#[derive(Debug)]
pub(in super::super) struct Cgroups {
    /// The version, the controllers and the directory of each cgroup.
    dirs: Vec<(u8, Vec<String>, PathBuf)>,
}

impl Cgroups {
    /// Makes the cgroups and sets the limits.
    ///
    /// # Errors
    /// When a limit has no controller here, or the kernel refuses it. Then no cgroup is left.
    pub(in super::super) fn create(limits: &Limits) -> Result<Self> {
        let mut this = Self { dirs: Vec::new() };
        let result = this.make().and_then(|()| this.limit(limits));
        match result {
            Ok(()) => Ok(this),
            Err(error) => {
                // The first error is returned; an error of the removal is ignored.
                let _ = this.remove();
                Err(error)
            }
        }
    }

    fn make(&mut self) -> Result<()> {
        let text = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|e| Error::io("read", "/proc/self/mountinfo", e))?;
        let name = format!("run-{}", std::process::id());
        let mut seen: Vec<String> = Vec::new();
        for mount in parse_mountinfo(&text) {
            let top = Path::new(&mount.point);
            let (version, controllers) = match mount.fstype.as_str() {
                "cgroup" => (1, wanted(mount.super_options.split(','))),
                "cgroup2" => (
                    2,
                    wanted(read(&top.join("cgroup.controllers"))?.split_ascii_whitespace()),
                ),
                _ => continue,
            };
            // A hierarchy may be mounted twice. On a hybrid host v2 may have no controller, and then nothing can be
            // read or set in it.
            if controllers.is_empty() || controllers.iter().any(|c| seen.contains(c)) {
                continue;
            }
            seen.extend(controllers.iter().cloned());
            let parent = top.join(PARENT);
            let dir = parent.join(&name);
            create_both(&parent, &dir)?;
            sweep(&parent);
            if version == 2 {
                enable(top, &controllers)?;
                enable(&parent, &controllers)?;
            } else if controllers.iter().any(|c| c == "cpuset") {
                copy_cpuset(top, &parent)?;
            }
            if version == 1 && controllers.iter().any(|c| c == "cpuset") {
                copy_cpuset(&parent, &dir)?;
            }
            self.dirs.push((version, controllers, dir));
        }
        Ok(())
    }

    fn limit(&self, limits: &Limits) -> Result<()> {
        if let Some(bytes) = limits.memory {
            match self.of("memory", "--memory")? {
                (1, dir) => {
                    set(dir, "memory.limit_in_bytes", &bytes.to_string())?;
                    if let Some(swap) = limits.swap {
                        let sum = bytes.saturating_add(swap).to_string();
                        set(dir, "memory.memsw.limit_in_bytes", &sum).map_err(
                            |error| match error.kind {
                                Kind::NotFound => {
                                    Error::refused("--swap: this kernel does not account for swap")
                                        .remedy(
                                            "boot it with swapaccount=1, or leave the option out",
                                        )
                                }
                                _ => error,
                            },
                        )?;
                    }
                }
                (_, dir) => {
                    set(dir, "memory.max", &bytes.to_string())?;
                    if let Some(swap) = limits.swap {
                        set(dir, "memory.swap.max", &swap.to_string())?;
                    }
                }
            }
        }
        if let Some(quota) = limits.quota_usec() {
            match self.of("cpu", "--cpus")? {
                (1, dir) => {
                    set(dir, "cpu.cfs_period_us", &PERIOD_USEC.to_string())?;
                    set(dir, "cpu.cfs_quota_us", &quota.to_string())?;
                }
                (_, dir) => set(dir, "cpu.max", &format!("{quota} {PERIOD_USEC}"))?,
            }
        }
        if let Some(cpus) = &limits.cpuset {
            let (_, dir) = self.of("cpuset", "--cpuset")?;
            set(dir, "cpuset.cpus", cpus).map_err(|error| {
                let online =
                    fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
                error.remedy(format!("this machine has CPUs {}", online.trim()))
            })?;
        }
        if let Some(pids) = limits.pids {
            let (_, dir) = self.of("pids", "--pids")?;
            set(dir, "pids.max", &pids.to_string())?;
        }
        Ok(())
    }

    fn of(&self, controller: &str, option: &str) -> Result<(u8, &Path)> {
        self.dirs
            .iter()
            .find(|(_, controllers, _)| controllers.iter().any(|c| c == controller))
            .map(|(version, _, dir)| (*version, dir.as_path()))
            .ok_or_else(|| {
                Error::refused(format!(
                    "{option}: this machine has no {controller} controller"
                ))
                .remedy("mount it below /sys/fs/cgroup, or leave the option out")
            })
    }

    /// Puts a process into all cgroups.
    pub(in super::super) fn join(&self, pid: i32) -> Result<()> {
        self.dirs
            .iter()
            .try_for_each(|(_, _, dir)| set(dir, "cgroup.procs", &pid.to_string()))
    }

    /// Removes the cgroups, and their parents if these are empty now.
    ///
    /// # Errors
    /// When one is still in use. The others are removed all the same.
    pub(in super::super) fn remove(&self) -> Result<()> {
        let mut result = Ok(());
        for (_, _, dir) in &self.dirs {
            if let Err(error) = remove(dir)
                && result.is_ok()
            {
                result = Err(error);
            }
            if let Some(parent) = dir.parent() {
                // Another run may still use the parent.
                let _ = fs::remove_dir(parent);
            }
        }
        result
    }
}

/// Removes a cgroup and the cgroups that the container made below it.
fn remove(dir: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    let mut result = fs::remove_dir(dir);
    if result
        .as_ref()
        .is_err_and(|e| e.kind() == ErrorKind::ResourceBusy)
    {
        end_processes(dir);
        result = fs::remove_dir(dir);
    }
    match result {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove the cgroup", dir, e)
            .remedy("end what runs in it and remove it by hand")),
        _ => Ok(()),
    }
}

/// Kills the processes that are left in a cgroup, and waits for their end. A container whose start failed may still be
/// ending.
fn end_processes(dir: &Path) {
    let limit = rustix::event::Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    for pid in fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
    {
        let Some(pidfd) = pid.parse().ok().and_then(|pid| open_pidfd(pid).ok()) else {
            continue;
        };
        // Both calls fail only for a process that has ended.
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        let _ = rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
    }
}

/// Removes the cgroups of runs that were killed. A run removes its own cgroups, except after SIGKILL.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix("run-")?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // A cgroup with processes stays.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn wanted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names
        .filter(|name| WANTED.contains(name))
        .map(str::to_owned)
        .collect()
}

/// Creates a cgroup in the parent that all runs share. Another run that ends removes the parent when it is empty. Once
/// this cgroup exists, the parent stays.
fn create_both(parent: &Path, dir: &Path) -> Result<()> {
    let mut last = Ok(());
    for _ in 0..ATTEMPTS {
        create(parent)?;
        last = create(dir);
        let gone = matches!(&last, Err(error) if error.kind == Kind::NotFound);
        if !gone {
            break;
        }
    }
    last
}

fn create(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            Err(Error::io("create the cgroup", dir, e).remedy("/sys/fs/cgroup must be writable"))
        }
        Err(_) => Ok(()),
        // The server is another user, who has to read there whatever the mask of this process is.
        Ok(()) => match fs::set_permissions(dir, Permissions::from_mode(0o755)) {
            // Another run has removed it again.
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Error::io("set the mode of the cgroup", dir, e))
            }
            _ => Ok(()),
        },
    }
}

/// Enables the controllers for the children of a v2 cgroup. A controller that cannot be enabled is reported when a
/// limit needs it.
fn enable(dir: &Path, controllers: &[String]) -> Result<()> {
    for controller in controllers {
        if let Err(error) = set(dir, "cgroup.subtree_control", &format!("+{controller}")) {
            tracing::warn!(%error, controller, "a controller cannot be enabled, ignoring");
        }
    }
    Ok(())
}

/// Fills an empty v1 cpuset from another one. A new v1 cpuset is empty, and takes no process before it has CPUs and
/// memory nodes.
fn copy_cpuset(from: &Path, to: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(&to.join(file))?.trim().is_empty() {
            set(to, file, read(&from.join(file))?.trim())?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::io("read", path, e))
}

fn set(dir: &Path, file: &str, value: &str) -> Result<()> {
    let path = dir.join(file);
    fs::write(&path, value).map_err(|e| Error::io(&format!("write {value} to"), path, e))
}
