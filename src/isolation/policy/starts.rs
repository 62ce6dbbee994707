//! The namespaces of engines that are being given to containers. From the moment in which one is replaced until the first
//! process of the container is in it, it looks unused.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use eci_fs_protocol::error::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use super::engine_namespace::{EngineNamespace, changed};

/// The name in the runtime directory of the file with the locks of namespaces that are given.
const FILE: &str = "networks";

/// The name of the file with the locks of namespaces that are being replaced.
const REPLACED: &str = "replaced";

/// The least number of the descriptor of the file.
const FIRST_DESCRIPTOR: i32 = 512;

/// A file with a lock of one byte for each namespace that is being given, at the number of its inode. A lock belongs to the
/// process that has set it, stays when that becomes the runtime, and ends with it. Children of the runtime do not have it.
#[derive(Debug)]
pub(in crate::isolation) struct Starts {
    path: PathBuf,
    file: OwnedFd,
}

impl Starts {
    /// Opens the file in the runtime directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn open(runtime_dir: &Path) -> Result<Self> {
        let path = runtime_dir.join(FILE);
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let trouble = |e| Error::io("open", &path, e);
        let file = open(&path, flags, Mode::from_raw_mode(0o600)).map_err(trouble)?;
        // The runtime keeps the descriptor, because the end of any descriptor of the file ends the lock. Its number is not
        // one of those that an engine has a container inherit.
        let file = fcntl_dupfd_cloexec(&file, FIRST_DESCRIPTOR).map_err(trouble)?;
        fcntl_setfd(&file, FdFlags::empty()).map_err(trouble)?;
        Ok(Self { path, file })
    }

    /// Returns true if another process is giving a namespace to a container.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn have(&self, namespace: impl AsFd) -> Result<bool> {
        let mut lock = lock_of(namespace, libc::F_WRLCK)?;
        fcntl(&self.file, FcntlArg::F_GETLK(&mut lock)).map_err(|e| self.trouble(e))?;
        Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
    }

    /// Notes that this process gives a namespace to a container, until the runtime that it becomes has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub(in crate::isolation) fn add(&self, namespace: impl AsFd) -> Result<()> {
        // One for reading, because the file is not open for writing.
        let lock = lock_of(namespace, libc::F_RDLCK)?;
        fcntl(&self.file, FcntlArg::F_SETLK(&lock)).map_err(|e| self.trouble(e))?;
        Ok(())
    }

    /// Leaves the file open, so that what was added stays until this process ends.
    pub(in crate::isolation) fn keep(self) {
        let _ = self.file.into_raw_fd();
    }

    fn trouble(&self, error: nix::errno::Errno) -> Error {
        Error::io("lock a part of", &self.path, error)
    }
}

/// Keeps other starts from replacing `namespace`, as long as the result is open. The lock is in the runtime directory, which
/// no container has: a process in the namespace could hold a lock of the namespace itself.
///
/// # Errors
/// When another process replaces it, and the kernel's.
pub(super) fn lock(runtime_dir: &Path, namespace: &EngineNamespace) -> Result<OwnedFd> {
    let path = runtime_dir.join(REPLACED);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open(&path, flags, Mode::from_raw_mode(0o600));
    let file = file.map_err(|e| Error::io("open", &path, e))?;
    let lock = lock_of(namespace.namespace(), libc::F_WRLCK)?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(file),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(changed(namespace.path(), super::GIVEN)),
        Err(errno) => Err(Error::io("lock a part of", &path, errno)),
    }
}

/// Returns the lock of the byte of a namespace.
fn lock_of(namespace: impl AsFd, kind: libc::c_int) -> Result<libc::flock> {
    let stat = fstat(namespace).map_err(|e| Error::io("stat", "a namespace", e))?;
    Ok(libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: 0,
        l_start: stat.st_ino.cast_signed(),
        l_len: 1,
        l_pid: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_another_process_gives_is_known_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] =
            ["one", "other"].map(|name| std::fs::File::create(dir.path().join(name)).unwrap());
        let starts = || Starts::open(dir.path()).unwrap();
        assert!(!starts().have(&one).unwrap());
        // A lock of a description stands for one of another process.
        let asks = starts();
        let lock = lock_of(&one, libc::F_RDLCK).unwrap();
        let holder = starts();
        fcntl(&holder.file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        assert!(asks.have(&one).unwrap());
        assert!(!asks.have(&other).unwrap());
        drop(holder);
        assert!(!asks.have(&one).unwrap());
        let adds = starts();
        adds.add(&one).unwrap();
        adds.keep();
        let mut lock = lock_of(&one, libc::F_WRLCK).unwrap();
        fcntl(&asks.file, FcntlArg::F_OFD_GETLK(&mut lock)).unwrap();
        assert_eq!(i32::from(lock.l_type), libc::F_RDLCK);
    }
}
