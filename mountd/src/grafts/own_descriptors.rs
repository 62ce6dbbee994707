//! A thread with descriptors of its own.
//!
//! A thread that waits for an answer which a file system has promised cannot be ended, not even with its process. As long
//! as it lives, so do the descriptors that it shares. If these were the daemon's, its end would close neither `/dev/fuse`,
//! so that the kernel would never give up the request, nor the link to the server, nor the lock of the runtime directory.

use std::os::fd::AsRawFd;

use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Result};

/// Leaves the descriptors of the other threads, and keeps the socket and the standard error output. Threads that this one
/// starts share what it has then.
pub(super) fn keep_only(socket: &Channel) -> Result<()> {
    let trouble = |e: Errno| Error::io("read", "/proc/thread-self/fd", e);
    unshare(CloneFlags::CLONE_FILES)
        .map_err(|e| Error::io("leave", "the descriptors of the other threads", e))?;
    let numbers: Vec<i32> = {
        let list = rustix::fs::open(
            "/proc/thread-self/fd",
            rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(trouble)?;
        rustix::fs::Dir::read_from(&list)
            .map_err(trouble)?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok())
            .collect()
    };
    for number in numbers {
        if number != 2 && number != socket.as_raw_fd() {
            // It fails only for the list itself, which is closed already.
            let _ = nix::unistd::close(number);
        }
    }
    Ok(())
}
