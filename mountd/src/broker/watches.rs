//! Watches of limits. inotify takes any path, which no filter of system calls can check, so the daemon adds the watches to an
//! inotify descriptor that the server hands over. It watches files of cgroups alone.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{WatchFlags, add_watch};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstatfs, openat2};
use rustix::io::Errno;

use eci_fs_protocol::link::WatchedFile;

/// The kinds of file systems whose files are watched: `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` (linux/magic.h).
const CGROUPS: [u64; 2] = [0x0027_e0eb, 0x6367_7270];

/// The most files of one request, and the most directories above that one of them may be in.
const MOST_FILES: usize = 4096;
const MOST_LEVELS: usize = 256;

/// Has the first of `fds`, an inotify descriptor, report writes to files below or above the other descriptors. Returns the number
/// of each watch; none for a file that is not there.
///
/// # Errors
/// EINVAL for what is no inotify descriptor, no directory of a cgroup or no name of a limit, and the kernel's.
pub(super) fn watch(files: &[WatchedFile], fds: &[OwnedFd]) -> Result<Vec<Option<i32>>, Errno> {
    let (inotify, dirs) = fds.split_first().ok_or(Errno::INVAL)?;
    if files.len() > MOST_FILES {
        return Err(Errno::INVAL);
    }
    for dir in dirs {
        let kind = u64::try_from(fstatfs(dir)?.f_type).unwrap_or(0);
        if !CGROUPS.contains(&kind) {
            return Err(Errno::INVAL);
        }
    }
    let watch_one = |file: &WatchedFile| {
        let index = usize::try_from(file.dir).unwrap_or(usize::MAX);
        let dir = dirs.get(index).ok_or(Errno::INVAL)?;
        watch_file(inotify.as_fd(), dir, &file.name)
    };
    files.iter().map(watch_one).collect()
}

fn watch_file(inotify: BorrowedFd<'_>, dir: &OwnedFd, name: &str) -> Result<Option<i32>, Errno> {
    if !is_limit(name) {
        return Err(Errno::INVAL);
    }
    // Nothing leads out of the mount of the cgroups.
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match openat2(dir, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    add_watch(inotify, path, WatchFlags::MODIFY).map(Some)
}

/// Returns whether a name is that of a file of a controller, in the directory or in one above.
fn is_limit(name: &str) -> bool {
    let mut above = name.split('/').rev();
    let file = above.next().unwrap_or_default();
    let is_name = file.len() <= 64
        && file.contains('.')
        && !file.starts_with("cgroup.")
        && !file.starts_with('.')
        && file
            .bytes()
            .all(|b| b.is_ascii_lowercase() || matches!(b, b'.' | b'_'));
    let mut levels = 0;
    is_name
        && above.all(|part| {
            levels += 1;
            part == ".." && levels <= MOST_LEVELS
        })
}

#[cfg(test)]
mod tests {
    use rustix::fs::inotify::{CreateFlags, init};

    use super::*;

    #[test]
    fn only_files_of_controllers_have_names_of_limits() {
        for name in ["cpu.max", "../../memory.limit_in_bytes", "../cpuset.cpus"] {
            assert!(is_limit(name), "{name}");
        }
        for name in [
            "",
            "..",
            "../..",
            "cgroup.procs",
            "tasks",
            "/cpu.max",
            "a/cpu.max",
            "../a/../cpu.max",
            "./cpu.max",
            "cpu.max/",
            "../.ssh",
            "CPU.max",
            "cpu.max\0",
        ] {
            assert!(!is_limit(name), "{name:?}");
        }
        assert!(!is_limit(&format!(
            "{}cpu.max",
            "../".repeat(MOST_LEVELS + 1)
        )));
    }

    #[test]
    fn nothing_but_cgroups_is_watched() {
        let inotify = || init(CreateFlags::CLOEXEC).unwrap();
        let open = |path| OwnedFd::from(std::fs::File::open(path).unwrap());
        let file = |dir| WatchedFile {
            dir,
            name: "cpu.max".to_owned(),
        };
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cpu.max"), "").unwrap();
        for (fds, files) in [
            (vec![], vec![]),
            (vec![inotify(), open("/proc")], vec![file(0)]),
            (vec![inotify(), open("/dev/null")], vec![file(0)]),
            (vec![inotify()], vec![file(0)]),
            (vec![inotify()], vec![file(0); MOST_FILES + 1]),
        ] {
            assert_eq!(watch(&files, &fds), Err(Errno::INVAL), "{files:?}");
        }
        let other = vec![
            inotify(),
            OwnedFd::from(std::fs::File::open(directory.path()).unwrap()),
        ];
        assert_eq!(watch(&[file(0)], &other), Err(Errno::INVAL));
    }
}
