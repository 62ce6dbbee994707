//! User namespaces without a process in them: one that maps a range of ids, and one to which a copy of mounts belongs.
//!
//! The owner of a user namespace is the user that its maker is, and the kernel counts things such as inotify instances
//! for the owner. So that containers do not share one count, the maker becomes the first id of the range. It is a child
//! of the daemon, and ends when the namespace has its map.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, fork, pipe2};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, RawPid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{
    CapabilitiesSecureBits, set_capabilities_secure_bits, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::ranges::IDS;
use crate::container::procfs::Proc;
use eci_fs_protocol::error::{Error, Result};

/// Makes a user namespace in which 0 to 65,535 are the ids of the host from `first_id` on, users and groups alike. Its
/// owner is `first_id`, or root if `owned_by_root`.
///
/// # Errors
/// When the kernel does not allow it.
pub fn make(proc: &Proc, first_id: u32, owned_by_root: bool) -> Result<OwnedFd> {
    let enter = || enter(first_id, owned_by_root);
    made_by_child("a user namespace", enter, |pid| {
        map(proc, pid, first_id)?;
        proc.open_at(&format!("{pid}/ns/user"), OFlags::RDONLY)
    })
}

/// Returns a copy of the mount namespace of this thread that belongs to a user namespace of its own. In the copy the
/// kernel has locked each mount that lies on another one, and the options of all.
///
/// # Errors
/// When the kernel does not allow it.
pub(crate) fn copy_mounts(proc: &Proc) -> Result<OwnedFd> {
    let both = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    let enter = || nix::sched::unshare(both).map_err(of_nix);
    made_by_child("a locked copy of mounts", enter, |pid| {
        proc.open_at(&format!("{pid}/ns/mnt"), OFlags::RDONLY)
    })
}

/// Has a child enter namespaces of its own, which may make system calls only, and returns what `open` makes of its pid.
fn made_by_child(
    what: &str,
    enter: impl Fn() -> std::result::Result<(), Errno>,
    open: impl FnOnce(RawPid) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    let trouble = |e: Errno| Error::io("make", what, e);
    let (ready, say_ready) = pipe2(OFlag::O_CLOEXEC).map_err(of_nix).map_err(trouble)?;
    let (over, end) = pipe2(OFlag::O_CLOEXEC).map_err(of_nix).map_err(trouble)?;
    let pipes = Pipes {
        ready,
        say_ready,
        over,
        end,
    };
    let (pid, ready, end) = start_child(enter, pipes).map_err(trouble)?;
    let made = wait(what, &ready).and_then(|()| open(pid.as_raw_nonzero().get()));
    drop(end);
    // It may be waiting still if something has failed. Both fail only when it has ended.
    let _ = kill_process(pid, Signal::KILL);
    let _ = waitpid(Some(pid), WaitOptions::empty());
    made
}

/// The pipes between the daemon and the child: on one the child says an errno, and on the other it hears its end.
struct Pipes {
    ready: OwnedFd,
    say_ready: OwnedFd,
    over: OwnedFd,
    end: OwnedFd,
}

/// Starts the child. Returns its pid, and the daemon's ends of the pipes.
#[allow(
    unsafe_code,
    reason = "only a process with one thread may enter a new user namespace"
)]
fn start_child(
    enter: impl Fn() -> std::result::Result<(), Errno>,
    pipes: Pipes,
) -> std::result::Result<(Pid, OwnedFd, OwnedFd), Errno> {
    let Pipes {
        ready,
        say_ready,
        over,
        end,
    } = pipes;
    // SAFETY: the child of a process with threads may make system calls only. It allocates nothing, takes no lock, and
    // ends by `_exit`.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            drop((ready, end));
            let errno = match enter() {
                Ok(()) => 0,
                Err(errno) => errno.raw_os_error(),
            };
            let _ = rustix::io::write(&say_ready, &errno.to_ne_bytes());
            // Until the daemon closes its end, or has died.
            let _ = rustix::io::read(&over, &mut [0; 1]);
            // SAFETY: it has no requirements.
            unsafe { nix::libc::_exit(0) }
        }
        Ok(ForkResult::Parent { child }) => {
            let pid = Pid::from_raw(child.as_raw()).ok_or(Errno::SRCH)?;
            Ok((pid, ready, end))
        }
        Err(errno) => Err(of_nix(errno)),
    }
}

/// Enters a new user namespace, whose owner this process is. System calls only.
fn enter(first_id: u32, owned_by_root: bool) -> std::result::Result<(), Errno> {
    if !owned_by_root {
        // With its capabilities it may make a user namespace also where other users may not.
        let keep = CapabilitiesSecureBits::NO_SETUID_FIXUP;
        let _ = set_capabilities_secure_bits(keep);
        let gid = rustix::fs::Gid::from_raw(first_id);
        let uid = rustix::fs::Uid::from_raw(first_id);
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER).map_err(of_nix)
}

/// Returns the same errno as rustix has it.
fn of_nix(errno: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

/// Waits until the child has entered what it makes.
fn wait(what: &str, ready: &OwnedFd) -> Result<()> {
    let mut word = [0; 4];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(ready.as_fd(), &mut word));
    let errno = match read {
        Ok(4) => i32::from_ne_bytes(word),
        Ok(_) => {
            return Err(Error::refused(format!(
                "the maker of {what} ended too early"
            )));
        }
        Err(e) => return Err(Error::io("hear from the maker of", what, e)),
    };
    if errno == 0 {
        return Ok(());
    }
    let errno = Errno::from_raw_os_error(errno);
    Err(Error::io("make", what, errno).remedy(match errno {
        Errno::NOSPC => "there are as many as the sysctl user.max_user_namespaces allows, here or around: raise it",
        Errno::PERM => {
            "a seccomp filter or a security module forbids it; see also kernel.unprivileged_userns_clone and \
             kernel.apparmor_restrict_unprivileged_userns"
        }
        Errno::INVAL => "boot a kernel with CONFIG_USER_NS",
        _ => "see user.max_user_namespaces, and `eci-fs doctor`",
    }))
}

/// Gives the user namespace of a process its map.
fn map(proc: &Proc, pid: RawPid, first_id: u32) -> Result<()> {
    let map = format!("0 {first_id} {IDS}\n");
    for file in ["uid_map", "gid_map"] {
        let path = format!("{pid}/{file}");
        let opened = proc.open_at(&path, OFlags::WRONLY)?;
        rustix::io::write(&opened, map.as_bytes())
            .map_err(|e| Error::io("write", format!("/proc/{path}"), e))?;
    }
    Ok(())
}
