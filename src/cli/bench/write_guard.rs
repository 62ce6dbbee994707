//! Writes to tunables that can never reach a tunable of the host.
//!
//! A reader has its own IPC namespace, for which the kernel keeps [`KERNEL_TUNABLE`]. Its /proc is mounted read-only
//! except for that file. So a file that is not grafted cannot be written, even when a graft is removed meanwhile.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use eci_fs_protocol::error::{Error, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

/// A tunable that the kernel keeps for each IPC namespace. Its handler is the most common one: proc_dointvec_minmax.
pub(super) const KERNEL_TUNABLE: &str = "/proc/sys/kernel/msgmax";

/// The values that are written in turns, so that each write changes something. [`KERNEL_TUNABLE`] and each measured
/// tunable accept them.
const VALUES: [&[u8]; 2] = [b"1\n", b"0\n"];

const IPC: &str = "/proc/self/ns/ipc";

/// The inode number of the host's IPC namespace: PROC_IPC_INIT_INO (include/linux/proc_ns.h).
const HOST_IPC: u64 = 0xefff_ffff;

/// `FUSE_SUPER_MAGIC` and `PROC_SUPER_MAGIC`.
const FUSE: i64 = 0x6573_5546;
const PROC: i64 = 0x9fa0;

/// Permission to write: this process has made its own IPC namespace.
#[derive(Debug)]
pub(super) struct WriteGuard {
    ipc: u64,
}

impl WriteGuard {
    /// Makes an IPC namespace, and mounts a /proc in which nothing else can be written. Mounts must be private.
    pub(super) fn begin() -> Result<Self> {
        let before = ipc()?;
        unshare(CloneFlags::CLONE_NEWIPC).map_err(|e| Error::io("make", "an IPC namespace", e))?;
        let failed = |e| Error::io("mount", "/proc", e);
        mount("proc", "/proc", "proc", MountFlags::empty(), None).map_err(failed)?;
        mount_bind(KERNEL_TUNABLE, KERNEL_TUNABLE).map_err(failed)?;
        mount_remount("/proc", MountFlags::BIND | MountFlags::RDONLY, c"").map_err(failed)?;
        let ipc = ipc()?;
        if ipc == before || ipc == HOST_IPC {
            return Err(Error::refused(
                "the reader is in the machine's IPC namespace: nothing is written there",
            ));
        }
        Ok(Self { ipc })
    }

    /// Refuses any file except grafts and the tunable of this process's own IPC namespace.
    pub(super) fn check(&self, path: &str) -> Result<()> {
        let file = open(path)?;
        let kind = rustix::fs::fstatfs(&file)
            .map_err(|e| Error::io("statfs", path, e))?
            .f_type;
        let may = match kind {
            FUSE => path != KERNEL_TUNABLE,
            PROC => path == KERNEL_TUNABLE && ipc()? == self.ipc,
            _ => false,
        };
        may.then_some(()).ok_or_else(|| {
            Error::refused(format!(
                "{path} is not a container's own: it is not written to"
            ))
        })
    }
}

fn ipc() -> Result<u64> {
    let metadata = std::fs::metadata(IPC).map_err(|e| Error::io("look at", IPC, e))?;
    Ok(metadata.ino())
}

/// Opens a file for writing. This writes nothing.
fn open(path: &str) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("open", path, e))
}

/// Opens, writes and closes a file, for the `nth` time. The path must have been checked.
pub(super) fn write(path: &str, nth: u64) -> Result<()> {
    rustix::io::write(open(path)?, VALUES[usize::from(nth % 2 == 1)])
        .map(drop)
        .map_err(|e| Error::io("write", path, e))
}
