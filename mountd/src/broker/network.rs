//! The files of a container's network namespace below /proc/sys/net. The server may not enter the namespace, so the
//! daemon does, and opens files in the directories that are grafted.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fstat};
use rustix::io::Errno;

use super::as_root::{copy_of, read_text, write};
use crate::container::mountinfo::mount_at;
use crate::container::network::{DirectoryEntry, PING_GROUP_RANGE, inside, list, open};
use crate::container::procfs::{Namespace, Proc};
use crate::container::{Described, has_ended};
use eci_fs_protocol::error::Result;
use eci_fs_protocol::link::Access;

/// The directories below /proc/sys/net in which a server may have files opened.
const DIRECTORIES: [&str; 3] = ["core", "ipv4/neigh", "ipv4/vs"];

/// The files below /proc/sys/net that a server may have opened beside those in [`DIRECTORIES`].
const FILES: [&str; 1] = [PING_GROUP_RANGE];

/// The permission of everybody to read.
const OTHERS_READ: u32 = 0o004;

/// The network namespace of a container that is not that of the host.
#[derive(Debug)]
pub(super) struct Network {
    proc: Arc<Proc>,
    pid: i32,
    pidfd: OwnedFd,
    namespace: Namespace,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum NetworkFile {
    /// Opened.
    Opened(OwnedFd),
    /// Listed.
    Listed(Vec<DirectoryEntry>),
}

impl Network {
    /// Returns the network namespace of a container that was just described.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub(super) fn of(proc: &Arc<Proc>, described: &Described) -> Result<Option<Self>> {
        let subject = &described.subject;
        let Some(namespace) = subject.network_namespace else {
            return Ok(None);
        };
        Ok(Some(Self {
            proc: Arc::clone(proc),
            pid: subject.pid,
            pidfd: subject.duplicate()?.pidfd,
            namespace,
        }))
    }

    /// Opens or lists what the namespace has at a path below /proc/sys/net.
    ///
    /// # Errors
    /// EACCES for a path that is neither one of [`FILES`] nor in [`DIRECTORIES`], EROFS where the container's own /proc/sys
    /// is mounted read-only, ESRCH when it has ended, EIO when it is in another namespace by now, and the kernel's.
    pub(super) fn find(
        &self,
        path: &str,
        access: Access,
    ) -> std::result::Result<NetworkFile, Errno> {
        let graft = graft_of(path).ok_or(Errno::ACCESS)?;
        let found = inside(&self.proc, &self.pidfd, || {
            // The process may have gone to another namespace since it was attached.
            let present = self.proc.namespace("thread-self", "net");
            if present.ok() != Some(self.namespace) {
                return Err(Errno::IO);
            }
            let flags = match access {
                Access::Look => OFlags::PATH,
                Access::Read => return self.read(path).map(NetworkFile::Opened),
                Access::Write if self.is_read_only(graft)? => return Err(Errno::ROFS),
                Access::Write => OFlags::WRONLY,
                Access::List => {
                    let dir = open(&self.proc, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                    return list(&dir).map(NetworkFile::Listed);
                }
            };
            open(&self.proc, path, flags).map(NetworkFile::Opened)
        });
        found.unwrap_or(Err(Errno::SRCH))
    }

    /// Opens a file for the server to read, or a copy of its text. The server is a user whom the kernel asks at each read.
    fn read(&self, path: &str) -> std::result::Result<OwnedFd, Errno> {
        let file = open(&self.proc, path, OFlags::RDONLY)?;
        match fstat(&file)?.st_mode & OTHERS_READ {
            0 => copy_of(&read_text(file)?),
            _ => Ok(file),
        }
    }

    /// Writes to a file, and returns the number of bytes that the kernel took. The kernel asks who writes: that is root
    /// without capabilities.
    ///
    /// # Errors
    /// As [`Self::find`], and those of the file.
    pub(super) fn write(
        &self,
        path: &str,
        offset: u64,
        bytes: &[u8],
    ) -> std::result::Result<u64, Errno> {
        let NetworkFile::Opened(file) = self.find(path, Access::Write)? else {
            return Err(Errno::IO);
        };
        write(&file, offset, bytes)
    }

    /// Returns true if the mount in which a grafted entry lies is read-only in the container, as engines have it for
    /// /proc/sys. The graft over it is not.
    ///
    /// The kernel's list of mounts says so. The path is not walked: a file system of the container's own may never answer.
    fn is_read_only(&self, graft: &str) -> std::result::Result<bool, Errno> {
        let above = graft.rsplit_once('/').map_or("", |(above, _)| above);
        let path = format!("/proc/sys/net/{above}");
        let mounts = self.proc.mounts(&format!("{}/mountinfo", self.pid));
        if has_ended(self.pidfd.as_fd()).unwrap_or(true) {
            return Err(Errno::SRCH);
        }
        // A mount that is not known is not written to.
        let mounts = mounts.map_err(|_| Errno::ROFS)?;
        let mount = mount_at(&mounts, path.trim_end_matches('/'));
        Ok(mount.is_none_or(|mount| mount.read_only || mount.fstype != "proc"))
    }
}

/// Returns the one of [`FILES`] that a path is, or the one of [`DIRECTORIES`] that it is or lies in.
fn graft_of(path: &str) -> Option<&'static str> {
    let odd = |name: &str| matches!(name, "" | "." | "..") || name.contains('\0');
    if path.split('/').any(odd) {
        return None;
    }
    let is_in = |dir: &&str| {
        path.strip_prefix(*dir)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let file = FILES.into_iter().find(|file| path == *file);
    file.or_else(|| DIRECTORIES.into_iter().find(is_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_nothing_opened_outside_of_the_directories_that_are_grafted() {
        for (path, directory) in [
            ("core", "core"),
            ("core/somaxconn", "core"),
            ("ipv4/neigh/eth0/locktime", "ipv4/neigh"),
            ("ipv4/ping_group_range", "ipv4/ping_group_range"),
        ] {
            assert_eq!(graft_of(path), Some(directory), "{path}");
        }
        for path in [
            "",
            "/core",
            "corex",
            "core/",
            "core/../ipv4/ip_forward",
            "core/./somaxconn",
            "core//somaxconn",
            "../kernel/panic",
            "ipv4/ip_forward",
            "ipv4",
            "ipv4/ping_group_range/x",
            "ipv4/ping_group_rangex",
            "core/a\0",
        ] {
            assert_eq!(graft_of(path), None, "{path:?}");
        }
    }
}
