//! The host's /proc and /sys. The layout of views and the constants of the hardware come from here, and nothing else.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{Dir, Mode, OFlags, open, openat, readlinkat};
use rustix::io::Errno;

use crate::{DescriptorCache, Error, Text};

pub(crate) mod file;
mod release;
mod stat_batch;

pub use release::Release;

/// The host's /proc and /sys, as directory descriptors.
#[derive(Debug)]
pub struct Host {
    proc: OwnedFd,
    /// Another procfs for the files of processes; `None` if they are read in `proc`.
    processes: Option<OwnedFd>,
    sys: OwnedFd,
    /// The way to read what only root may; `None` if there is none.
    as_root: OnceLock<ReadAsRoot>,
    /// /sys/devices/system/cpu, from which almost every view reads; `None` if the host has none.
    cpu: Option<OwnedFd>,
    descriptors: Arc<DescriptorCache>,
    texts: TextCache,
    directories: stat_batch::DirectoryCache,
    /// The version of the kernel, after the first call that asks for it.
    release: OnceLock<Release>,
    /// HZ, the number of jiffies in a second.
    hz: AtomicU64,
}

/// A function that reads a whole file of the host as root does.
pub type Read = Box<dyn Fn(&str) -> Result<Vec<u8>, Errno> + Send + Sync>;

struct ReadAsRoot(Read);

impl std::fmt::Debug for ReadAsRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadAsRoot").finish_non_exhaustive()
    }
}

/// The HZ of most distributions. It is used until the caller sets another.
const HZ: u64 = 250;

/// The capacity for descriptors of the host's files: more than all views together read on most hosts.
const MOST_DESCRIPTORS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The most texts in the cache, and the most bytes of one of them.
const MOST_TEXTS: NonZeroUsize = NonZeroUsize::new(32).unwrap();
const LONGEST_TEXT: usize = 1 << 16;

/// The number of ticks in a second if a tick is one of USER_HZ.
const SYSCTL_TICKS: u64 = 100;

/// The text of a file of the host. The views of one tick share it.
#[derive(Debug, Clone, Default)]
pub struct HostText(Arc<Text>);

impl Deref for HostText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for HostText {
    fn from(text: Vec<u8>) -> HostText {
        HostText(Arc::new(Text::from(text)))
    }
}

/// The texts that were read in this tick. They are the same for all containers.
#[derive(Debug)]
struct TextCache {
    /// The length of a tick in nanoseconds; 0 if nothing is cached.
    tick_nsec: AtomicU64,
    now: AtomicU64,
    read: Mutex<LruCache<Box<str>, (u64, HostText)>>,
}

impl TextCache {
    fn new() -> TextCache {
        TextCache {
            tick_nsec: AtomicU64::new(0),
            now: AtomicU64::new(0),
            read: Mutex::new(LruCache::new(MOST_TEXTS)),
        }
    }

    /// Returns the present tick for a file. Files of /proc/sys change seldom, so they are cached for [`SYSCTL_TICKS`]
    /// ticks.
    fn tick(&self, path: &str) -> Option<u64> {
        let now = self.now.load(Ordering::Relaxed);
        let now = if path.starts_with("/proc/sys/") {
            now / SYSCTL_TICKS
        } else {
            now
        };
        (self.tick_nsec.load(Ordering::Relaxed) > 0).then_some(now)
    }

    fn get(&self, path: &str) -> Option<HostText> {
        let tick = self.tick(path)?;
        let mut read = self.read.lock();
        let (of, text) = read.get(path)?;
        (*of == tick).then(|| text.clone())
    }

    /// Caches a text. `tick` is the tick in which the read began.
    fn put(&self, path: &str, tick: Option<u64>, text: Text) -> HostText {
        let Some(tick) = tick.filter(|_| text.len() <= LONGEST_TEXT) else {
            return HostText(Arc::new(text));
        };
        let mut read = self.read.lock();
        if let Some((of, shared)) = read.get_mut(path) {
            match Arc::get_mut(&mut shared.0) {
                Some(before) => *before = text,
                // A view of the previous tick still uses it.
                None => *shared = HostText(Arc::new(text)),
            }
            *of = tick;
            return shared.clone();
        }
        let text = HostText(Arc::new(text));
        read.put(path.into(), (tick, text.clone()));
        text
    }
}

