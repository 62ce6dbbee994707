//! The threads of a container, from the lists of its cgroup and the host's /proc.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::cgroup::{Hierarchy, Version};
use crate::host::file::{read_at, read_at_most};
use crate::text::{fields, lines, parse_u64};
use crate::{Container, Controller, Error, Host, Threads};

/// The most that one count does. A container chooses how many cgroups and threads it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// The most cgroups that are visited.
    pub cgroups: usize,
    /// The most threads whose state is read.
    pub threads: usize,
}

impl Effort {
    /// The effort of a count for which a reader waits: some 3 ms.
    pub const OF_A_READ: Effort = Effort {
        cgroups: 64,
        threads: 256,
    };
    /// The effort of a count in the background, and of the first one.
    pub const FULL: Effort = Effort {
        cgroups: 4096,
        threads: 4096,
    };
}

/// The longest line of a list of threads: a number below 2^22, and the end of the line.
const LONGEST_LINE: usize = 8;

/// Counts the threads of the container's cgroup and all cgroups below it. Threads and cgroups that end meanwhile are
/// not counted. In a root cgroup nothing is counted, because its threads are the host's.
///
/// If there are more threads than the effort allows for, as many are looked at, evenly spread over the list. The
/// counts of states are scaled up from these. Cgroups beyond the effort are not counted.
///
/// # Errors
/// When the cgroup is gone, or a file cannot be read.
pub fn read_threads(host: &Host, container: &Container, effort: Effort) -> Result<Threads, Error> {
    let tids = list(container, effort, usize::MAX)?.unwrap_or_default();
    look_at(host, container, &tids, effort)
}

/// Counts the threads as [`read_threads`] does. Returns `None` if that takes more than the effort.
///
/// # Errors
/// When the cgroup is gone, or a file cannot be read.
pub fn read_few_threads(
    host: &Host,
    container: &Container,
    effort: Effort,
) -> Result<Option<Threads>, Error> {
    // v1 makes the whole list when it is read first. So the number comes from elsewhere, where it is known.
    if let Some(pids) = container.cgroup.of(Controller::Pids)
        && pids.depth > 0
        && let Some(current) = pids.read(0, "pids.current")?
        && parse_u64(&current).is_some_and(|current| current > effort.threads as u64)
    {
        return Ok(None);
    }
    match list(container, effort, effort.threads)? {
        Some(tids) => look_at(host, container, &tids, effort).map(Some),
        None => Ok(None),
    }
}

/// Returns the threads of the container's cgroup and of those below it, or `None` if there are more than `most`, or
/// more cgroups than can be visited while `most` bounds the threads.
fn list(container: &Container, effort: Effort, most: usize) -> Result<Option<Vec<u32>>, Error> {
    let mut all = Vec::new();
    let Some(hierarchy) = hierarchy(container) else {
        return Ok(Some(all));
    };
    let list = match hierarchy.version {
        Version::V1 => "tasks",
        Version::V2 => "cgroup.threads",
    };
    let bytes = most.saturating_add(1).saturating_mul(LONGEST_LINE);
    let mut pending = vec![String::from(".")];
    let mut visited = 0usize;
    while let Some(cgroup) = pending.pop() {
        let name = format!("{cgroup}/{list}");
        let tids = match read_at_most(&hierarchy.dir, &name, bytes) {
            // A recorded cgroup has no list of threads.
            Ok(None) => read_at(&hierarchy.dir, &format!("{cgroup}/cgroup.procs")),
            tids => tids,
        };
        match tids {
            Ok(Some(tids)) => {
                let tids = fields(&tids).filter_map(parse_u64);
                all.extend(tids.filter_map(|tid| u32::try_from(tid).ok()));
                if all.len() > most {
                    return Ok(None);
                }
            }
            // The cgroup was removed meanwhile.
            Ok(None) | Err(Errno::NODEV) if cgroup != "." => continue,
            Ok(None) => {
                return Err(Error::Removed {
                    path: list.to_owned(),
                });
            }
            Err(errno) => return Err(Error::io(&name, errno)),
        }
        visited = visited.saturating_add(1);
        if visited < effort.cgroups {
            push_children(&hierarchy.dir, &cgroup, effort.cgroups, &mut pending)?;
        } else if most < usize::MAX {
            return Ok(None);
        }
    }
    Ok(Some(all))
}

