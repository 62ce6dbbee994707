//! The files of the host that the server may read: those from which views are computed.

use std::os::fd::{AsFd, OwnedFd};

use eci_fs_emulators::Host;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// What is read of the host: files, and directories with all that lies in them. Cgroup directories lie below /sys/fs/cgroup
/// wherever systemd or an engine mounts them.
const READABLE: &[&str] = &[
    "/proc/buddyinfo",
    "/proc/cgroups",
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/interrupts",
    "/proc/meminfo",
    "/proc/modules",
    "/proc/pressure",
    "/proc/softirqs",
    "/proc/stat",
    "/proc/swaps",
    "/proc/vmstat",
    "/proc/zoneinfo",
    "/proc/sys",
    "/sys/class/block",
    "/sys/devices",
    "/sys/fs",
    "/sys/kernel/mm",
];

/// The files of the host that the server may read, held open: Landlock knows a file of procfs as long as it is in the kernel's
/// cache of names.
#[derive(Debug)]
pub struct HostFiles {
    paths: Vec<OwnedFd>,
    /// A procfs that has processes alone.
    processes: Option<OwnedFd>,
}

impl HostFiles {
    /// Opens the files that this host has. This takes CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// When a file is there and cannot be opened.
    pub fn open() -> std::io::Result<Self> {
        let processes = processes()
            .inspect_err(|error| {
                tracing::warn!(%error, "no procfs of processes alone can be mounted: the server can read all of /proc");
            })
            .ok();
        let all = processes.is_none().then_some("/proc");
        let mut paths = Vec::new();
        for path in READABLE.iter().copied().chain(all) {
            match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
                Ok(opened) => paths.push(opened),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { paths, processes })
    }

    /// Has `host` read the files of processes where they can be read.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn give(&self, host: Host) -> std::io::Result<Host> {
        Ok(match &self.processes {
            Some(processes) => host.with_processes(processes.try_clone()?),
            None => host,
        })
    }

    /// Returns everything that may be read.
    pub(super) fn readable(&self) -> impl Iterator<Item = &OwnedFd> {
        self.paths.iter().chain(&self.processes)
    }
}

/// Mounts a procfs that has processes alone (Linux 5.8), and shows all of them, however the host's /proc hides them. It has no
/// place: it ends with its descriptors.
fn processes() -> Result<OwnedFd, Errno> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "subset", "pid")?;
    fsconfig_set_string(context.as_fd(), "hidepid", "0")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
