//! The container's cgroup: one directory descriptor per hierarchy, v1 and v2 side by side.
//!
//! Ancestors are reached as "../memory.max" from that one descriptor, so that a container costs a
//! handful of descriptors however deep it lies.

use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstatat};

use crate::descriptor_cache::{DescriptorCache, HierarchyCache};
use crate::host::file::pread_piece;
use crate::{Error, Text};

pub(crate) mod cpu;
pub(crate) mod cpuset;
pub(crate) mod io;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod pids;
pub(crate) mod v1;
pub(crate) mod v2;

pub use limits::{Limit, LimitFile, limit_files};

/// Which interface a hierarchy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Documentation/admin-guide/cgroup-v1.
    V1,
    /// Documentation/admin-guide/cgroup-v2.rst.
    V2,
}

/// A cgroup controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Pids,
    /// The v1 name of what v2 calls io; a lookup of either finds the other.
    Blkio,
    Io,
    Hugetlb,
    Devices,
    Freezer,
}

const NAMES: &[(Controller, &str)] = &[
    (Controller::Cpu, "cpu"),
    (Controller::Cpuacct, "cpuacct"),
    (Controller::Cpuset, "cpuset"),
    (Controller::Memory, "memory"),
    (Controller::Pids, "pids"),
    (Controller::Blkio, "blkio"),
    (Controller::Io, "io"),
    (Controller::Hugetlb, "hugetlb"),
    (Controller::Devices, "devices"),
    (Controller::Freezer, "freezer"),
];

impl Controller {
    /// The kernel's name.
    pub fn as_str(self) -> &'static str {
        NAMES
            .iter()
            .find(|(controller, _)| *controller == self)
            .map_or("", |(_, name)| name)
    }
}

/// A controller that no view uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown controller")]
pub struct UnknownController;

impl FromStr for Controller {
    type Err = UnknownController;

    fn from_str(name: &str) -> Result<Controller, UnknownController> {
        NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(controller, _)| *controller)
            .ok_or(UnknownController)
    }
}

/// One hierarchy and the container's cgroup in it.
#[derive(Debug)]
pub struct Hierarchy {
    /// The interface of its files.
    pub version: Version,
    /// The controllers that are attached to it.
    pub controllers: Vec<Controller>,
    /// The container's cgroup, opened through a mount of the whole hierarchy.
    pub dir: OwnedFd,
    /// Components of the cgroup's path; the root cgroup has 0.
    pub depth: u32,
    /// Its open files.
    pub cache: HierarchyCache,
}

impl Hierarchy {
    /// The cgroup and its ancestors without the root, nearest first, as numbers of "../".
    /// The root is left out: it holds no limits, and its figures are the machine's.
    pub(crate) fn levels(&self) -> std::ops::Range<u32> {
        0..self.depth
    }

    /// The name of a file of an ancestor, relative to [`Hierarchy::dir`].
    pub(crate) fn name(level: u32, file: &str) -> String {
        let mut name = "../".repeat(level as usize);
        name.push_str(file);
        name
    }

