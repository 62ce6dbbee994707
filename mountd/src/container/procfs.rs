//! The few files of `/proc/<pid>` that say what a process is, read through a descriptor of the host's /proc.
//!
//! The `procfs` crate has these too, but by path and with many files for each process. Here one descriptor of /proc
//! serves for ever, and a process that dies half way is [`Error::not_found`] in every one of them.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::mountinfo::{self, Mount};
use eci_fs_protocol::error::{Error, Kind, Result};

/// The most bytes of any one file: more than the kernel ever prints in those that are read here. A file that a container
/// can make longer is refused, and never cut.
const LIMIT: u64 = mountinfo::LIMIT;

/// The length in bytes that most of the files do not exceed.
const USUAL_LENGTH: usize = 4096;

/// The host's /proc, by a directory descriptor.
#[derive(Debug)]
pub struct Proc {
    dir: OwnedFd,
}

impl Proc {
    /// Opens /proc.
    ///
    /// # Errors
    /// When /proc is not there, or not a procfs.
    pub fn open() -> Result<Self> {
        let dir = rustix::fs::open(
            "/proc",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| Error::io("open", "/proc", e))?;
        let kind = rustix::fs::fstatfs(&dir).map_err(|e| Error::io("statfs", "/proc", e))?;
        if kind.f_type as u64 != rustix::fs::PROC_SUPER_MAGIC as u64 {
            return Err(Error::refused("/proc is not a procfs").remedy("mount one there first"));
        }
        Ok(Self { dir })
    }

    /// Returns the same /proc by another descriptor of it.
    pub(crate) fn of(dir: OwnedFd) -> Self {
        Self { dir }
    }

