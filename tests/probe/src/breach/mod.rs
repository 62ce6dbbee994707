//! Attacks on the mounts of a container, by a process with all capabilities in it.
//!
//! `breach NAME` makes one attempt, and answers with what it did and whether it got anything: a file of the kernel where a
//! graft is, or a write where nothing can be written. An attempt may take the container apart, so each has one of its own.
//! The container has a graft on /proc/meminfo and a read-only volume at /vol.

mod calls;
mod grafts;
mod own;
mod procfs;
mod read_only;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;
use serde_json::json;

use crate::answer::{Answer, name, wrong};

const MEMINFO: &str = "/proc/meminfo";

/// File systems of the kernel, by their numbers (statfs(2)): procfs and sysfs.
const KERNEL: [u64; 2] = [0x9fa0, 0x6265_6572];

/// An attempt, which returns true if it has got what it wanted.
type Attempt = fn(&mut Try) -> Result<bool, Errno>;

/// The steps of an attempt, and the figure that it compares with.
struct Try {
    said: Vec<String>,
    /// The total of memory that the graft shows.
    graft: String,
}

impl Try {
    fn new() -> io::Result<Self> {
        let file = File::open(MEMINFO)?;
        if is_kernels(&file) {
            return Err(wrong("there is no graft on /proc/meminfo"));
        }
        Ok(Self {
            said: Vec::new(),
            graft: total(file)?,
        })
    }

    /// Notes the result of a step. A step that fails does not end the attempt.
    fn step<T>(&mut self, what: &str, result: Result<T, Errno>) -> Option<T> {
        let said = match &result {
            Ok(_) => format!("{what}: done"),
            Err(errno) => format!("{what}: {}", name(&(*errno).into())),
        };
        self.said.push(said);
        result.ok()
    }

    /// Returns true if the file at a path is the kernel's /proc/meminfo.
    fn shows(&mut self, path: &str) -> bool {
        self.shows_at(CWD, path)
    }

    /// Returns true if the file at a path below a directory is the kernel's /proc/meminfo.
    fn shows_at(&mut self, dir: impl AsFd, path: &str) -> bool {
        let opened = openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let Some(opened) = self.step(&format!("open {path}"), opened) else {
            return false;
        };
        self.is_host(opened, path)
    }

    fn is_host(&mut self, opened: OwnedFd, path: &str) -> bool {
        let file = File::from(opened);
        if is_kernels(&file) {
            self.said.push(format!("{path} is the kernel's"));
            return true;
        }
        let total = total(file).unwrap_or_default();
        self.said.push(format!("{path} says {total:?}"));
        !total.is_empty() && total != self.graft
    }

    /// Returns true if the file at a path is of procfs or sysfs.
    fn is_of_the_kernel(&mut self, path: &str) -> bool {
        let opened = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let opened = self.step(&format!("open {path}"), opened);
        opened.is_some_and(|opened| is_kernels(&File::from(opened)))
    }

    /// Returns true if a file can be made or written at a path.
    fn writes(&mut self, path: &str) -> bool {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let opened = openat(CWD, path, flags, mode);
        self.step(&format!("write {path}"), opened).is_some()
    }

    /// Does the rest in a child, which is the first process of a new pid namespace if there is one for children.
    fn in_child(&mut self, rest: impl FnOnce(&mut Self) -> bool) -> Result<bool, Errno> {
        let got = calls::in_child(|| {
            let got = rest(self);
            (got, self.said.join("; "))
        })?;
        self.said.push(got.1);
        Ok(got.0)
    }
}

fn is_kernels(file: &File) -> bool {
    let stat = fstatfs(file).map(|stat| u64::try_from(stat.f_type).unwrap_or_default());
    stat.is_ok_and(|magic| KERNEL.contains(&magic))
}

/// Returns the first line of a meminfo; nothing if the file has another one.
fn total(mut file: File) -> io::Result<String> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let first = text.lines().next().unwrap_or_default();
    Ok(match first.starts_with("MemTotal:") {
        true => first.to_owned(),
        false => String::new(),
    })
}

/// All attempts, by name.
fn attempts() -> impl Iterator<Item = (&'static str, Attempt)> {
    let all = [grafts::ATTEMPTS, read_only::ATTEMPTS, procfs::ATTEMPTS];
    all.into_iter().flatten().copied()
}

/// Answers `breaches`: the names of all attempts.
pub(crate) fn names() -> Answer {
    Ok(json!(attempts().map(|(name, _)| name).collect::<Vec<_>>()))
}

/// Answers `breach NAME`: {"breach": whether it got anything, "said": what it did}.
pub(crate) fn breach(wanted: &str) -> Answer {
    let attempt = attempts().find(|(name, _)| *name == wanted);
    let (_, attempt) = attempt.ok_or_else(|| wrong(format!("no such attempt: {wanted}")))?;
    let mut state = Try::new()?;
    let got = match attempt(&mut state) {
        Ok(got) => got,
        Err(errno) => {
            state.said.push(name(&errno.into()));
            false
        }
    };
    Ok(json!({ "breach": got, "said": state.said.join("; ") }))
}

/// Answers `own-mounts`: does with mounts of its own what a container may do, and fails at the first thing that it may not.
pub(crate) fn own_mounts() -> Answer {
    own::all()
}
