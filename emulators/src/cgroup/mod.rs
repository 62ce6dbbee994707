//! The container's cgroup, with one directory descriptor per hierarchy. A host can have hierarchies of v1 and v2.
//!
//! The files of ancestors are opened as "../memory.max" from that one descriptor. So a container needs only a few
//! descriptors, however deep its cgroup is.

use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use rustix::io::Errno;

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

/// The version of a hierarchy's interface.
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
    /// The v1 name of v2's io controller. A lookup of either finds the other.
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
    /// Returns the kernel's name of the controller.
    pub fn as_str(self) -> &'static str {
        NAMES
            .iter()
            .find(|(controller, _)| *controller == self)
            .map_or("", |(_, name)| name)
    }
}

/// The error for a controller that no view uses.
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
    /// The version of its interface.
    pub version: Version,
    /// The controllers that are attached to it.
    pub controllers: Vec<Controller>,
    /// The container's cgroup, opened through a mount of the whole hierarchy.
    pub dir: OwnedFd,
    /// The number of components of the cgroup's path; the root cgroup has 0.
    pub depth: u32,
    /// The cached descriptors and limits of this hierarchy.
    pub cache: HierarchyCache,
}

impl Hierarchy {
    /// Returns the levels of the cgroup and its ancestors, nearest first: a level is the number of "../". The root is
    /// left out, because it has no limits, and its figures are the host's.
    pub(crate) fn levels(&self) -> std::ops::Range<u32> {
        0..self.depth
    }

    /// Returns the name of a file of an ancestor, relative to [`Hierarchy::dir`].
    pub(crate) fn name(level: u32, file: &str) -> String {
        let mut name = "../".repeat(level as usize);
        name.push_str(file);
        name
    }

    /// Reads a file of the cgroup or an ancestor. Returns `None` if there is no such file, for instance because the
    /// controller is not enabled there. It is an error if the cgroup itself was removed.
    pub(crate) fn read(&self, level: u32, file: &str) -> Result<Option<Text>, Error> {
        let open = || {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let name = Hierarchy::name(level, file);
            openat(&self.dir, name.as_str(), flags, Mode::empty())
        };
        match self.cache.read(level, file, open, pread_piece) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::NOENT) => {
                self.check_alive(level, file)?;
                Ok(None)
            }
            Err(errno) => Err(Error::io(&Hierarchy::name(level, file), errno)),
        }
    }

    /// Returns the result of `parse` for one of the [`limit_files`], or for a file that changes with them.
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

    /// Reads a file of the nearest cgroup below the root that has it. If a controller has no cgroup with the
    /// container's path, the nearest ancestor is used.
    pub(crate) fn read_nearest(&self, file: &str) -> Result<Option<(u32, Text)>, Error> {
        for level in self.levels() {
            if let Some(text) = self.read(level, file)? {
                return Ok(Some((level, text)));
            }
        }
        Ok(None)
    }

    /// Checks that the cgroup was not removed. All files of a removed cgroup are missing, so it would look like one
    /// without limits, and its views would show the host.
    fn check_alive(&self, level: u32, file: &str) -> Result<(), Error> {
        statat(&self.dir, "cgroup.procs", AtFlags::empty())
            .map(drop)
            .map_err(|_| Error::Removed {
                path: Hierarchy::name(level, file),
            })
    }
}

/// The container's cgroup in each hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    hierarchies: Vec<Hierarchy>,
}

impl Cgroup {
    /// Returns a cgroup with these hierarchies, one per mount.
    pub fn new(hierarchies: Vec<Hierarchy>) -> Cgroup {
        Cgroup { hierarchies }
    }

    /// Keeps the descriptors of its files in `cache` from now on.
    pub fn cache_descriptors_in(&mut self, cache: &Arc<DescriptorCache>) {
        for hierarchy in &mut self.hierarchies {
            hierarchy.cache.cache_descriptors_in(cache);
        }
    }

    /// Caches limits from now on. The caller calls [`Cgroup::invalidate_limits`] when one was written.
    pub fn cache_limits(&self) {
        self.hierarchies
            .iter()
            .for_each(|hierarchy| hierarchy.cache.limits.enable());
    }

    /// Reports that one of the [`limit_files`] was written, or may have been.
    pub fn invalidate_limits(&self) {
        self.hierarchies
            .iter()
            .for_each(|hierarchy| hierarchy.cache.limits.invalidate());
    }

    /// Returns all hierarchies, in the order in which they were given.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// Returns the hierarchy that a controller is attached to, or else v2. There the controller may be enabled for an
    /// ancestor only, whose limits hold too.
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
            // v2 counts CPU time in cpu.stat, with and without controllers. Beside v1 that can be the time of the
            // engine, if only the engine has a v2 cgroup.
            let is_v1 = |hierarchy: &Hierarchy| hierarchy.version == Version::V1;
            self.unified().filter(|_| {
                controller != Controller::Cpuacct || !self.hierarchies.iter().any(is_v1)
            })
        })
    }

    /// Returns the v2 hierarchy.
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
