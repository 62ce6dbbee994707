//! The time namespace of an isolated container, in which its clocks begin with it.
//!
//! The runtime moves the container into it, if it can. A runtime that is executed inside of one instead takes a container
//! that runs for one that has ended, as soon as it is called outside: it compares start times, which each time namespace
//! counts from another moment.

use std::fs;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eci_fs_protocol::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use super::owned_namespace::{self, Kind};
use super::policy::namespace_id;
use crate::oci::annotations;
use crate::oci::isolation::Container;

/// The directory of the runtime directory that has what is known about runtimes.
const KNOWN: &str = "runtimes";

/// The first version of each runtime that knows time namespaces. runc 1.1 and crun 1.8.1 refuse a container with one.
const FIRST: [(&str, [u32; 3]); 2] = [("runc", [1, 2, 0]), ("crun", [1, 8, 4])];

/// The time that a runtime has to say its version.
const LIMIT: Duration = Duration::from_secs(2);

/// The most bytes that are read of what it says.
const MOST: usize = 4096;

/// The time namespace of a container.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TimeNamespace {
    /// One of its own.
    New,
    /// The one at this path.
    Joined(PathBuf),
}

impl TimeNamespace {
    /// Returns the namespace. A new one belongs to `user_namespace`, and its clocks begin now.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn get(self, user_namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
        match self {
            Self::New => owned_namespace::make(user_namespace, Kind::Time, |pid| {
                let path = format!("/proc/{pid}/timens_offsets");
                fs::write(&path, offsets_to_zero()).map_err(|e| Error::io("write", path, e))
            }),
            Self::Joined(path) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                rustix::fs::open(&path, flags, Mode::empty())
                    .map_err(|e| Error::io("open", path, e))
            }
        }
    }
}

/// Returns the time namespace that a container gets: that of the container whose pid namespace it joins, a new one, or none
/// if the container does not want one, the kernel or `runtime` has none, or the engine makes it. `runtime_dir` remembers
/// what a runtime can. `proc` is where procfs is mounted.
///
/// # Errors
/// When the annotation of the container is neither true nor false.
pub(super) fn of(
    container: &Container,
    runtime: &Path,
    runtime_dir: &Path,
    proc: &Path,
) -> Result<Option<TimeNamespace>> {
    let own = namespace_id(&proc.join("self/ns/time"));
    if own.is_none()
        || container.namespace("time").is_some()
        || !annotations::time_namespace(&container.annotations)?
    {
        return Ok(None);
    }
    let joined = container
        .namespace("pid")
        .and_then(|namespace| namespace.path.as_deref());
    let joined = joined.filter(|path| !path.as_os_str().is_empty());
    // Of a pid namespace that is mounted somewhere nobody knows whose it is.
    let there = match joined {
        None => None,
        Some(path) => match super::policy::process_of(path, proc) {
            Some(process) => Some(process.join("ns/time")),
            None => return Ok(None),
        },
    };
    if there
        .as_deref()
        .is_some_and(|path| namespace_id(path) == own)
        || !is_able(runtime, runtime_dir)
    {
        return Ok(None);
    }
    Ok(Some(
        there.map_or(TimeNamespace::New, TimeNamespace::Joined),
    ))
}

/// Returns the text of `/proc/<pid>/timens_offsets` with which all clocks are at zero now.
pub fn offsets_to_zero() -> String {
    to_zero(ClockId::Monotonic, "monotonic") + &to_zero(ClockId::Boottime, "boottime")
}

fn to_zero(clock: ClockId, name: &str) -> String {
    let now = clock_gettime(clock);
    // The kernel adds seconds and nanoseconds, and refuses negative nanoseconds.
    let (seconds, nanoseconds) = match now.tv_nsec {
        0 => (now.tv_sec, 0),
        nanoseconds => (now.tv_sec + 1, 1_000_000_000 - nanoseconds),
    };
    format!("{name} -{seconds} {nanoseconds}\n")
}

/// Returns whether a runtime knows time namespaces. It is asked once.
fn is_able(runtime: &Path, runtime_dir: &Path) -> bool {
    let Ok(stat) = fs::metadata(runtime) else {
        return false;
    };
    let (seconds, nanoseconds) = (stat.ctime(), stat.ctime_nsec());
    // Whoever replaces the program changes one of these.
    let identity = format!(
        "{}-{}-{seconds}-{nanoseconds}-{}",
        stat.dev(),
        stat.ino(),
        stat.len()
    );
    let known = runtime_dir.join(KNOWN).join(identity);
    if let Ok(version) = fs::read_to_string(&known) {
        return is_new_enough(&version);
    }
    let version = match version(runtime) {
        Ok(version) => version,
        Err(error) => {
            tracing::debug!(%error, "a runtime does not tell its version");
            return false;
        }
    };
    // Where it cannot be written the runtime is asked again.
    let _ = fs::create_dir(runtime_dir.join(KNOWN));
    let new = known.with_extension(std::process::id().to_string());
    let _ = fs::write(&new, &version).and_then(|()| fs::rename(&new, &known));
    is_new_enough(&version)
}

