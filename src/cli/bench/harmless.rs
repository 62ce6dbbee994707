//! Writing to tunables, and never to one of the machine.
//!
//! A reader has an IPC namespace of its own, in which the kernel keeps [`KERNELS`] itself, and its /proc is mounted
//! read-only but for that file: what is no graft cannot be written there, also when a graft is taken away meanwhile.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use eci_fs_protocol::error::{Error, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

/// A tunable that the kernel keeps for each IPC namespace, with the handler that most have: proc_dointvec_minmax.
pub(super) const KERNELS: &str = "/proc/sys/kernel/msgmax";

/// What is written, in turns, so that each write changes something: numbers that [`KERNELS`] takes, and each tunable
/// that is measured.
const NUMBERS: [&[u8]; 2] = [b"1\n", b"0\n"];

const IPC: &str = "/proc/self/ns/ipc";

/// PROC_IPC_INIT_INO: the number of the machine's IPC namespace (include/linux/proc_ns.h).
const MACHINES_IPC: u64 = 0xefff_ffff;

/// `FUSE_SUPER_MAGIC` and `PROC_SUPER_MAGIC`.
const FUSE: i64 = 0x6573_5546;
const PROC: i64 = 0x9fa0;

/// Proof that this process is in an IPC namespace that it made.
#[derive(Debug)]
pub(super) struct Contained {
    ipc: u64,
}

impl Contained {
    /// Make an IPC namespace, and mount a /proc in which nothing else can be written. Mounts must be private.
    pub(super) fn begin() -> Result<Self> {
        let before = ipc()?;
        unshare(CloneFlags::CLONE_NEWIPC).map_err(|e| Error::io("make", "an IPC namespace", e))?;
        let failed = |e| Error::io("mount", "/proc", e);
        mount("proc", "/proc", "proc", MountFlags::empty(), None).map_err(failed)?;
        mount_bind(KERNELS, KERNELS).map_err(failed)?;
        mount_remount("/proc", MountFlags::BIND | MountFlags::RDONLY, c"").map_err(failed)?;
        let ipc = ipc()?;
        if ipc == before || ipc == MACHINES_IPC {
            return Err(Error::refused(
                "the reader is in the machine's IPC namespace: nothing is written there",
            ));
        }
        Ok(Self { ipc })
    }

    /// Refuse what is neither a graft nor the tunable of the IPC namespace that this process made.
    pub(super) fn check(&self, path: &str) -> Result<()> {
        let file = open(path)?;
        let kind = rustix::fs::fstatfs(&file)
            .map_err(|e| Error::io("statfs", path, e))?
            .f_type;
        let may = match kind {
            FUSE => path != KERNELS,
            PROC => path == KERNELS && ipc()? == self.ipc,
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

/// Open for writing, which writes nothing.
fn open(path: &str) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("open", path, e))
}

/// Open, write, close, for the `nth` time. The path was checked.
pub(super) fn write(path: &str, nth: u64) -> Result<()> {
    rustix::io::write(open(path)?, NUMBERS[usize::from(nth % 2 == 1)])
        .map(drop)
        .map_err(|e| Error::io("write", path, e))
}
