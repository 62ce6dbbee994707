//! The threads of a container, from the lists of its cgroup and the host's /proc.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::cgroup::{Hierarchy, Version};
use crate::host::file::read_at;
use crate::text::{fields, lines, parse_u64};
use crate::{Container, Error, Host, Threads};

/// The most cgroups that are visited. A container can make cgroups below its own, and must not keep the sampler busy.
const MAX_CGROUPS: usize = 4096;

/// Counts the threads of the container's cgroup and all cgroups below it. Threads and cgroups that end meanwhile are
/// not counted. In a root cgroup nothing is counted, because its threads are the host's.
pub fn read_threads(host: &Host, container: &Container) -> Result<Threads, Error> {
    let mut threads = Threads::default();
    let Some(hierarchy) = hierarchy(container) else {
        return Ok(threads);
    };
    let list = match hierarchy.version {
        Version::V1 => "tasks",
        Version::V2 => "cgroup.threads",
    };
    let mut pending = vec![String::from(".")];
    let mut visited = 0usize;
    while let Some(cgroup) = pending.pop() {
        let name = format!("{cgroup}/{list}");
        let tids = match read_at(&hierarchy.dir, &name) {
            // A recorded cgroup has no list of threads.
            Ok(None) => read_at(&hierarchy.dir, &format!("{cgroup}/cgroup.procs")),
            tids => tids,
        };
        match tids {
            Ok(Some(tids)) => {
                for tid in fields(&tids).filter_map(parse_u64) {
                    count(host, tid, container.identity.pid_level, &mut threads)?;
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
        if visited < MAX_CGROUPS {
            push_children(&hierarchy.dir, &cgroup, &mut pending)?;
        }
    }
    Ok(threads)
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

fn push_children(dir: &OwnedFd, cgroup: &str, pending: &mut Vec<String>) -> Result<(), Error> {
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
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory
            && name != b"."
            && name != b".."
            && pending.len() < MAX_CGROUPS
            && let Ok(name) = std::str::from_utf8(name)
        {
            pending.push(format!("{cgroup}/{name}"));
        }
    }
    Ok(())
}

/// Counts one thread. /proc/\<tid> can be opened for every thread, although /proc lists processes only.
fn count(host: &Host, tid: u64, pid_level: u32, threads: &mut Threads) -> Result<(), Error> {
    // stat is cheaper to read, but only status has the pid in an inner namespace.
    let file = if pid_level == 0 { "stat" } else { "status" };
    let path = format!("/proc/{tid}/{file}");
    let text = match host.read_optional(&path) {
        Ok(Some(text)) => text,
        // The thread has ended. A read returns ESRCH then.
        Ok(None)
        | Err(Error::Io {
            errno: Errno::SRCH, ..
        }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let (state, pid) = match pid_level {
        0 => (parse_stat_state(&text), u32::try_from(tid).ok()),
        level => parse_status(&text, level),
    };
    threads.total = threads.total.saturating_add(1);
    match state {
        Some(b'R') => threads.running = threads.running.saturating_add(1),
        Some(b'D') => threads.uninterruptible = threads.uninterruptible.saturating_add(1),
        _ => {}
    }
    threads.last_pid = threads.last_pid.max(pid.unwrap_or(0));
    Ok(())
}

/// Parses the state: the first field after the last parenthesis, because the name may contain parentheses.
fn parse_stat_state(stat: &[u8]) -> Option<u8> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    fields(stat.get(end.checked_add(1)?..)?)
        .next()?
        .first()
        .copied()
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
    fn a_name_with_parentheses_does_not_hide_the_state() {
        assert_eq!(parse_stat_state(b"7 (a) S (b) R 1 7 7 0\n"), Some(b'R'));
        assert_eq!(parse_stat_state(b"7 (a) D 1"), Some(b'D'));
        assert_eq!(parse_stat_state(b"garbage"), None);
    }

    #[test]
    fn the_pid_is_that_of_the_containers_namespace() {
        let status = b"Name:\tsh\nState:\tR (running)\nPid:\t4711\nNSpid:\t4711\t23\t1\n";
        assert_eq!(parse_status(status, 1), (Some(b'R'), Some(23)));
        assert_eq!(parse_status(status, 2), (Some(b'R'), Some(1)));
        assert_eq!(parse_status(status, 3), (Some(b'R'), None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, level: u32) {
            let _ = parse_stat_state(&bytes);
            let _ = parse_status(&bytes, level);
        }
    }
}
