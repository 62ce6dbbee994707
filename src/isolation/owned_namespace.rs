//! Namespaces that belong to a user namespace. The owner of a namespace is fixed when it is made, so a child makes it in
//! there.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use eci_fs_protocol::error::{Error, Result};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, fork, pipe2};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A network namespace.
    Network,
    /// An ipc namespace.
    Ipc,
    /// A uts namespace, which has the host name.
    Uts,
    /// A time namespace.
    Time,
}

impl Kind {
    fn flag(self) -> CloneFlags {
        match self {
            Self::Network => CloneFlags::CLONE_NEWNET,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            // Which nix has no name for.
            Self::Time => CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
        }
    }

    /// Returns what it is called in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Network => "a network namespace",
            Self::Ipc => "an ipc namespace",
            Self::Uts => "a uts namespace",
            Self::Time => "a time namespace",
        }
    }

    /// Returns its file in the directory of the process that has made it.
    fn file(self) -> &'static str {
        match self {
            Self::Network => "ns/net",
            Self::Ipc => "ns/ipc",
            Self::Uts => "ns/uts",
            Self::Time => "ns/time_for_children",
        }
    }

    fn trouble(self, error: Errno) -> Error {
        let limit = match self {
            Self::Network => "user.max_net_namespaces",
            Self::Ipc => "user.max_ipc_namespaces",
            Self::Uts => "user.max_uts_namespaces",
            Self::Time => "user.max_time_namespaces",
        };
        Error::io("make", self.name(), error).remedy(format!("see {limit}"))
    }
}

/// Returns a new namespace that belongs to `user_namespace`. Before anybody else can enter it, `prepare` is called with the
/// pid of the process that has made it.
///
/// # Errors
/// The kernel's, and those of `prepare`.
pub(super) fn make(
    user_namespace: BorrowedFd<'_>,
    kind: Kind,
    prepare: impl FnOnce(i32) -> Result<()>,
) -> Result<OwnedFd> {
    let trouble = |e| kind.trouble(e);
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|e| Errno::from_raw_os_error(e as i32));
    let (ready, say_ready) = pipe().map_err(trouble)?;
    let (over, end) = pipe().map_err(trouble)?;
    let ours = [&ready, &end];
    let pid = start_child(user_namespace, kind, &say_ready, &over, ours).map_err(trouble)?;
    drop(say_ready);
    let mut word = [0; 4];
    let heard = rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut word));
    let errno = match heard {
        Ok(4) => i32::from_ne_bytes(word),
        Ok(_) => Errno::CHILD.raw_os_error(),
        Err(errno) => errno.raw_os_error(),
    };
    let path = format!("/proc/{}/{}", pid.as_raw_nonzero(), kind.file());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let made = match errno {
        0 => prepare(pid.as_raw_nonzero().get())
            .and_then(|()| openat(CWD, &path, flags, Mode::empty()).map_err(trouble)),
        errno => Err(trouble(Errno::from_raw_os_error(errno))),
    };
    // Both fail only when it has ended.
    let _ = kill_process(pid, Signal::KILL);
    let _ = waitpid(Some(pid), WaitOptions::empty());
    made
}

/// Returns the user namespace to which a namespace belongs.
///
/// # Errors
/// The kernel's: EPERM if it is not this process's own or one inside of that.
#[allow(
    unsafe_code,
    reason = "an ioctl, whose number and result the kernel's header fixes"
)]
pub(super) fn owner(namespace: impl AsFd) -> std::result::Result<OwnedFd, Errno> {
    // NS_GET_USERNS of include/uapi/linux/nsfs.h.
    let number = rustix::ioctl::opcode::none(0xb7, 1);
    let namespace = namespace.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open and borrowed for the call, which has no argument.
    let owner = unsafe { libc::ioctl(namespace, number as _) };
    if owner < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    // SAFETY: the kernel has made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(owner) })
}

/// Starts the child, which writes an errno to `say_ready` and then waits for its end. `ours` are the other ends of its
/// pipes.
#[allow(
    unsafe_code,
    reason = "only a process with one thread may enter a user namespace, and it cannot come back"
)]
fn start_child(
    user_namespace: BorrowedFd<'_>,
    kind: Kind,
    say_ready: &OwnedFd,
    over: &OwnedFd,
    ours: [&OwnedFd; 2],
) -> std::result::Result<Pid, Errno> {
    // SAFETY: the child makes system calls only. It allocates nothing, takes no lock, and ends by `_exit`.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            for fd in ours {
                // SAFETY: the child uses it no more, and ends without closing it again.
                unsafe { libc::close(fd.as_raw_fd()) };
            }
            let user = LinkNameSpaceType::User;
            let made = move_into_link_name_space(user_namespace, Some(user)).and_then(|()| {
                nix::sched::unshare(kind.flag()).map_err(|e| Errno::from_raw_os_error(e as i32))
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
