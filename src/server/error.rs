//! The errno that a container meets.

/// An error as the kernel would give it. It is all that a container is told; the reason is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("errno {0}")]
pub struct Errno(pub i32);

impl Errno {
    /// No such file or directory: the container, or the entry, is not there.
    pub const NOENT: Self = Self(libc::ENOENT);
    /// Not now: try again.
    pub const AGAIN: Self = Self(libc::EAGAIN);
    /// The view could not be computed.
    pub const IO: Self = Self(libc::EIO);
    /// A directory was asked for what only files have.
    pub const ISDIR: Self = Self(libc::EISDIR);
    /// A file was asked for what only directories have.
    pub const NOTDIR: Self = Self(libc::ENOTDIR);
    /// Too many open files.
    pub const NFILE: Self = Self(libc::ENFILE);
    /// Not implemented, which some requests answer so that the kernel stops asking.
    pub const NOSYS: Self = Self(libc::ENOSYS);
}
