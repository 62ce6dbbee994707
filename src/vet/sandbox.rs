//! What the supervisor gives up before it takes the first call.
//!
//! It keeps the two capabilities that writing to the memory of a thread takes. Whoever takes it over can do with them what root
//! can: Landlock would forbid that memory, too. So it reads nothing that a container writes but numbers in a struct of the
//! kernel, and its filter leaves it no call to start a program, make a socket or mount.

use std::io;

use caps::{Capability, CapsHashSet};
use eci_fs_protocol::link::SERVER_USERS;
use eci_fs_protocol::vet::USER;
use rustix::process::DumpableBehavior;

use crate::confinement::filter::{Filter, clear, equals};
use crate::confinement::{capabilities, user};

/// The capabilities that stay: to open the memory of a process of another user, and to be let into it.
const KEPT: [Capability; 2] = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_SYS_PTRACE];

/// System calls that are allowed with any arguments, by what they are needed for.
const ALLOWED: &[libc::c_long] = &[
    // Calls, views, memory of threads, the daemon, the log.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_timerfd_settime,
];

/// Gives up all that answering does not take. The process must have one thread only.
///
/// # Errors
/// When the kernel refuses; then the supervisor must not start.
pub(super) fn confine() -> io::Result<()> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    capabilities::bound(&kept).map_err(trouble)?;
    rustix::thread::set_keep_capabilities(true)?;
    user::become_user([USER, SERVER_USERS[1]]).map_err(|error| {
        io::Error::other(format!(
            "the supervisor cannot become the user {USER}: {error}"
        ))
    })?;
    rustix::thread::set_keep_capabilities(false)?;
    capabilities::keep(&kept).map_err(trouble)?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    install()
}

fn trouble(error: caps::errors::CapsError) -> io::Error {
    io::Error::other(format!(
        "the supervisor of system calls needs CAP_DAC_OVERRIDE and CAP_SYS_PTRACE, and no other capability: {error}"
    ))
}

/// Forbids everything else, for this thread and those it starts.
fn install() -> io::Result<()> {
    let mut filter = Filter::new(ALLOWED)?;
    // No file is created or cut.
    let changes = libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);
    filter.allow(libc::SYS_openat, [clear(2, changes)])?;
    for request in [
        libc::SECCOMP_IOCTL_NOTIF_RECV,
        libc::SECCOMP_IOCTL_NOTIF_SEND,
        libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
        libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
    ] {
        // The kernel takes the lower half of the number.
        filter.allow(libc::SYS_ioctl, [equals(1, request as libc::c_int)])?;
    }
    // A build with debug assertions asks whether a descriptor is open before it closes that.
    for command in [libc::F_DUPFD_CLOEXEC, libc::F_GETFD] {
        filter.allow(libc::SYS_fcntl, [equals(1, command)])?;
    }
    filter.install()
}
