//! One ioctl: a second `/dev/fuse` description of a connection.
#![allow(
    unsafe_code,
    reason = "an ioctl, whose number and argument the kernel's header fixes"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

mod raw {
    // FUSE_DEV_IOC_CLONE of include/uapi/linux/fuse.h: _IOR(229, 0, uint32_t).
    nix::ioctl_read!(fuse_dev_ioc_clone, 229, 0, u32);
}

/// Makes `device`, which was opened just now, a description of the connection of `of`.
pub(super) fn join(device: &OwnedFd, of: &OwnedFd) -> io::Result<()> {
    let mut number = u32::try_from(of.as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: both descriptors are open and borrowed for the call; the kernel reads one u32 at the address that it
    // is given, and keeps no pointer to it.
    unsafe { raw::fuse_dev_ioc_clone(device.as_raw_fd(), &raw mut number) }?;
    Ok(())
}
