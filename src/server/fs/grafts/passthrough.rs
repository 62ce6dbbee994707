//! Files of the kernel's own that are passed through as they are.

use std::os::fd::OwnedFd;

use crate::server::error::Errno;
use crate::server::fs::attr::Kind;
use crate::server::fs::content::Content;

/// The attributes of a file of the kernel's.
pub(super) struct Stat {
    pub(super) kind: Kind,
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Stat {
    /// Returns the attributes of the open file `fd`, or ENOENT for what containers do not see.
    pub(super) fn of(fd: &OwnedFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(fd).map_err(|e| Errno(e.raw_os_error()))?;
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => Kind::Symlink,
            libc::S_IFREG => Kind::File,
            // Nothing else lies in the kernel's directories, and a container may not see it if it does.
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

/// The most bytes of a passed-through file that are read: files of sysfs are a page, binary attributes a few.
const MAX_PASSED: u64 = 1 << 20;

/// Returns the content of a file. The kernel opens some files and then fails to read them.
///
/// # Errors
/// EISDIR for a directory.
pub(super) fn read_whole(fd: OwnedFd) -> Result<Content, Errno> {
    use std::io::Read;
    let mut text = Vec::new();
    let read = std::fs::File::from(fd)
        .take(MAX_PASSED)
        .read_to_end(&mut text);
    let errno = |error: std::io::Error| Errno(error.raw_os_error().unwrap_or(libc::EIO));
    let failure = read.err().map(errno);
    if failure == Some(Errno::ISDIR) {
        return Err(Errno::ISDIR);
    }
    Ok(Content {
        failure,
        ..Content::from(text)
    })
}
