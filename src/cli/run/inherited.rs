//! A descriptor that a child inherits by number: standard input, output and error belong to the command.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

use eci_fs_protocol::error::{Error, Result};

/// Have the child of `command` inherit `fd`, and tell it the number with `--channel`. To be called where no other
/// thread starts children: for a moment the descriptor would go to those too.
pub(super) fn pass(command: &mut Command, fd: &OwnedFd) -> Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())
        .map_err(|e| Error::io("pass on", "a descriptor", e))?;
    command
        .arg("--channel")
        .arg(fd.as_fd().as_raw_fd().to_string());
    Ok(())
}

/// Take over the descriptor that the parent passed on; once in a process.
#[allow(
    unsafe_code,
    reason = "an inherited descriptor is known by its number only"
)]
pub(super) fn take(number: i32) -> Result<OwnedFd> {
    // A number that the parent did not pass on is caught here, before it is believed.
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