/// Returns whether the kernel writes a file in one piece, so that a short read returns the whole text. These are
/// attributes of sysfs, sysctls, and files of procfs that are made with proc_create_single (fs/proc).
fn is_one_piece(path: &str) -> bool {
    const SINGLE: &[&str] = &[
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/uptime",
    ];
    path.starts_with("/sys/") || path.starts_with("/proc/sys/") || SINGLE.contains(&path)
}

const CPU: &str = "devices/system/cpu/";

impl Host {
    /// Opens the host's own /proc and /sys.
    pub fn open() -> Result<Host, Error> {
        let directory = |path: &str| {
            open(
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|errno| Error::io(path, errno))
        };
        Ok(Host::from_dirs(directory("/proc")?, directory("/sys")?))
    }

    /// Returns a host whose /proc and /sys are these two directories.
    pub fn from_dirs(proc: OwnedFd, sys: OwnedFd) -> Host {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let cpu = walk(sys.as_fd(), CPU.trim_end_matches('/'), flags).ok();
        Host {
            proc,
            processes: None,
            sys,
            as_root: OnceLock::new(),
            cpu,
            descriptors: Arc::new(DescriptorCache::new(MOST_DESCRIPTORS)),
            texts: TextCache::new(),
            directories: stat_batch::DirectoryCache::default(),
            release: OnceLock::new(),
            hz: AtomicU64::new(HZ),
        }
    }

    /// Reads the files of processes in another procfs from now on.
    pub fn with_processes(self, processes: OwnedFd) -> Host {
        let processes = Some(processes);
        Host { processes, ..self }
    }

    /// Reads a file that this process may not read by `read` from now on. It is set once.
    pub fn set_read_as_root(&self, read: Read) {
        // A second one would be another way to the same files.
        let _ = self.as_root.set(ReadAsRoot(read));
    }

    /// Reads a whole file that this process may not read.
    ///
    /// # Errors
    /// EACCES where there is no way to do so, and those of the way.
    pub fn read_as_root(&self, path: &str) -> Result<Vec<u8>, Errno> {
        self.as_root
            .get()
            .map_or(Err(Errno::ACCESS), |way| way.0(path))
    }

    /// Sets HZ. The caller knows it from the resolution of the coarse clocks; this crate has no clock.
    pub fn set_hz(&self, hz: u64) {
        self.hz.store(hz, Ordering::Relaxed);
    }

    /// Returns HZ, the number of jiffies in a second.
    pub fn hz(&self) -> u64 {
        self.hz.load(Ordering::Relaxed)
    }

    /// Returns the version of the kernel.
    ///
    /// # Errors
    /// Fails when /proc/sys/kernel/osrelease cannot be read or holds no version.
    pub fn release(&self) -> Result<Release, Error> {
        if let Some(release) = self.release.get() {
            return Ok(*release);
        }
        let release = Release::of(self)?;
        Ok(*self.release.get_or_init(|| release))
    }

    /// Returns the cache of descriptors. The server uses it for the cgroups of its containers too.
    pub fn descriptors(&self) -> &Arc<DescriptorCache> {
        &self.descriptors
    }