/// Returns what a runtime says of its version.
fn version(runtime: &Path) -> Result<String> {
    let trouble = |e: std::io::Error| Error::io("ask the version of", runtime, e);
    let mut child = Command::new(runtime)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(trouble)?;
    let said = hear(&mut child).map_err(trouble);
    // It may have ended.
    let _ = child.kill();
    let _ = child.wait();
    said
}

fn hear(child: &mut Child) -> std::io::Result<String> {
    let Some(mut pipe) = child.stdout.take() else {
        return Ok(String::new());
    };
    let limit = Timespec::try_from(LIMIT).map_err(std::io::Error::other)?;
    // A runtime writes it at once.
    let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
    if poll(&mut fds, Some(&limit))? == 0 {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    let mut bytes = [0; MOST];
    let count = pipe.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

/// Returns whether a text such as "runc version 1.3.6" names a version that knows time namespaces.
fn is_new_enough(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let (Some(name), Some("version"), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return false;
    };
    let Some((_, first)) = FIRST.iter().find(|(known, _)| *known == name) else {
        return false;
    };
    let number = |part: &str| {
        let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    };
    let numbers: Option<Vec<u32>> = version.split('.').take(3).map(number).collect();
    numbers.is_some_and(|numbers| numbers.as_slice() >= first.as_slice())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::oci::isolation::Namespace;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (text, able) in [
            (
                "runc version 1.1.5+ds1\ncommit: x\nspec: 1.0.2-dev\n",
                false,
            ),
            ("runc version 1.2.0-rc.1\n", true),
            ("runc version 1.3.6\n", true),
            ("runc version 1.10.0\n", true),
            ("crun version 1.8.1\ncommit: x\n", false),
            ("crun version 1.8.4\n", true),
            ("crun version 1.28\n", true),
            ("crun version 1.8\n", false),
            ("youki version 0.7.0\n", false),
            ("runc 1.3\n", false),
            ("runc version x\n", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(text), able, "{text}");
        }
    }

    /// A procfs with this process and process 7, a runtime directory, and a runtime that says this version.
    fn scene(version: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for (process, time) in [("self", "time:[1]"), ("7", "time:[2]"), ("8", "time:[1]")] {
            let namespaces = dir.path().join(process).join("ns");
            fs::create_dir_all(&namespaces).unwrap();
            symlink(time, namespaces.join("time")).unwrap();
        }
        let runtime = dir.path().join("runtime");
        fs::write(&runtime, format!("#!/bin/sh\necho {version}\n")).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, runtime)
    }

    fn container(pid: Option<&str>, annotation: Option<&str>) -> Container {
        let annotations =
            annotation.map(|value| (annotations::TIME_NAMESPACE.into(), value.into()));
        Container {
            namespaces: vec![Namespace {
                kind: "pid".to_owned(),
                path: pid.map(Into::into),
            }],
            annotations: annotations.into_iter().collect(),
            ..Container::default()
        }
    }

    #[test]
    fn a_container_has_the_time_namespace_of_its_pid_namespace_or_a_new_one() {
        let (dir, runtime) = scene("runc version 1.3.6");
        let of = |container: &Container| of(container, &runtime, dir.path(), dir.path());
        let new = of(&container(None, None)).unwrap();
        assert_eq!(new, Some(TimeNamespace::New));
        assert_eq!(
            of(&container(Some("/proc/7/ns/pid"), None)).unwrap(),
            Some(TimeNamespace::Joined(dir.path().join("7/ns/time")))
        );
        for none in [
            container(Some("/proc/8/ns/pid"), None),
            container(Some("/run/pid"), None),
            container(None, Some("false")),
        ] {
            assert_eq!(of(&none).unwrap(), None);
        }
        assert!(of(&container(None, Some("host"))).is_err());
        // What it is remembered by is its file.
        assert_eq!(fs::read_dir(dir.path().join(KNOWN)).unwrap().count(), 1);
    }

    #[test]
    fn a_runtime_that_cannot_or_does_not_say_so_makes_none() {
        for version in ["runc version 1.1.5", "hello", ""] {
            let (dir, runtime) = scene(version);
            let none = of(&container(None, None), &runtime, dir.path(), dir.path());
            assert_eq!(none.unwrap(), None, "{version}");
        }
        let (dir, _) = scene("");
        let none = of(
            &container(None, None),
            Path::new("/nothing"),
            dir.path(),
            dir.path(),
        );
        assert_eq!(none.unwrap(), None);
    }
}