/// Reads the states of threads, of some of them if there are more than the effort allows for.
fn look_at(
    host: &Host,
    container: &Container,
    tids: &[u32],
    effort: Effort,
) -> Result<Threads, Error> {
    let level = container.identity.pid_level;
    let stride = tids.len().div_ceil(effort.threads.max(1)).max(1);
    let mut threads = Threads::default();
    for tid in tids.iter().step_by(stride) {
        count(host, *tid, level, &mut threads)?;
    }
    if stride > 1 {
        let looked_at = threads.total;
        threads.total = u32::try_from(tids.len()).unwrap_or(u32::MAX);
        for count in [&mut threads.running, &mut threads.uninterruptible] {
            *count = scale(*count, threads.total, looked_at);
        }
        // The last pid is that of the newest thread, which the kernel gave the highest number.
        if let Some(newest) = tids.iter().max() {
            let mut last = Threads::default();
            count(host, *newest, level, &mut last)?;
            threads.last_pid = threads.last_pid.max(last.last_pid);
        }
    }
    Ok(threads)
}

/// Returns what `count` of `of` threads is of `total`, rounded.
fn scale(count: u32, total: u32, of: u32) -> u32 {
    let half = u64::from(of / 2);
    let scaled = u64::from(count)
        .saturating_mul(total.into())
        .saturating_add(half)
        / u64::from(of.max(1));
    u32::try_from(scaled).unwrap_or(u32::MAX).min(total)
}

/// Returns the hierarchy in which the container's cgroup is the deepest. v1 is preferred: beside it the v2 cgroup may
/// be that of the engine, with all its containers.
fn hierarchy(container: &Container) -> Option<&Hierarchy> {
    let of_version = |version: Version| {
        let hierarchies = container.cgroup.hierarchies().iter();
        hierarchies
            .filter(move |hierarchy| hierarchy.version == version && hierarchy.depth > 0)
            .max_by_key(|hierarchy| hierarchy.depth)
    };
    of_version(Version::V1).or_else(|| of_version(Version::V2))
}

fn push_children(
    dir: &OwnedFd,
    cgroup: &str,
    most: usize,
    pending: &mut Vec<String>,
) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match openat(dir, cgroup, flags, Mode::empty()).and_then(Dir::new) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
        Err(errno) => return Err(Error::io(cgroup, errno)),
    };
    for entry in dir {
        let Ok(entry) = entry else {
            return Ok(());
        };
        // The rest of a directory with very many is not even read.
        if pending.len() >= most {
            return Ok(());
        }
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory
            && name != b"."
            && name != b".."
            && let Ok(name) = std::str::from_utf8(name)
        {
            pending.push(format!("{cgroup}/{name}"));
        }
    }
    Ok(())
}

/// Counts one thread. /proc/\<tid> can be opened for every thread, although /proc lists processes only. Its stat is not
/// read: that adds up the times of all threads of the process, so a count would take the square of their number.
fn count(host: &Host, tid: u32, pid_level: u32, threads: &mut Threads) -> Result<(), Error> {
    let text = match host.read_optional(&format!("/proc/{tid}/status")) {
        Ok(Some(text)) => text,
        // The thread has ended. A read returns ESRCH then.
        Ok(None)
        | Err(Error::Io {
            errno: Errno::SRCH, ..
        }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let (state, pid) = parse_status(&text, pid_level);
    threads.total = threads.total.saturating_add(1);
    match state {
        Some(b'R') => threads.running = threads.running.saturating_add(1),
        Some(b'D') => threads.uninterruptible = threads.uninterruptible.saturating_add(1),
        _ => {}
    }
    threads.last_pid = threads.last_pid.max(pid.unwrap_or(0));
    Ok(())
}

/// Parses the state, and the pid in the namespace of this level.
fn parse_status(status: &[u8], level: u32) -> (Option<u8>, Option<u32>) {
    let field = |key: &[u8], index: usize| {
        let rest = lines(status).find_map(|line| line.strip_prefix(key))?;
        fields(rest).nth(index)
    };
    let state = field(b"State:", 0).and_then(|state| state.first().copied());
    let pid = field(b"NSpid:", level as usize).and_then(parse_u64);
    (state, pid.and_then(|pid| u32::try_from(pid).ok()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_part_of_the_threads_stands_for_all() {
        assert_eq!(scale(3, 100_000, 4096), 73);
        assert_eq!(scale(1, 10, 4), 3);
        assert_eq!(scale(0, 10, 0), 0);
        assert_eq!(scale(u32::MAX, u32::MAX, 1), u32::MAX);
    }

    #[test]
    fn the_pid_is_that_of_the_containers_namespace() {
        let status = b"Name:\tsh\nState:\tR (running)\nPid:\t4711\nNSpid:\t4711\t23\t1\n";
        assert_eq!(parse_status(status, 0), (Some(b'R'), Some(4711)));
        assert_eq!(parse_status(status, 1), (Some(b'R'), Some(23)));
        assert_eq!(parse_status(status, 2), (Some(b'R'), Some(1)));
        assert_eq!(parse_status(status, 3), (Some(b'R'), None));
    }

    proptest! {
        #[test]
        fn a_part_is_never_more_than_all(count: u32, total: u32, of: u32) {
            prop_assert!(scale(count, total, of) <= total);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, level: u32) {
            let _ = parse_status(&bytes, level);
        }
    }
}
