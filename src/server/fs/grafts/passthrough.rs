//! Files of the kernel's own that are passed through as they are.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use eci_fs_emulators::Host;
use rustix::fs::OFlags;
use rustix::io::Errno as Kernels;

use crate::server::error::Errno;
use crate::server::fs::attr::Kind;
use crate::server::fs::content::Content;

/// The files of the host that containers see as they are.
#[derive(Debug)]
pub(super) struct Passthrough {
    host: Arc<Host>,
}

impl Passthrough {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    /// Returns the attributes of the file at `path`, which is not followed if it is a link.
    ///
    /// # Errors
    /// The kernel's when it cannot be opened; ENOENT for what containers do not see.
    pub(super) fn stat(&self, path: &str) -> Result<Stat, Errno> {
        Stat::of(&self.open_path(path)?)
    }

    /// Returns the content of the file at `path`.
    ///
    /// # Errors
    /// The kernel's when it cannot be opened; EISDIR for a directory.
    pub(super) fn content(&self, path: &str) -> Result<Content, Errno> {
        match self.host.open_flags(path, OFlags::RDONLY) {
            Ok(file) => read_whole(file),
            // The kernel lets root open some that only root may read. Who asked may, by the attributes of the file.
            Err(Kernels::ACCESS) => {
                let text = self.host.read_as_root(path).map_err(errno)?;
                Ok(Content::from(text))
            }
            Err(error) => Err(errno(error)),
        }
    }

    /// Returns the target of the link at `path`.
    ///
    /// # Errors
    /// The kernel's when it cannot be opened, or is no link.
    pub(super) fn link(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let fd = self.open_path(path)?;
        rustix::fs::readlinkat(&fd, "", Vec::new())
            .map(CString::into_bytes)
            .map_err(errno)
    }

    fn open_path(&self, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        self.host.open_flags(path, flags).map_err(errno)
    }
}

fn errno(error: Kernels) -> Errno {
    Errno(error.raw_os_error())
}

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