    /// Reads each file at most once in a tick of this length from now on, for all containers. A length of zero ends
    /// that.
    pub fn share_reads(&self, tick: Duration) {
        let nsec = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX);
        self.texts.tick_nsec.store(nsec, Ordering::Relaxed);
    }

    /// Sets the present time, by any clock that does not go back. This crate has no clock.
    pub fn set_time(&self, now: Duration) {
        let length = u128::from(self.texts.tick_nsec.load(Ordering::Relaxed).max(1));
        let tick = u64::try_from(now.as_nanos() / length).unwrap_or(u64::MAX);
        self.texts.now.store(tick, Ordering::Relaxed);
    }

    /// Returns whether the kernel has this file.
    pub fn exists(&self, path: &str) -> bool {
        self.stat(path).is_ok()
    }

    /// Returns whether the kernel has a directory at this path.
    pub fn is_directory(&self, path: &str) -> bool {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        self.open_flags(path, flags).is_ok()
    }

    /// Returns the target of a symbolic link; `None` if there is no link at this path.
    pub fn read_link(&self, path: &str) -> Option<String> {
        let link = self
            .open_flags(path, OFlags::PATH | OFlags::NOFOLLOW)
            .ok()?;
        let target = readlinkat(&link, "", Vec::new()).ok()?;
        target.into_string().ok()
    }

    /// Returns the permission bits of a file.
    pub fn mode(&self, path: &str) -> Option<u16> {
        u16::try_from(self.stat(path).ok()?.st_mode & 0o7777).ok()
    }

    /// Reads a whole file. It is an error if the file is missing.
    pub fn read(&self, path: &str) -> Result<HostText, Error> {
        self.text(path).map_err(|errno| Error::io(path, errno))
    }

    /// Reads a whole file that is seldom read, or that comes and goes: neither its descriptor nor its text is cached.
    ///
    /// # Errors
    /// Fails when the file is missing.
    pub fn read_once(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.open_flags(path, OFlags::RDONLY)
            .and_then(|fd| file::read_whole(&fd))
            .map_err(|errno| Error::io(path, errno))
    }

    /// Reads a whole file of a process, with one open. No part of `file` may be a symbolic link.
    pub fn read_of_process(&self, pid: u32, file: &str) -> Result<Vec<u8>, Error> {
        let path = format!("{pid}/{file}");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.descriptors
            .with_room(|| openat(self.processes(), path.as_str(), flags, Mode::empty()))
            .and_then(|fd| file::read_whole(&fd))
            .map_err(|errno| Error::io(&format!("/proc/{path}"), errno))
    }

    /// Reads a whole file. Returns `None` if this host does not have it, or if only root may read it.
    pub fn read_optional(&self, path: &str) -> Result<Option<HostText>, Error> {
        match self.text(path) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::PERM) => Ok(None),
            Err(errno) => Err(Error::io(path, errno)),
        }
    }

    fn text(&self, path: &str) -> Result<HostText, Errno> {
        let open = || self.open_flags(path, OFlags::RDONLY);
        // Files of processes are not cached: another process may have the pid next time.
        if path.strip_prefix("/proc/").is_some_and(is_of_process) {
            return file::read_whole(&open()?).map(HostText::from);
        }
        if let Some(text) = self.texts.get(path) {
            return Ok(text);
        }
        let tick = self.texts.tick(path);
        let read = if is_one_piece(path) {
            file::pread_piece
        } else {
            file::pread_whole
        };
        let text = match self.descriptors.read(path, open, read) {
            // A sysctl asks at each read who reads, so no descriptor of it would do.
            Err(Errno::ACCESS | Errno::PERM) => Text::from(self.read_as_root(path)?),
            text => text?,
        };
        Ok(self.texts.put(path, tick, text))
    }

    /// Returns the procfs in which files of processes are read.
    fn processes(&self) -> &OwnedFd {
        self.processes.as_ref().unwrap_or(&self.proc)
    }

    /// Returns the names in a directory, sorted, without "." and "..". Names that are not UTF-8 are left out; /proc
    /// and /sys have none.
    pub fn names(&self, path: &str) -> Result<Vec<String>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let failed = |errno| Error::io(path, errno);
        let dir = Dir::new(self.open_flags(path, flags).map_err(failed)?).map_err(failed)?;
        let mut names = Vec::new();
        for entry in dir {
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

    /// Opens an absolute path below /proc or /sys. No symbolic link is followed, so no path leads out of the two
    /// directories. openat2(2) does the same in one call, but a filter of system calls cannot check its flags.
    pub fn open_flags(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.descriptors.with_room(|| self.try_open(path, flags))
    }

    fn try_open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        if let Some(rest) = path.strip_prefix("/proc/") {
            let top = if is_of_process(rest) {
                self.processes()
            } else {
                &self.proc
            };
            return walk(top.as_fd(), rest, flags);
        }
        let rest = path.strip_prefix("/sys/").ok_or(Errno::NOENT)?;
        match (&self.cpu, rest.strip_prefix(CPU)) {
            (Some(cpu), Some(rest)) => walk(cpu.as_fd(), rest, flags),
            _ => walk(self.sys.as_fd(), rest, flags),
        }
    }
}

