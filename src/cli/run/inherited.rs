//! Descriptors that a child inherits by number. Standard input, output and error belong to the command.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

use eci_fs_protocol::error::{Error, Result};

/// Lets the child of `command` inherit `fd`, and tells it the number with `--channel`. No other thread may start
/// children meanwhile, because they would inherit the descriptor too.
pub(super) fn pass(command: &mut Command, fd: &OwnedFd) -> Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())
        .map_err(|e| Error::io("pass on", "a descriptor", e))?;
    command
        .arg("--channel")
        .arg(fd.as_fd().as_raw_fd().to_string());
    Ok(())
}

/// Takes ownership of the descriptor that the parent passed on. Must be called once in a process.
#[allow(
    unsafe_code,
    reason = "an inherited descriptor is known by its number only"
)]
pub(super) fn take(number: i32) -> Result<OwnedFd> {
    // This check catches a number that the parent did not pass on.
    if number <= 2 || std::fs::read_link(format!("/proc/self/fd/{number}")).is_err() {
        return Err(Error::refused(
            "this command is started by `eci-fs run` only",
        ));
    }
    // SAFETY: the descriptor is open, and the parent passed its number to this process for it to own; it is
    // taken over once, at the start, before anything else has opened or owns a descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
        .map_err(|e| Error::io("take over", "a descriptor", e))?;
    Ok(fd)
}
