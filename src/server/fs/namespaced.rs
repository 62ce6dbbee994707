//! What lies in a directory graft and is the kernel's own of the container's network namespace.
//!
//! The daemon opens it there, and hands over a descriptor. Nothing is kept of that: what is told is what the kernel says
//! at that moment. Who may do what is judged here, because the kernel would judge this process.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use eci_fs_emulators::tunable::Capability;
use eci_fs_protocol::link::{Access, BrokerRequest};

use super::caller::Judge;
use super::emulated::Place;
use super::kernels::{Stat, read_whole};
use super::{Caller, Kind, Opened, Tree, Write};
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::ids::{Handle, NodeId};

/// How long an answer is waited for: a daemon may be about to be replaced.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the paths are below.
const ROOT: &str = "/proc/sys/net/";

impl Tree {
    fn network_ask(slot: u64, path: &str, access: Access) -> Result<BrokerRequest, Errno> {
        let path = path.strip_prefix(ROOT).ok_or(Errno::NOENT)?.to_owned();
        Ok(BrokerRequest::Network { slot, path, access })
    }

    fn network_open(&self, slot: u64, path: &str, access: Access) -> Result<OwnedFd, Errno> {
        let ask = Self::network_ask(slot, path, access)?;
        let services = self.services.as_ref().ok_or(Errno::NOENT)?;
        services.asks.ask(&ask, Instant::now() + PATIENCE)
    }

    /// What the container's network namespace has at a path.
    pub(super) fn network_stat(&self, slot: u64, path: &str) -> Result<Stat, Errno> {
        Stat::of(&self.network_open(slot, path, Access::Look)?)
    }

    /// What it has in a directory.
    pub(super) fn network_entries(
        &self,
        slot: u64,
        path: &str,
    ) -> Result<Vec<(String, Kind)>, Errno> {
        let ask = Self::network_ask(slot, path, Access::List)?;
        let services = self.services.as_ref().ok_or(Errno::NOENT)?;
        let entries = services.asks.list(&ask, Instant::now() + PATIENCE)?;
        let kind = |is_directory| match is_directory {
            true => Kind::Directory,
            false => Kind::File,
        };
        Ok(entries
            .into_iter()
            .map(|(name, is_directory)| (name, kind(is_directory)))
            .collect())
    }

    /// What a file there says.
    pub(super) fn network_text(&self, slot: u64, path: &str) -> Result<Vec<u8>, Errno> {
        read_whole(self.network_open(slot, path, Access::Read)?)
    }

    /// Judge an OPEN with `flags` of what lies at a place, if that is of the container's network namespace. A handle
    /// where that is all there is to it, as in [`Self::tunable_open`].
    ///
    /// # Errors
    /// EACCES; EROFS; ENOENT when it is gone.
    pub(super) fn namespaced_open(
        &self,
        place: &Place,
        caller: Caller,
        flags: i32,
    ) -> Result<Option<Opened>, Errno> {
        let Some(path) = self.namespaced(place)? else {
            return Ok(None);
        };
        let wanted = super::tunable::wanted(flags);
        let stat = self.network_stat(place.slot(), &path)?;
        if wanted & !self.namespaced_allowed(&place.container, &stat, caller) != 0 {
            return Err(Errno(libc::EACCES));
        }
        if wanted & 2 != 0 {
            // Whether it can be written to; a write opens it anew, and asks again.
            self.network_open(place.slot(), &path, Access::Write)?;
        }
        Ok((wanted == 2).then_some(Opened::Direct(Handle::NONE)))
    }

    /// Write to what the container's network namespace has; the bytes that the kernel took.
    ///
    /// # Errors
    /// EPERM for who may not, EBADF for what is nothing of the kind, and what the kernel's handler says.
    pub fn namespaced_write(
        &self,
        id: NodeId,
        handle: Handle,
        write: Write<'_>,
    ) -> Result<usize, Errno> {
        let place = self.place(id)?.ok_or(Errno(libc::EBADF))?;
        let path = self.namespaced(&place)?.ok_or(Errno(libc::EBADF))?;
        let stat = self.network_stat(place.slot(), &path)?;
        if self.namespaced_allowed(&place.container, &stat, write.caller) & 2 == 0 {
            return Err(Errno(libc::EPERM));
        }
        let fd = self.network_open(place.slot(), &path, Access::Write)?;
        let offset = i64::try_from(write.offset()).map_err(|_| Errno(libc::EINVAL))?;
        let taken = nix::sys::uio::pwrite(&fd, write.bytes, offset).map_err(|e| Errno(e as i32))?;
        if handle != Handle::NONE {
            self.rewrite(handle, &self.network_text(place.slot(), &path)?);
        }
        Ok(taken)
    }

    /// net_ctl_permissions and test_perm: the permission bits that hold for a caller. Who administers the namespace has
    /// those of root.
    fn namespaced_allowed(&self, container: &Attached, stat: &Stat, caller: Caller) -> u16 {
        let (owners, groups, others) = (stat.mode >> 6 & 7, stat.mode >> 3 & 7, stat.mode & 7);
        // The owner is root of the user namespace that owns the network namespace, which need not be the container's.
        let is_its_own = stat.uid == container.uid;
        if caller.uid == 0
            || self.has_capability(
                container,
                is_its_own,
                caller,
                Capability::NetAdmin,
                Judge::Anew,
            )
        {
            owners
        } else if groups != others && self.is_in_group(caller, 0) {
            groups
        } else {
            others
        }
    }
}
