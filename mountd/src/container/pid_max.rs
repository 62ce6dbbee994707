//! The question whether the kernel keeps /proc/sys/kernel/pid_max for each pid namespace, as it does from Linux 6.14
//! on.
//!
//! The answer is found without writing anything. Where the kernel keeps one for each, a process in another pid
//! namespace finds another inode at the same path of the same mount. Only a child of the process that made the
//! namespace is in it, so there is a fork(2).
#![allow(
    unsafe_code,
    reason = "fork(2), whose child makes two system calls and ends"
)]

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, fork};
use rustix::process::{Pid, WaitOptions, waitpid};

const PATH: &std::ffi::CStr = c"/proc/sys/kernel/pid_max";

/// Exit codes of the child.
const SAME: i32 = 0;
const OTHER: i32 = 1;
const FAILED: i32 = 2;

/// Returns true if each pid namespace has its own pid_max. The kernel is asked once. Where that fails, the answer is
/// false, as on most kernels.
pub(super) fn is_per_namespace() -> bool {
    static KEPT: OnceLock<bool> = OnceLock::new();
    *KEPT.get_or_init(|| {
        probe().unwrap_or_else(|error| {
            tracing::warn!(%error, "whether the kernel keeps pid_max for each pid namespace is not known");
            false
        })
    })
}

fn probe() -> io::Result<bool> {
    // Held open, so that the inode is not made anew meanwhile.
    let file = File::open(PATH.to_string_lossy().as_ref())?;
    let inode = file.metadata()?.ino();
    // On a thread of its own: all that it starts later is in the new namespace.
    std::thread::scope(|scope| scope.spawn(move || look(inode)).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

fn look(inode: u64) -> io::Result<bool> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    // SAFETY: the child calls stat(2) and _exit(2) only, which take no lock that another thread may hold.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => Pid::from_raw(child.as_raw()),
        ForkResult::Child => {
            let code = in_child(inode);
            // SAFETY: it ends this process, and runs nothing of it.
            unsafe { libc::_exit(code) }
        }
    };
    let status = waitpid(child, WaitOptions::empty())?.map(|(_, status)| status);
    match status.and_then(|status| status.exit_status()) {
        Some(SAME) => Ok(false),
        Some(OTHER) => Ok(true),
        _ => Err(io::Error::other(format!("the child ended with {status:?}"))),
    }
}

fn in_child(inode: u64) -> i32 {
    // SAFETY: all bytes zero are a stat, and the path ends with a zero.
    let (result, stat) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::stat(PATH.as_ptr(), &raw mut stat), stat)
    };
    match (result, stat.st_ino == inode) {
        (0, true) => SAME,
        (0, false) => OTHER,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_what_is_found_agrees_with_the_version_of_the_kernel() {
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy().into_owned();
        let numbers: Vec<u32> = release
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        assert_eq!(probe().unwrap(), (numbers[0], numbers[1]) >= (6, 14));
        assert_eq!(is_per_namespace(), probe().unwrap());
    }
}
