//! The errno that a container is told.

/// An error as the kernel would give it. A container is told no more; the reason is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("errno {0}")]
pub struct Errno(pub i32);

impl Errno {
    /// The container, or the entry, is not there.
    pub const NOENT: Self = Self(libc::ENOENT);
    /// The caller is to try again.
    pub const AGAIN: Self = Self(libc::EAGAIN);
    /// The view could not be computed.
    pub const IO: Self = Self(libc::EIO);
    /// The operation is one of files, and the node is a directory.
    pub const ISDIR: Self = Self(libc::EISDIR);
    /// The operation is one of directories, and the node is a file.
    pub const NOTDIR: Self = Self(libc::ENOTDIR);
    /// The container has too many open files.
    pub const NFILE: Self = Self(libc::ENFILE);
    /// The container has no memory left for it.
    pub const NOMEM: Self = Self(libc::ENOMEM);
    /// The operation is not implemented. Some requests are answered so, for the kernel to stop asking.
    pub const NOSYS: Self = Self(libc::ENOSYS);
}
