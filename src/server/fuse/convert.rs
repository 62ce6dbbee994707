//! Conversions between the values of the file system and those of the FUSE library.

use std::time::SystemTime;

use fuser::{FileAttr, FileType, INodeNo, Request};

use crate::server::error::Errno;
use crate::server::fs::{Attr, Caller, Kind};
use crate::server::ids;

/// The bit in the number of a request that the kernel sends again (`FUSE_UNIQUE_RESEND` of include/uapi/linux/fuse.h,
/// Linux 6.9).
const FUSE_UNIQUE_RESEND: u64 = 1 << 63;

pub(super) fn numbered(request: &Request) -> ids::Request {
    let number = request.unique().0;
    ids::Request {
        number: number & !FUSE_UNIQUE_RESEND,
        again: number & FUSE_UNIQUE_RESEND != 0,
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

/// Returns the attributes for the kernel, with an inode number: the one that programs see, or the node id in a reply
/// that names a node.
pub(super) fn file_attr(attr: &Attr, ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: attr.size,
        blocks: 0,
        atime: attr.mtime,
        mtime: attr.mtime,
        ctime: attr.mtime,
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: if attr.kind == Kind::Directory { 2 } else { 1 },
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Returns the errno for the kernel. It takes no answer with a number above its own last one (fuse_dev_do_write of
/// fs/fuse/dev.c), so the program that asked would wait for ever. Some drivers return such numbers from their files, for
/// instance ENOTSUPP, which is 524.
pub(super) fn fuse_errno(errno: Errno) -> fuser::Errno {
    const LAST: i32 = 511;
    fuser::Errno::from_i32(if errno.0 > LAST { libc::EIO } else { errno.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_that_the_kernel_would_not_take_is_an_io_error() {
        for (errno, sent) in [(2, 2), (511, 511), (512, 5), (524, 5), (0, 5), (-2, 5)] {
            assert_eq!(fuse_errno(Errno(errno)).code(), sent, "{errno}");
        }
    }
}
