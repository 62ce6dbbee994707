//! The attributes of the host's files, without an open file.
//!
//! When a container is attached, the server asks for each view whether the host has the file. Most views lie in a few
//! directories, so a [`StatBatch`] keeps the descriptors of the directories that were opened while it lives.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::{Host, is_name};

/// The directories that are open, or the errors of those that cannot be opened.
#[derive(Debug, Default)]
pub(super) struct DirectoryCache {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The number of batches that live.
    batches: usize,
    directories: HashMap<Box<str>, Result<Arc<OwnedFd>, Errno>>,
}

/// While it lives, the directories of the files that are looked at stay open.
#[derive(Debug)]
pub struct StatBatch<'a> {
    directories: &'a DirectoryCache,
}

impl Drop for StatBatch<'_> {
    fn drop(&mut self) {
        let mut known = self.directories.known.lock();
        known.batches = known.batches.saturating_sub(1);
        if known.batches == 0 {
            known.directories.clear();
        }
    }
}

impl Host {
    /// Begins a batch: from now on the attributes of many files are asked for, most of which lie in a few
    /// directories.
    pub fn batch_stats(&self) -> StatBatch<'_> {
        self.directories.known.lock().batches += 1;
        StatBatch {
            directories: &self.directories,
        }
    }

    /// Returns the attributes of an absolute path below /proc or /sys. A symbolic link is not followed.
    pub(super) fn stat(&self, path: &str) -> Result<Stat, Errno> {
        if self.directories.known.lock().batches == 0 {
            let fd = self.open_flags(path, OFlags::PATH)?;
            return fstat(&fd);
        }
        let (parent, name) = path.rsplit_once('/').ok_or(Errno::NOENT)?;
        if !is_name(name) {
            return Err(Errno::NOENT);
        }
        self.descriptors.with_room(|| {
            let dir = match self.top(parent) {
                Some(top) => return statat(top, name, AtFlags::SYMLINK_NOFOLLOW),
                None => self.directory(parent)?,
            };
            statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    fn top(&self, path: &str) -> Option<&OwnedFd> {
        match path {
            "/proc" => Some(&self.proc),
            "/sys" => Some(&self.sys),
            _ => None,
        }
    }

    fn directory(&self, path: &str) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(known) = self.directories.known.lock().directories.get(path) {
            return known.clone();
        }
        let opened = self.open_directory(path);
        let full = matches!(opened, Err(Errno::MFILE | Errno::NFILE));
        if !full {
            let mut known = self.directories.known.lock();
            known.directories.insert(path.into(), opened.clone());
        }
        opened
    }

    fn open_directory(&self, path: &str) -> Result<Arc<OwnedFd>, Errno> {
        let (parent, name) = path.rsplit_once('/').ok_or(Errno::NOENT)?;
        if !is_name(name) {
            return Err(Errno::NOENT);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match self.top(parent) {
            Some(top) => openat(top.as_fd(), name, flags, Mode::empty()),
            None => openat(self.directory(parent)?.as_fd(), name, flags, Mode::empty()),
        };
        dir.map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_looked_at_and_not_what_it_leads_to() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        fs::write(root.path().join("secret"), "").unwrap();
        let file = root.path().join("proc/sys/kernel/panic");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("kernel", root.path().join("proc/sys/link")).unwrap();
        let open = || fs::File::open(root.path().join("proc")).unwrap().into();
        let host = Host::from_dirs(open(), open());
        for batch in [false, true] {
            let _batch = batch.then(|| host.batch_stats());
            assert_eq!(host.mode("/proc/sys/kernel/panic"), Some(0o640));
            assert!(host.exists("/proc/sys") && host.exists("/sys/sys/link"));
            for path in [
                "/proc/sys/link/panic",
                "/proc/sys/kernel/none",
                "/proc/none/panic",
                "/proc/../secret",
                "/proc/sys/../sys",
                "/proc//sys",
                "/proc/",
                "/secret",
                "proc/sys",
            ] {
                assert!(!host.exists(path), "{path}");
            }
        }
    }

    #[test]
    fn what_comes_and_goes_is_seen_the_next_time() {
        let root = tempfile::tempdir().unwrap();
        let open = || fs::File::open(root.path()).unwrap().into();
        let host = Host::from_dirs(open(), open());
        let path = "/sys/module/one/parameters/size";
        let file = root.path().join("module/one/parameters/size");
        for _ in 0..3 {
            let batch = host.batch_stats();
            assert!(!host.exists(path));
            drop(batch);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            let batch = host.batch_stats();
            assert!(host.exists(path));
            fs::remove_dir_all(root.path().join("module")).unwrap();
            assert!(!host.exists(path));
            drop(batch);
        }
        assert!(host.directories.known.lock().directories.is_empty());
    }
}
