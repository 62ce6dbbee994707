//! The machine: its /proc and /sys. The layout of views and the constants of the hardware come
//! from here, and nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::Error;

pub(crate) mod file;

/// The machine's /proc and /sys, as directory descriptors.
#[derive(Debug)]
pub struct Host {
    proc: OwnedFd,
    sys: OwnedFd,
    /// /sys/devices/system/cpu, which almost every view begins with; `None` if there is none.
    cpu: Option<OwnedFd>,
}

const CPU: &str = "devices/system/cpu/";

impl Host {
    /// The real machine.
    pub fn open() -> Result<Host, Error> {
        let directory = |path: &str| {
            open(
                path,
                OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )
            .map_err(|errno| Error::io(path, errno))
        };
        Ok(Host::from_dirs(directory("/proc")?, directory("/sys")?))
    }

    /// Any two directories that look like /proc and /sys.
    pub fn from_dirs(proc: OwnedFd, sys: OwnedFd) -> Host {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let cpu = walk(sys.as_fd(), CPU.trim_end_matches('/'), flags).ok();
        Host { proc, sys, cpu }
    }

    /// Whether the kernel has this file.
    pub fn exists(&self, path: &str) -> bool {
        self.open_flags(path, OFlag::O_PATH).is_ok()
    }

    /// The whole of a file that must be there.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let fd = self
            .open_file(path)
            .map_err(|errno| Error::io(path, errno))?;
        file::read_whole(&fd).map_err(|errno| Error::io(path, errno))
    }

    /// The whole of a file that this kernel or machine may lack, or keep for root.
    pub fn read_optional(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.open_file(path) {
            Ok(fd) => file::read_whole(&fd)
                .map(Some)
                .map_err(|errno| Error::io(path, errno)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::EPERM) => Ok(None),
            Err(errno) => Err(Error::io(path, errno)),
        }
    }

    /// The names in a directory, sorted; without "." and "..". Names that are not UTF-8 do not
    /// occur in /proc and /sys, and are left out.
    pub fn names(&self, path: &str) -> Result<Vec<String>, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let failed = |errno| Error::io(path, errno);
        let mut dir =
            Dir::from_fd(self.open_flags(path, flags).map_err(failed)?).map_err(failed)?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(failed)?;
            if let Ok(name) = entry.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn open_file(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open_flags(path, OFlag::O_RDONLY)
    }

    /// Opens an absolute path below /proc or /sys, and follows no symbolic link: nothing leads out
    /// of the two directories. openat2(2) would say the same in one call, but a system call filter
    /// cannot see its flags.
    pub fn open_flags(&self, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        if let Some(rest) = path.strip_prefix("/proc/") {
            return walk(self.proc.as_fd(), rest, flags);
        }
        let rest = path.strip_prefix("/sys/").ok_or(Errno::ENOENT)?;
        match (&self.cpu, rest.strip_prefix(CPU)) {
            (Some(cpu), Some(rest)) => walk(cpu.as_fd(), rest, flags),
            _ => walk(self.sys.as_fd(), rest, flags),
        }
    }
}

/// Opens a path below a directory, one component after the other.
fn walk(top: BorrowedFd<'_>, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err(Errno::ENOENT);
    }
    let step = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let (parents, name) = path
        .rsplit_once('/')
        .map_or((None, path), |(a, b)| (Some(a), b));
    let mut dir: Option<OwnedFd> = None;
    for parent in parents.into_iter().flat_map(|parents| parents.split('/')) {
        let from = dir.as_ref().map_or(top, |dir| dir.as_fd());
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | step;
        dir = Some(openat(from, parent, flags, Mode::empty())?);
    }
    openat(
        dir.as_ref().map_or(top, |dir| dir.as_fd()),
        name,
        flags | step,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_the_directories() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/sys")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::write(dir.path().join("proc/sys/here"), "here").unwrap();
        symlink("../secret", dir.path().join("proc/link")).unwrap();
        symlink("sys", dir.path().join("proc/dir")).unwrap();
        let open = || std::fs::File::open(dir.path().join("proc")).unwrap().into();
        let host = Host::from_dirs(open(), open());
        assert_eq!(host.read("/proc/sys/here").unwrap(), b"here");
        for path in [
            "/proc/link",
            "/proc/../secret",
            "/proc/dir/here",
            "/proc//sys/here",
            "secret",
        ] {
            assert!(host.read(path).is_err(), "{path}");
        }
        assert!(host.exists("/proc/sys"));
        assert!(!host.exists("/proc/none"));
        assert_eq!(host.read_optional("/proc/none"), Ok(None));
    }
}
