//! The files in a directory graft that are the kernel's own of the container's network namespace.
//!
//! The daemon opens them there, and hands over a descriptor. It writes to them itself, because the kernel asks at each write who
//! writes. Nothing is kept of that: a container is told what the kernel says at that moment. Permissions are checked here,
//! because the kernel would check those of the daemon.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs_emulators::tunable::Capability;
use eci_fs_protocol::link::{Access, BrokerRequest};

use super::passthrough::{Stat, read_whole};
use super::{DirectoryGrafts, NEEDS, Place};
use crate::server::broker::BrokerClient;
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::fs::attr::Kind;
use crate::server::fs::content::Content;
use crate::server::fs::permission::{Caller, Check};
use crate::server::fs::snapshots::{Opened, Write, wanted};
use crate::server::ids::Handle;

/// The time that an answer is waited for: a daemon may be about to be replaced.
const PATIENCE: Duration = Duration::from_secs(10);

/// The directory that holds all paths.
const ROOT: &str = "/proc/sys/net/";

/// The files of /proc/sys/net as the daemon opens them in containers' network namespaces.
#[derive(Debug)]
pub(super) struct NetworkFiles(Option<Arc<BrokerClient>>);

impl NetworkFiles {
    /// Makes the part, which asks by `broker`. Without one, nothing is there.
    pub(super) fn new(broker: Option<Arc<BrokerClient>>) -> Self {
        Self(broker)
    }

    fn ask(slot: u64, path: &str, access: Access) -> Result<BrokerRequest, Errno> {
        let path = path.strip_prefix(ROOT).ok_or(Errno::NOENT)?.to_owned();
        let number = None;
        Ok(BrokerRequest::Network {
            slot,
            path,
            access,
            number,
        })
    }

    fn open(&self, slot: u64, path: &str, access: Access) -> Result<OwnedFd, Errno> {
        let ask = Self::ask(slot, path, access)?;
        let broker = self.0.as_ref().ok_or(Errno::NOENT)?;
        broker.ask(&ask, Instant::now() + PATIENCE)
    }

    /// Writes to a file, and returns the number of bytes that the kernel took.
    fn write(&self, slot: u64, path: &str, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        let broker = self.0.as_ref().ok_or(Errno::NOENT)?;
        if !broker.is_complete() {
            let file = self.open(slot, path, Access::Write)?;
            return rustix::io::pwrite(&file, bytes, offset).map_err(|e| Errno(e.raw_os_error()));
        }
        let ask = BrokerRequest::WriteNetwork {
            slot,
            path: path.strip_prefix(ROOT).ok_or(Errno::NOENT)?.to_owned(),
            offset,
            bytes: bytes.to_vec(),
            number: None,
        };
        let count = broker.write(&ask, Instant::now() + PATIENCE)?;
        Ok(usize::try_from(count)
            .unwrap_or(bytes.len())
            .min(bytes.len()))
    }

    /// Returns the attributes of what the namespace of the container in `slot` has at a path.
    pub(super) fn stat(&self, slot: u64, path: &str) -> Result<Stat, Errno> {
        Stat::of(&self.open(slot, path, Access::Look)?)
    }

    /// Returns what the namespace has in a directory.
    pub(super) fn entries(&self, slot: u64, path: &str) -> Result<Vec<(String, Kind)>, Errno> {
        let ask = Self::ask(slot, path, Access::List)?;
        let broker = self.0.as_ref().ok_or(Errno::NOENT)?;
        let entries = broker.list(&ask, Instant::now() + PATIENCE)?;
        let kind = |is_directory| match is_directory {
            true => Kind::Directory,
            false => Kind::File,
        };
        Ok(entries
            .into_iter()
            .map(|(name, is_directory)| (name, kind(is_directory)))
            .collect())
    }

    /// Returns the content of a file of the namespace.
    pub(super) fn content(&self, slot: u64, path: &str) -> Result<Content, Errno> {
        read_whole(self.open(slot, path, Access::Read)?)
    }
}

impl DirectoryGrafts {
    /// Checks whether what lies at a place may be opened with `flags`, if that is of the container's network namespace. It
    /// is opened where that needs no snapshot.
    ///
    /// # Errors
    /// EACCES; EROFS; ENOENT when it is gone.
    pub(in crate::server::fs) fn check_open(
        &self,
        place: &Place,
        caller: Caller,
        flags: i32,
    ) -> Result<Option<Opened>, Errno> {
        let Some(path) = self.namespaced(place)? else {
            return Ok(None);
        };
        let wanted = wanted(flags);
        let stat = self.network.stat(place.slot, &path)?;
        if wanted & !self.allowed(&place.container, &stat, caller)? != 0 {
            return Err(Errno(libc::EACCES));
        }
        if wanted & 2 != 0 {
            // The open tells whether the file can be written to. A write opens it anew, and asks again.
            self.network.open(place.slot, &path, Access::Write)?;
        }
        Ok((wanted == 2).then_some(Opened::Direct(Handle::NONE)))
    }

    /// Writes to what the container's network namespace has, and returns the number of bytes that the kernel took.
    ///
    /// # Errors
    /// EPERM for a caller who may not, EBADF for what is nothing of the kind, and what the kernel's handler says.
    pub(in crate::server::fs) fn write(
        &self,
        place: &Place,
        handle: Handle,
        write: Write<'_>,
    ) -> Result<usize, Errno> {
        let path = self.namespaced(place)?.ok_or(Errno(libc::EBADF))?;
        let stat = self.network.stat(place.slot, &path)?;
        if self.allowed(&place.container, &stat, write.caller)? & 2 == 0 {
            return Err(Errno(libc::EPERM));
        }
        let taken = match place.is_way() {
            true => self.write_converted(place, &path, &write)?,
            false => self
                .network
                .write(place.slot, &path, write.bytes, write.offset())?,
        };
        if handle != Handle::NONE {
            self.snapshots.rewrite(handle, self.content(place)?);
        }
        Ok(taken)
    }

    /// Writes to a file of which the kernel gets something else than what the container writes.
    fn write_converted(
        &self,
        place: &Place,
        path: &str,
        write: &Write<'_>,
    ) -> Result<usize, Errno> {
        let failed = |errno: rustix::io::Errno| Errno(errno.raw_os_error());
        let present = self.content(place)?.text;
        let cx = self.renderer.context(&place.container, NEEDS);
        let converted = place
            .directory
            .to_kernel(&cx, &present, write.offset(), write.bytes)
            .map_err(failed)?;
        if let Some(bytes) = converted.bytes {
            self.network.write(place.slot, path, &bytes, 0)?;
        }
        Ok(converted.taken)
    }

    /// Returns the permission bits that hold for a caller (net_ctl_permissions and test_perm). A caller who administers
    /// the namespace has those of root.
    fn allowed(&self, container: &Attached, stat: &Stat, caller: Caller) -> Result<u16, Errno> {
        let (owners, groups, others) = (stat.mode >> 6 & 7, stat.mode >> 3 & 7, stat.mode & 7);
        let permissions = &self.permissions;
        // The owner is root of the user namespace that owns the network namespace, which need not be the container's.
        let is_its_own = stat.uid == container.uid;
        let admin = Capability::NetAdmin;
        let is_root = caller.uid == 0
            || permissions.has_capability(container, is_its_own, caller, admin, Check::Anew)?;
        Ok(if is_root {
            owners
        } else if groups != others && permissions.is_in_group(caller, 0) {
            groups
        } else {
            others
        })
    }
}