    /// A file of the cgroup or an ancestor. `None` if there is none, for instance because the
    /// controller is not enabled there; an error if the cgroup itself is gone.
    pub(crate) fn read(&self, level: u32, file: &str) -> Result<Option<Text>, Error> {
        let open = || {
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
            let name = Hierarchy::name(level, file);
            openat(&self.dir, name.as_str(), flags, Mode::empty())
        };
        match self.cache.read(level, file, open, pread_piece) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::ENOENT) => {
                self.check_alive(level, file)?;
                Ok(None)
            }
            Err(errno) => Err(Error::io(&Hierarchy::name(level, file), errno)),
        }
    }

    /// What `parse` makes of one of the [`limit_files`], or of one that changes with them.
    pub(crate) fn limit<T>(
        &self,
        level: u32,
        file: &'static str,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let read = || self.read(level, file);
        match self.cache.limits.limit(level, file, read, parse)? {
            None => Ok(None),
            Some(Some(limit)) => Ok(Some(limit)),
            Some(None) => Err(Error::malformed(
                &Hierarchy::name(level, file),
                "not what such a file holds",
            )),
        }
    }

    /// A file of the nearest cgroup that has it, below the root: where a controller has no cgroup
    /// of the container's path, its nearest ancestor stands in.
    pub(crate) fn read_nearest(&self, file: &str) -> Result<Option<(u32, Text)>, Error> {
        for level in self.levels() {
            if let Some(text) = self.read(level, file)? {
                return Ok(Some((level, text)));
            }
        }
        Ok(None)
    }

    /// Without this, a removed cgroup (every file ENOENT) would look like one without limits, and
    /// show the machine.
    fn check_alive(&self, level: u32, file: &str) -> Result<(), Error> {
        fstatat(&self.dir, "cgroup.procs", nix::fcntl::AtFlags::empty())
            .map(drop)
            .map_err(|_| Error::Removed {
                path: Hierarchy::name(level, file),
            })
    }
}

/// The container's cgroup in every hierarchy that matters.
#[derive(Debug)]
pub struct Cgroup {
    hierarchies: Vec<Hierarchy>,
}

impl Cgroup {
    /// A cgroup with these hierarchies, one per mount.
    pub fn new(hierarchies: Vec<Hierarchy>) -> Cgroup {
        Cgroup { hierarchies }
    }

    /// Has its files kept open in `kept` from now on.
    pub fn cache_descriptors_in(&mut self, cache: &Arc<DescriptorCache>) {
        for hierarchy in &mut self.hierarchies {
            hierarchy.cache.cache_descriptors_in(cache);
        }
    }

    /// From now on limits are read once, and again when [`Cgroup::invalidate_limits`] was called.
    pub fn cache_limits(&self) {
        self.hierarchies
            .iter()
            .for_each(|hierarchy| hierarchy.cache.limits.enable());
    }

    /// One of the [`limit_files`] was written, or may have been.
    pub fn invalidate_limits(&self) {
        self.hierarchies
            .iter()
            .for_each(|hierarchy| hierarchy.cache.limits.invalidate());
    }

    /// All hierarchies, in the order given.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The hierarchy that a controller is attached to, or v2 where none is known to be: a controller
    /// that is not enabled for the container's cgroup may still be for an ancestor, whose limits hold.
    pub(crate) fn of(&self, controller: Controller) -> Option<&Hierarchy> {
        let has = |wanted: Controller| {
            self.hierarchies
                .iter()
                .find(|hierarchy| hierarchy.controllers.contains(&wanted))
        };
        let other_name = match controller {
            Controller::Blkio => Some(Controller::Io),
            Controller::Io => Some(Controller::Blkio),
            _ => None,
        };
        has(controller).or_else(|| has(other_name?)).or_else(|| {
            // v2 counts CPU time in cpu.stat, with and without controllers. Beside v1 that would be
            // the time of the engine, which may be all that has a v2 cgroup.
            let is_v1 = |hierarchy: &Hierarchy| hierarchy.version == Version::V1;
            self.unified().filter(|_| {
                controller != Controller::Cpuacct || !self.hierarchies.iter().any(is_v1)
            })
        })
    }

    /// The v2 hierarchy.
    pub(crate) fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.version == Version::V2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_named_as_the_kernel_names_them() {
        for (controller, name) in NAMES {
            assert_eq!(name.parse(), Ok(*controller));
            assert_eq!(controller.as_str(), *name);
        }
        assert_eq!("perf_event".parse::<Controller>(), Err(UnknownController));
    }

    #[test]
    fn ancestors_are_named_relative_to_the_cgroup() {
        assert_eq!(Hierarchy::name(0, "memory.max"), "memory.max");
        assert_eq!(Hierarchy::name(2, "memory.max"), "../../memory.max");
    }
}
