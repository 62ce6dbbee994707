//! mount_setattr(2), which has no safe form in a library.

#![allow(unsafe_code, reason = "mount_setattr(2) is called by its number")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// Gives a mount that is not attached yet the id mapping of a user namespace: its first id is shown for 0 on the disk.
///
/// # Errors
/// EINVAL for a file system that cannot be mapped, ENOSYS before Linux 5.12, and others of the kernel.
pub(super) fn map_ids(mount: impl AsFd, user_namespace: impl AsFd) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(user_namespace.as_fd().as_raw_fd().cast_unsigned()),
    };
    // SAFETY: the path is a string with a zero at its end, the kernel reads as many bytes of `attributes` as it has, and
    // both descriptors are borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
