//! Files of the kernel's own, that are passed on as they are.

use std::os::fd::{AsFd, OwnedFd};

use super::Kind;
use crate::server::error::Errno;

/// What is told of something of the kernel's.
pub(super) struct Stat {
    pub(super) kind: Kind,
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Stat {
    pub(super) fn of(fd: &OwnedFd) -> Result<Self, Errno> {
        let stat = nix::sys::stat::fstat(fd.as_fd()).map_err(|e| Errno(e as i32))?;
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => Kind::Symlink,
            libc::S_IFREG => Kind::File,
            // Nothing else lies in the kernel's directories; if it does, it is none of the container's.
            _ => return Err(Errno::NOENT),
        };
        Ok(Self {
            kind,
            mode: u16::try_from(stat.st_mode & 0o777).unwrap_or(0),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            uid: stat.st_uid,
            gid: stat.st_gid,
        })
    }
}

/// Bytes of a passed-through file at most: sysfs files are a page, its binary attributes a few.
const MAX_PASSED: u64 = 1 << 20;

pub(super) fn read_whole(fd: OwnedFd) -> Result<Vec<u8>, Errno> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::from(fd)
        .take(MAX_PASSED)
        .read_to_end(&mut text)
        .map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(text)
}