    /// Returns the directory.
    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Opens `/proc/<path>` with `flags`.
    pub fn open_at(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        rustix::fs::openat(&self.dir, path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
            vanished(e).unwrap_or_else(|| Error::io("open", format!("/proc/{path}"), e))
        })
    }

    /// Returns the text of `/proc/<path>`. Bytes that are not UTF-8 are replaced: no field that is parsed here can have
    /// any.
    pub fn read(&self, path: &str) -> Result<String> {
        let file = std::fs::File::from(self.open_at(path, OFlags::RDONLY)?);
        // Most files fit, so that they are read by two calls.
        let mut bytes = Vec::with_capacity(USUAL_LENGTH);
        file.take(LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| trouble(path, e))?;
        if bytes.len() as u64 > LIMIT {
            return Err(too_long(path));
        }
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// Returns all mounts of `/proc/<path>`, which is a mountinfo.
    ///
    /// # Errors
    /// As [`Self::each_mount`], with [`mountinfo::LIMIT`].
    pub fn mounts(&self, path: &str) -> Result<Vec<Mount>> {
        let mut all = Vec::new();
        self.each_mount(path, mountinfo::LIMIT, |mount| {
            all.push(mount);
            ControlFlow::<()>::Continue(())
        })?;
        Ok(all)
    }

    /// Shows `each` the mounts of `/proc/<path>`, which is a mountinfo, until it breaks off. Returns the value with which
    /// it did so. No more than one mount is held in memory.
    ///
    /// # Errors
    /// [`Kind::Refused`] when there are more than `limit` bytes; the kernel's.
    pub fn each_mount<B>(
        &self,
        path: &str,
        limit: u64,
        mut each: impl FnMut(Mount) -> ControlFlow<B>,
    ) -> Result<Option<B>> {
        let file = std::fs::File::from(self.open_at(path, OFlags::RDONLY)?);
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let (mut line, mut bytes) = (Vec::new(), 0u64);
        loop {
            line.clear();
            let mut rest = (&mut reader).take(limit.saturating_sub(bytes).saturating_add(1));
            let read = rest.read_until(b'\n', &mut line);
            bytes += read.map_err(|e| trouble(path, e))? as u64;
            if line.is_empty() {
                return Ok(None);
            }
            if bytes > limit {
                return Err(too_long(path));
            }
            let text = String::from_utf8_lossy(&line);
            let mount = mountinfo::parse_line(text.trim_end_matches('\n'));
            if let Some(ControlFlow::Break(value)) = mount.map(&mut each) {
                return Ok(Some(value));
            }
        }
    }

    /// Returns the identity of a namespace of a process. `kind` is a name in `/proc/<pid>/ns`.
    pub fn namespace(&self, pid: impl Display, kind: &str) -> Result<Namespace> {
        let path = format!("{pid}/ns/{kind}");
        let stat =
            rustix::fs::statat(&self.dir, &path, rustix::fs::AtFlags::empty()).map_err(|e| {
                vanished(e).unwrap_or_else(|| Error::io("stat", format!("/proc/{path}"), e))
            })?;
        Ok(Namespace {
            dev: stat.st_dev,
            ino: stat.st_ino,
        })
    }

    /// Returns the process behind a pidfd, in our pid namespace.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it has been reaped or lies outside our pid namespace.
    pub fn pid_of(&self, pidfd: BorrowedFd<'_>) -> Result<i32> {
        let text = self.read(&format!("self/fdinfo/{}", pidfd.as_raw_fd()))?;
        match field(&text, "Pid:").and_then(|v| v.trim().parse::<i32>().ok()) {
            Some(pid) if pid > 0 => Ok(pid),
            Some(0) => Err(Error::not_found(
                "the process is not in the pid namespace of eci-mountd",
            )
            .remedy("run eci-mountd in the pid namespace of the host")),
            Some(_) => Err(Error::process_ended()),
            None => Err(Error::refused("the descriptor is not a pidfd")),
        }
    }

    /// Returns all process ids that /proc lists now.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.numbers(".")
    }

    /// Returns the ids of all threads of a process.
    pub fn threads(&self, pid: i32) -> Result<Vec<i32>> {
        self.numbers(&format!("{pid}/task"))
    }

    /// Returns the names in `/proc/<path>` that are numbers.
    fn numbers(&self, path: &str) -> Result<Vec<i32>> {
        let dir = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let dir =
            rustix::fs::Dir::new(dir).map_err(|e| Error::io("read", format!("/proc/{path}"), e))?;
        Ok(dir
            .filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok())
            .collect())
    }

    /// Returns the fields of `/proc/<pid>/stat` and `status` that identify a process.
    pub fn process(&self, pid: i32) -> Result<Process> {
        let stat = self.read(&format!("{pid}/stat"))?;
        let status = self.read(&format!("{pid}/status"))?;
        parse_process(pid, &stat, &status).ok_or_else(|| {
            Error::new(
                Kind::System,
                format!("/proc/{pid}/stat is not in the kernel's format"),
            )
        })
    }

    /// Returns the user or group that id 0 of a process's user namespace is for us. `file` is "uid_map" or "gid_map".
    /// Where 0 is not mapped, it is 65534, the kernel's overflow id.
    pub fn mapped_root(&self, pid: i32, file: &str) -> Result<u32> {
        Ok(parse_mapped_root(&self.read(&format!("{pid}/{file}"))?).unwrap_or(65534))
    }

    /// Returns the ranges of `/proc/<pid>/uid_map` or `gid_map`: the first id in the user namespace of the process, the
    /// same id on the host, and the number of ids.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn id_map(&self, pid: i32, file: &str) -> Result<Vec<(u32, u32, u32)>> {
        Ok(parse_id_map(&self.read(&format!("{pid}/{file}"))?))
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Returns the error of a read of `/proc/<path>`.
fn trouble(path: &str, error: std::io::Error) -> Error {
    rustix::io::Errno::from_io_error(&error)
        .and_then(vanished)
        .unwrap_or_else(|| Error::io("read", format!("/proc/{path}"), error))
}

/// Returns the error for a file that is longer than anybody needs it.
fn too_long(path: &str) -> Error {
    Error::refused(format!(
        "/proc/{path} has more than {} MiB: the container has too many mounts, or too long paths of them",
        LIMIT >> 20
    ))
    .remedy("unmount some in the container")
}

/// Returns the error for ESRCH and ENOENT below `/proc/<pid>`: both mean that the process is gone.
fn vanished(errno: rustix::io::Errno) -> Option<Error> {
    matches!(errno, rustix::io::Errno::SRCH | rustix::io::Errno::NOENT).then(Error::process_ended)
}

/// A namespace, by the device and inode of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    dev: u64,
    ino: u64,
}

impl Namespace {
    /// Returns true if it is the initial user namespace, whose inode number is the same in every kernel
    /// (`PROC_USER_INIT_INO`).
    pub fn is_initial_user(self) -> bool {
        self.ino == 0xEFFF_FFFD
    }

