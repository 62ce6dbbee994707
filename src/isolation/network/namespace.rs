//! Network namespaces: one that belongs to a user namespace is made, and others are entered by threads.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use eci_fs_protocol::error::{Error, Result};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, fork, pipe2};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Returns a new network namespace that belongs to `user_namespace`. Its owner is fixed when it is made, so a child makes
/// it in there.
///
/// # Errors
/// The kernel's.
pub(super) fn make(user_namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    let trouble = |e: Errno| {
        Error::io("make", "a network namespace", e).remedy("see user.max_net_namespaces")
    };
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|e| Errno::from_raw_os_error(e as i32));
    let (ready, say_ready) = pipe().map_err(trouble)?;
    let (over, end) = pipe().map_err(trouble)?;
    let ours = [&ready, &end];
    let pid = start_child(user_namespace, &say_ready, &over, ours).map_err(trouble)?;
    drop(say_ready);
    let mut word = [0; 4];
    let heard = rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut word));
    let errno = match heard {
        Ok(4) => i32::from_ne_bytes(word),
        Ok(_) => Errno::CHILD.raw_os_error(),
        Err(errno) => errno.raw_os_error(),
    };
    let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
    let made = match errno {
        0 => openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()),
        errno => Err(Errno::from_raw_os_error(errno)),
    };
    // Both fail only when it has ended.
    let _ = kill_process(pid, Signal::KILL);
    let _ = waitpid(Some(pid), WaitOptions::empty());
    made.map_err(trouble)
}

/// Starts the child, which writes an errno to `say_ready` and then waits for its end. `ours` are the other ends of its
/// pipes.
#[allow(
    unsafe_code,
    reason = "only a process with one thread may enter a user namespace, and it cannot come back"
)]
fn start_child(
    user_namespace: BorrowedFd<'_>,
    say_ready: &OwnedFd,
    over: &OwnedFd,
    ours: [&OwnedFd; 2],
) -> std::result::Result<Pid, Errno> {
    // SAFETY: the child makes system calls only. It allocates nothing, takes no lock, and ends by `_exit`.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            use std::os::fd::AsRawFd;
            for fd in ours {
                // SAFETY: the child uses it no more, and ends without closing it again.
                unsafe { libc::close(fd.as_raw_fd()) };
            }
            let user = LinkNameSpaceType::User;
            let made = move_into_link_name_space(user_namespace, Some(user)).and_then(|()| {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET)
                    .map_err(|e| Errno::from_raw_os_error(e as i32))
            });
            let errno = made.map_or_else(Errno::raw_os_error, |()| 0);
            let _ = rustix::io::write(say_ready, &errno.to_ne_bytes());
            // Until the parent kills it, or has died.
            let _ = rustix::io::read(over, &mut [0; 1]);
            // SAFETY: it has no requirements.
            unsafe { libc::_exit(0) }
        }
        Ok(ForkResult::Parent { child }) => Pid::from_raw(child.as_raw()).ok_or(Errno::SRCH),
        Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
    }
}

/// Calls `work` on a thread in a network namespace.
///
/// # Errors
/// When it cannot be entered, and those of `work`.
pub(super) fn inside<T: Send>(
    network: impl AsFd,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let network = network.as_fd();
    let entered = move || {
        move_into_link_name_space(network, Some(LinkNameSpaceType::Network))
            .map_err(|e| Error::io("enter", "a network namespace", e))?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, entered);
        let thread = thread.map_err(|e| Error::io("start", "a thread", e))?;
        let ended = thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
