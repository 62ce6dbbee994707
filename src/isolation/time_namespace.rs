//! The time namespace of an isolated container, in which its clocks begin with it.
//!
//! The runtime moves the container into it, if it can. A runtime that is executed inside of one instead takes a container
//! that runs for one that has ended, as soon as it is called outside: it compares start times, which each time namespace
//! counts from another moment.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use super::Bundle;
use super::owned_namespace::{self, Kind};
use super::policy::{namespace_id, process_of};
use super::runtime_version::Version;
use crate::oci::annotations;
use crate::oci::isolation::Namespace;

/// The first version of each runtime that surely knows time namespaces. runc 1.1 and crun 1.8.1 refuse a container with one,
/// and so does a crun before 1.22 that was built with an old C library.
const FIRST: [(&str, [u32; 3]); 2] = [("runc", [1, 2, 0]), ("crun", [1, 22, 0])];

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

/// Returns the time namespace that a container gets: that of the container whose pid namespace or user namespace it joins, a
/// new one, or none if the container does not want one, the kernel or its runtime has none, or the engine sets the clocks.
/// `version` is the runtime's, if it is known. `proc` is where procfs is mounted.
///
/// # Errors
/// When the annotation of the container is neither true nor false.
pub(super) fn of(
    bundle: &Bundle<'_>,
    version: Option<&Version>,
    proc: &Path,
) -> Result<Option<TimeNamespace>> {
    let container = bundle.container;
    let own = namespace_id(&proc.join("self/ns/time"));
    // Docker wants a new one in every container since 29.5, and leaves its clocks as they are.
    let is_set = container.has_time_offsets
        || container
            .namespace("time")
            .is_some_and(|time| time.joined_path().is_some());
    if own.is_none() || is_set || !annotations::time_namespace(&container.annotations)? {
        return Ok(None);
    }
    let pid_namespace = container.namespace("pid");
    let process = match pid_namespace.and_then(Namespace::joined_path) {
        None => bundle.joined.map(|pid| proc.join(pid.to_string())),
        // Of a pid namespace that is mounted somewhere nobody knows whose it is.
        Some(path) => match process_of(path, proc) {
            Some(process) => Some(process),
            None => return Ok(None),
        },
    };
    let there = process.map(|process| process.join("ns/time"));
    if there
        .as_deref()
        .is_some_and(|path| namespace_id(path) == own)
        || !version.is_some_and(|version| version.is_one_of(&FIRST))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::oci::isolation::Container;

    /// A procfs with this process and process 7.
    fn scene() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (process, time) in [("self", "time:[1]"), ("7", "time:[2]"), ("8", "time:[1]")] {
            let namespaces = dir.path().join(process).join("ns");
            fs::create_dir_all(&namespaces).unwrap();
            symlink(time, namespaces.join("time")).unwrap();
        }
        dir
    }

    fn container(pid: Option<&str>, annotation: Option<&str>) -> Container {
        let annotations =
            annotation.map(|value| (annotations::TIME_NAMESPACE.into(), value.into()));
        Container {
            namespaces: vec![namespace("pid", pid)],
            annotations: annotations.into_iter().collect(),
            ..Container::default()
        }
    }

    fn namespace(kind: &str, path: Option<&str>) -> Namespace {
        Namespace {
            kind: kind.to_owned(),
            path: path.map(Into::into),
        }
    }

    /// Decides about a container that joins the user namespace of `joined`.
    fn decide(
        dir: &Path,
        version: &str,
        container: &Container,
        joined: Option<i32>,
    ) -> Result<Option<TimeNamespace>> {
        let bundle = Bundle {
            dir,
            config: dir,
            text: "",
            container,
            runtime: dir,
            runtime_dir: dir,
            key: "key",
            joined,
            locks: None,
        };
        of(&bundle, Version::parse(version).as_ref(), dir)
    }

    #[test]
    fn a_container_has_the_time_namespace_of_the_one_that_it_joins_or_a_new_one() {
        let dir = scene();
        let version = "runc version 1.3.6";
        let of = |container: &Container, joined| decide(dir.path(), version, container, joined);
        let own = container(None, None);
        assert_eq!(of(&own, None).unwrap(), Some(TimeNamespace::New));
        // As Docker asks for one.
        let mut asking = own.clone();
        asking.namespaces.push(namespace("time", None));
        assert_eq!(of(&asking, None).unwrap(), Some(TimeNamespace::New));
        let sevens = Some(TimeNamespace::Joined(dir.path().join("7/ns/time")));
        let joining = container(Some("/proc/7/ns/pid"), None);
        assert_eq!(of(&joining, None).unwrap(), sevens);
        assert_eq!(of(&own, Some(7)).unwrap(), sevens);
        assert_eq!(of(&own, Some(8)).unwrap(), None);
        let mut with_path = own.clone();
        with_path
            .namespaces
            .push(namespace("time", Some("/run/time")));
        let mut with_offsets = asking;
        with_offsets.has_time_offsets = true;
        for none in [
            container(Some("/proc/8/ns/pid"), None),
            container(Some("/run/pid"), None),
            container(None, Some("false")),
            with_path,
            with_offsets,
        ] {
            assert_eq!(of(&none, None).unwrap(), None);
        }
        assert!(of(&container(None, Some("host")), None).is_err());
    }

    #[test]
    fn a_runtime_that_cannot_or_does_not_say_so_makes_none() {
        let dir = scene();
        for version in ["runc version 1.1.5", "crun version 1.21", "hello", ""] {
            let none = decide(dir.path(), version, &container(None, None), None);
            assert_eq!(none.unwrap(), None, "{version}");
        }
    }
}
