//! The runtime directory: the lock, the socket, the list of containers, and the log of a background daemon.
//!
//! A process that can write there can speak for the daemon. So a directory that others can write to, or that is a
//! symbolic link, is refused before anything is put in it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use eci_fs_protocol::error::{Error, Kind, Result};

/// The path, unless an option names another one.
pub const DEFAULT: &str = "/run/eci-fs";

/// The socket in it at which runtimes hand over the filters of system calls (seccomp) of containers.
pub const SYSTEM_CALLS: &str = "system-calls.sock";

/// The environment variable that names another one.
pub const VARIABLE: &str = "ECI_FS_RUNTIME_DIR";

/// Returns the runtime directory that is used when no option names one. A default from the environment is no argument,
/// so the usage in an error message does not show it as one that was given.
pub fn default() -> PathBuf {
    match std::env::var_os(VARIABLE) {
        Some(dir) if !dir.is_empty() => dir.into(),
        _ => DEFAULT.into(),
    }
}

/// An opened and checked runtime directory.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    dir: OwnedFd,
}

impl RuntimeDir {
    /// Opens `path`, and creates it (0700) when it is not there.
    ///
    /// # Errors
    /// When it is a symbolic link, no directory, belongs to another user or is writable by others.
    pub fn create(path: &Path) -> Result<Self> {
        match std::fs::create_dir(path) {
            Ok(()) => {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                std::fs::set_permissions(path, mode)
                    .map_err(|e| Error::io("set the mode of", path, e))?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                return Err(Error::io("create the runtime directory", path, e)
                    .remedy("name another one with --runtime-dir"));
            }
        }
        Self::open(path)
    }

    /// Opens `path` as it is.
    ///
    /// # Errors
    /// As [`Self::create`], and [`Kind::NotFound`] when it is not there.
    pub fn open(path: &Path) -> Result<Self> {
        let other = "name another one with --runtime-dir";
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| match e {
            Errno::LOOP | Errno::NOTDIR => Error::refused(format!(
                "the runtime directory {} is a symbolic link or no directory",
                path.display()
            ))
            .remedy(other),
            e => Error::io("open the runtime directory", path, e).remedy(other),
        })?;
        let stat = rustix::fs::fstat(&dir).map_err(|e| Error::io("stat", path, e))?;
        if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
            return Err(Error::refused(format!(
                "the runtime directory {} belongs to user {} with mode {:o}: others could write there",
                path.display(),
                stat.st_uid,
                stat.st_mode & 0o7777
            ))
            .remedy(format!("`chown root {0} && chmod 0700 {0}`, or {other}", path.display())));
        }
        Ok(Self {
            path: path.to_owned(),
            dir,
        })
    }

    /// Opens a directory in it, and creates it when it is not there.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn subdirectory(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.dir, name, Mode::from(0o700)) {
            Ok(()) | Err(Errno::EXIST) => Self::open(&path),
            Err(e) => Err(Error::io("create", &path, e).remedy("free space there")),
        }
    }

    /// Returns the names of the files in it, but for those that are no UTF-8, which are not ours.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let trouble = |e| Error::io("read", &self.path, e);
        let entries = std::fs::read_dir(&self.path).map_err(trouble)?;
        let names = entries.filter_map(|entry| {
            entry
                .map(|one| one.file_name().into_string().ok())
                .transpose()
        });
        names.collect::<std::io::Result<_>>().map_err(trouble)
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the control socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Returns the path of the socket at which a server whose daemon has died waits for the next one.
    pub fn rendezvous(&self) -> PathBuf {
        self.path.join("server.sock")
    }

    /// Returns the path of the log of a daemon in the background.
    pub fn log(&self) -> PathBuf {
        self.path.join("eci-mountd.log")
    }

    /// Returns the path below which `eci-fs mount` makes directories that nobody named.
    pub fn mounts(&self) -> PathBuf {
        self.path.join("mounts")
    }

    /// Takes the lock that one daemon has at a time. It holds as long as any duplicate of its descriptor is open: the
    /// lock may be handed to another daemon. The kernel releases it when the last process that has one ends.
    ///
    /// # Errors
    /// [`Kind::Busy`] when another daemon holds it.
    pub fn lock(&self) -> Result<File> {
        let path = self.path.join("lock");
        let file = rustix::fs::openat(
            &self.dir,
            "lock",
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from(0o600),
        )
        .map_err(|e| Error::io("create", &path, e).remedy("name another one with --runtime-dir"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            Errno::WOULDBLOCK => Error::new(
                Kind::Busy,
                format!(
                    "another eci-mountd{} holds {}",
                    holder(&path),
                    self.path.display()
                ),
            )
            .remedy("use it, stop it, or name another directory with --runtime-dir"),
            e => Error::io("lock", &path, e),
        })?;
        let mut lock = File::from(file);
        note_holder(&mut lock).map_err(|e| {
            Error::io("write", &path, e)
                .remedy("free space there, or name another one with --runtime-dir")
        })?;
        Ok(lock)
    }

    /// Writes into the lock that this process has it now: another daemon has handed it over.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn inherit_lock(&self, lock: &OwnedFd) -> Result<()> {
        lock.try_clone()
            .and_then(|lock| note_holder(&mut File::from(lock)))
            .map_err(|e| Error::io("write", self.path.join("lock"), e))
    }

    /// Returns the process that holds the lock, as far as the file tells.
    pub fn lock_holder(&self) -> Option<i32> {
        std::fs::read_to_string(self.path.join("lock"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Returns the process that holds the lock, if it lives: a daemon that starts, serves or ends. The file names the
    /// process that has taken the lock last, and another process may have that number now.
    pub fn living_holder(&self) -> Option<i32> {
        let pid = self.lock_holder()?;
        let lock = std::fs::canonicalize(self.path.join("lock")).ok()?;
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let mut links = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        links.any(|link| link == lock).then_some(pid)
    }

    /// Replaces the file `name` by `text`, atomically: a reader, or the next daemon, sees the old or the new.
    ///
    /// # Errors
    /// When the disk is full or the directory is read-only.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let new = format!("{name}.new");
        let path = self.path.join(name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, new.as_str(), flags, Mode::from(0o600))
            .map_err(std::io::Error::from)
            .and_then(|file| File::from(file).write_all(text.as_bytes()))
            .and_then(|()| {
                Ok(rustix::fs::renameat(
                    &self.dir,
                    new.as_str(),
                    &self.dir,
                    name,
                )?)
            })
            .map_err(|e| {
                // The file that was begun takes space.
                let _ = self.remove(&new);
                Error::io("write", &path, e).remedy("free space there")
            })
    }

    /// Notes which process is the server, and when it started, for a daemon that cannot speak to it.
    ///
    /// # Errors
    /// As [`Self::write`]. Nothing is noted then: the note of the server before would say that this one has ended.
    pub fn note_server(&self, pid: i32, start_ticks: u64) -> Result<()> {
        let noted = self.write("server", &format!("{pid} {start_ticks}\n"));
        if noted.is_err() {
            // Where nothing can be written a file can still be removed, unless the directory is read-only.
            self.remove("server")?;
        }
        noted
    }

    /// Returns the last note of [`Self::note_server`]: the pid, and the start in clock ticks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_server(&self) -> Result<Option<(i32, u64)>> {
        Ok(self.read("server")?.and_then(|text| {
            let (pid, start_ticks) = text.trim().split_once(' ')?;
            Some((pid.parse().ok()?, start_ticks.parse().ok()?))
        }))
    }

    /// Removes the note about the server and about the connections that it served.
    pub fn forget_server(&self) {
        for name in ["server", "connections.json"] {
            // The next daemon writes it anew.
            let _ = self.remove(name);
        }
    }

    /// Removes the file `name`, if it is there.
    ///
    /// # Errors
    /// When the directory is read-only.
    pub fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.dir, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io("remove", self.path.join(name), e)),
        }
    }

    /// Returns the text of the file `name`; none when it is not there.
    pub fn read(&self, name: &str) -> Result<Option<String>> {
        match std::fs::read_to_string(self.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", self.path.join(name), e)),
        }
    }
}