    /// Returns true if it is the initial time namespace (`PROC_TIME_INIT_INO`).
    pub fn is_initial_time(self) -> bool {
        self.ino == 0xEFFF_FFFA
    }
}

/// A process, by the values that tell it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The id of the process in our pid namespace.
    pub pid: i32,
    /// The id of its parent.
    pub ppid: i32,
    /// The start of the process, in clock ticks of the host's CLOCK_BOOTTIME (`starttime`, field 22).
    pub start_ticks: u64,
    /// The ids of the process from our pid namespace inwards (`NSpid`).
    pub nspid: Vec<i32>,
}

impl Process {
    /// Returns true if it is pid 1 of a pid namespace below ours.
    pub fn is_init(&self) -> bool {
        self.nspid.len() > 1 && self.nspid.last() == Some(&1)
    }
}

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}

/// Parses the texts of `/proc/<pid>/stat` and `status`. A container chooses the name of the process in them. None if
/// they are not in the kernel's format.
pub fn parse_process(pid: i32, stat: &str, status: &str) -> Option<Process> {
    // comm may hold spaces and parentheses: the fields begin after the last one.
    let after_comm = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_comm.split_ascii_whitespace();
    let ppid = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    let nspid = match field(status, "NSpid:") {
        Some(ids) => ids
            .split_ascii_whitespace()
            .map(|id| id.parse().ok())
            .collect::<Option<_>>()?,
        None => vec![pid],
    };
    Some(Process {
        pid,
        ppid,
        start_ticks,
        nspid,
    })
}

fn parse_mapped_root(map: &str) -> Option<u32> {
    parse_id_map(map)
        .into_iter()
        .find_map(|(inside, outside, count)| (inside == 0 && count > 0).then_some(outside))
}

/// Parses `/proc/<pid>/uid_map` or `gid_map`, as [`Proc::id_map`] returns it.
pub fn parse_id_map(map: &str) -> Vec<(u32, u32, u32)> {
    let range = |line: &str| {
        let mut columns = line.split_ascii_whitespace().map(|c| c.parse::<u32>());
        Some((
            columns.next()?.ok()?,
            columns.next()?.ok()?,
            columns.next()?.ok()?,
        ))
    };
    map.lines().filter_map(range).collect()
}

/// Returns the offset of CLOCK_BOOTTIME in nanoseconds, from `/proc/<pid>/timens_offsets`.
pub fn parse_boottime_offset(text: &str) -> Option<i64> {
    let mut columns = field(text, "boottime")?.split_ascii_whitespace();
    let seconds: i64 = columns.next()?.parse().ok()?;
    let nanoseconds: i64 = columns.next()?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1000 1 18446744073709551615";
        let process = parse_process(42, stat, "Name:\tx\nNSpid:\t42\t1\n").unwrap();
        assert_eq!(
            process,
            Process {
                pid: 42,
                ppid: 7,
                start_ticks: 777,
                nspid: vec![42, 1]
            }
        );
        assert!(process.is_init());
    }

    #[test]
    fn root_is_mapped_where_the_map_says_so() {
        assert_eq!(
            parse_mapped_root("         0     100000      65536\n"),
            Some(100_000)
        );
        assert_eq!(parse_mapped_root("1000 1000 1\n0 5 1\n"), Some(5));
        assert_eq!(
            parse_mapped_root("         0          0 4294967295\n"),
            Some(0)
        );
        assert_eq!(parse_mapped_root(""), None);
    }

    #[test]
    fn a_time_namespace_offset_is_nanoseconds() {
        assert_eq!(
            parse_boottime_offset(
                "monotonic           0         0\nboottime         -100 250000000\n"
            ),
            Some(-99_750_000_000)
        );
        assert_eq!(parse_boottime_offset("boottime x y"), None);
    }

    #[test]
    fn our_own_pidfd_names_us() {
        let proc = Proc::open().unwrap();
        let me = rustix::process::getpid();
        let pidfd = rustix::process::pidfd_open(me, rustix::process::PidfdFlags::empty()).unwrap();
        assert_eq!(
            proc.pid_of(pidfd.as_fd()).unwrap(),
            me.as_raw_nonzero().get()
        );
        let file = tempfile::tempfile().unwrap();
        assert_eq!(proc.pid_of(file.as_fd()).unwrap_err().kind, Kind::Refused);
    }
}