/// Returns whether a path below /proc is of a process or a thread.
fn is_of_process(path: &str) -> bool {
    path.starts_with(|c: char| c.is_ascii_digit())
}

/// Returns whether a component of a path is the name of an entry.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
}

/// Opens a path below a directory, one component after the other.
fn walk(top: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    if !path.split('/').all(is_name) {
        return Err(Errno::NOENT);
    }
    let step = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (parents, name) = path
        .rsplit_once('/')
        .map_or((None, path), |(a, b)| (Some(a), b));
    let mut dir: Option<OwnedFd> = None;
    for parent in parents.into_iter().flat_map(|parents| parents.split('/')) {
        let from = dir.as_ref().map_or(top, |dir| dir.as_fd());
        let flags = OFlags::PATH | OFlags::DIRECTORY | step;
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
    fn a_file_is_read_once_a_tick_and_anew_in_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("meminfo");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        let open = || std::fs::File::open(dir.path()).unwrap().into();
        let host = Host::from_dirs(open(), open());
        let says = || String::from_utf8(host.read("/proc/meminfo").unwrap().to_vec()).unwrap();
        write("one");
        assert_eq!(says(), "one");
        write("two");
        assert_eq!(says(), "two", "nothing is shared by itself");
        host.share_reads(Duration::from_millis(10));
        host.set_time(Duration::from_millis(11));
        assert_eq!(says(), "two");
        write("three");
        host.set_time(Duration::from_millis(19));
        assert_eq!(says(), "two");
        host.set_time(Duration::from_millis(20));
        assert_eq!(says(), "three");
    }

    #[test]
    fn processes_are_read_in_the_procfs_that_has_them() {
        let (proc, processes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, text) in [(&proc, "all"), (&processes, "processes")] {
            std::fs::create_dir(dir.path().join("7")).unwrap();
            std::fs::write(dir.path().join("7/status"), text).unwrap();
            std::fs::write(dir.path().join("stat"), text).unwrap();
        }
        let open = |dir: &tempfile::TempDir| std::fs::File::open(dir.path()).unwrap().into();
        let host = Host::from_dirs(open(&proc), open(&proc)).with_processes(open(&processes));
        assert_eq!(host.read_of_process(7, "status").unwrap(), b"processes");
        assert_eq!(&*host.read("/proc/7/status").unwrap(), b"processes");
        assert_eq!(&*host.read("/proc/stat").unwrap(), b"all");
    }

    #[test]
    fn what_this_process_may_not_read_is_read_as_root_if_there_is_a_way() {
        let dir = tempfile::tempdir().unwrap();
        let open = || std::fs::File::open(dir.path()).unwrap().into();
        let host = Host::from_dirs(open(), open());
        assert_eq!(host.read_as_root("/proc/a").err(), Some(Errno::ACCESS));
        host.set_read_as_root(Box::new(|path| Ok(path.as_bytes().to_vec())));
        assert_eq!(host.read_as_root("/proc/a").unwrap(), b"/proc/a");
        // A file that is missing is missing for root too.
        assert!(host.read("/proc/a").is_err());
    }

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
        assert_eq!(&*host.read("/proc/sys/here").unwrap(), b"here");
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
        assert!(host.read_optional("/proc/none").unwrap().is_none());
    }
}
