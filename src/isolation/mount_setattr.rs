//! mount_setattr(2), which has no safe form in a library.

#![allow(unsafe_code, reason = "mount_setattr(2) is called by its number")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// The access that a mount gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// As it was cloned.
    Unchanged,
    /// Reading alone.
    ReadOnly,
}

impl Access {
    fn attribute(self) -> u64 {
        match self {
            Self::Unchanged => 0,
            Self::ReadOnly => libc::MOUNT_ATTR_RDONLY,
        }
    }
}

/// Gives a mount that is not attached yet the id mapping of a user namespace: its first id is shown for 0 on the disk. No
/// device node can be opened through it: a node on a disk would belong to the container's root then.
///
/// # Errors
/// EINVAL for a file system that cannot be mapped, ENOSYS before Linux 5.12, and others of the kernel.
pub(super) fn map_ids(
    mount: impl AsFd,
    user_namespace: impl AsFd,
    access: Access,
) -> Result<(), Errno> {
    let user_namespace = u64::from(user_namespace.as_fd().as_raw_fd().cast_unsigned());
    let attributes = libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_NODEV | access.attribute();
    set(mount, attributes, user_namespace)
}

/// Forbids to open device nodes through a mount that is not attached yet, and to write to it, if it is read-only.
///
/// # Errors
/// The kernel's.
pub(super) fn forbid_devices(mount: impl AsFd, access: Access) -> Result<(), Errno> {
    set(mount, libc::MOUNT_ATTR_NODEV | access.attribute(), 0)
}

fn set(mount: impl AsFd, attributes: u64, user_namespace: u64) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace,
    };
    // SAFETY: the path is a string with a zero at its end, the kernel reads as many bytes of `attributes` as it has, and
    // the descriptor is borrowed for the call.
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