impl AsFd for RuntimeDir {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Writes this process into the lock as its holder.
fn note_holder(lock: &mut File) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let pid = std::process::id().to_string();
    // The order matters: a reader meanwhile finds no empty file, as if nobody held the lock.
    lock.write_all_at(pid.as_bytes(), 0)?;
    lock.set_len(pid.len() as u64)
}

fn holder(path: &Path) -> String {
    match std::fs::read_to_string(path) {
        Ok(pid) if !pid.trim().is_empty() => format!(" (pid {})", pid.trim()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbolic_link_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let error = RuntimeDir::create(&link).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert!(error.to_string().contains("--runtime-dir"), "{error}");
    }

    #[test]
    fn privileged_a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), mode).unwrap();
        assert_eq!(
            RuntimeDir::create(dir.path()).unwrap_err().kind,
            Kind::Refused
        );
    }

    #[test]
    fn privileged_the_lock_is_held_once_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = RuntimeDir::create(&dir.path().join("run")).unwrap();
        let lock = runtime.lock().unwrap();
        let error = runtime.lock().unwrap_err();
        assert_eq!(error.kind, Kind::Busy);
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        drop(lock);
        assert!(runtime.lock().is_ok());
    }

    #[test]
    fn privileged_files_are_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = RuntimeDir::create(&dir.path().join("run")).unwrap();
        assert_eq!(runtime.read("list").unwrap(), None);
        runtime.write("list", "one").unwrap();
        runtime.write("list", "2").unwrap();
        assert_eq!(runtime.read("list").unwrap().as_deref(), Some("2"));
        assert!(!dir.path().join("run/list.new").exists());
    }
}
