//! The network namespace of a container, and what the kernel has below /proc/sys/net there.
//!
//! The kernel decides by the reader what is there. So a thread enters the namespace, opens, and comes back. No
//! descriptor of the namespace is kept: it is entered by a pidfd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use super::in_namespace::{NamespaceKind, in_namespace};
use super::procfs::{Namespace, Proc};
use eci_fs_protocol::error::Result;
use eci_fs_protocol::facts::NetworkFacts;

/// Directories below /proc/sys/net that are searched for files that can be written to.
const LISTED: [&str; 4] = ["core", "ipv4/neigh/default", "ipv4/vs", "netfilter"];

/// The file whose content is a range of groups.
pub const PING_GROUP_RANGE: &str = "ipv4/ping_group_range";

/// The mode bit by which the owner writes. The owner is root of the namespace.
const OWNER_WRITES: u32 = 0o200;

/// The most entries of a directory that are listed: more than anybody needs, and little memory.
const MOST_LISTED: usize = 1 << 14;

/// One entry of a directory: its name, and whether it is a directory itself.
pub type DirectoryEntry = (String, bool);

/// Does `work` in the network namespace of the process of `pidfd`.
///
/// # Errors
/// When the namespace cannot be entered; `Kind::NotFound` when the process has ended.
pub fn inside<T>(proc: &Proc, pidfd: impl AsFd, work: impl FnOnce() -> T) -> Result<T> {
    let home = proc.open_at("thread-self/ns/net", OFlags::RDONLY)?;
    in_namespace(NamespaceKind::Network, pidfd, &home, work)
}

/// Returns the network namespace of the process `pid`, and what can be written to in it; none where it is that of the
/// host.
pub(super) fn inspect(
    proc: &Proc,
    pid: i32,
    pidfd: BorrowedFd<'_>,
) -> Result<Option<(Namespace, NetworkFacts)>> {
    let namespace = proc.namespace(pid, "net")?;
    if namespace == proc.namespace("self", "net")? {
        return Ok(None);
    }
    let (settable, owner) = inside(proc, pidfd, || {
        let settable = LISTED
            .iter()
            .flat_map(|dir| settable(proc, dir).unwrap_or_default())
            .collect();
        (settable, owner(proc).ok())
    })?;
    let groups = match owner {
        Some(owner) if is_its_own(proc, pid, owner)? => proc.id_map(pid, "gid_map")?,
        _ => Vec::new(),
    };
    Ok(Some((namespace, NetworkFacts { settable, groups })))
}

/// Returns the user that owns a file of the network namespace of this thread: root of the user namespace that owns it.
/// Kernels without the file have no groups to cut.
fn owner(proc: &Proc) -> std::result::Result<u32, Errno> {
    let file = open(proc, PING_GROUP_RANGE, OFlags::PATH)?;
    Ok(fstat(&file)?.st_uid)
}

/// Returns whether `owner` is root in the user namespace of the process `pid`, and that is not ours.
fn is_its_own(proc: &Proc, pid: i32, owner: u32) -> Result<bool> {
    let has_own = proc.namespace(pid, "user")? != proc.namespace("self", "user")?;
    Ok(has_own && proc.mapped_root(pid, "uid_map")? == owner)
}

fn settable(proc: &Proc, dir: &str) -> std::result::Result<Vec<String>, Errno> {
    let opened = open(proc, dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut all = Vec::new();
    for (name, is_directory) in list(&opened)? {
        let mode = statat(&opened, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
        if !is_directory && mode & OWNER_WRITES != 0 {
            all.push(format!("/proc/sys/net/{dir}/{name}"));
        }
    }
    Ok(all)
}

/// Opens what the network namespace of this thread has at a path below /proc/sys/net.
///
/// # Errors
/// The kernel's.
pub fn open(proc: &Proc, path: &str, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(proc.dir(), format!("sys/net/{path}"), flags, Mode::empty())
}

/// Returns the entries of an open directory without "." and "..".
///
/// # Errors
/// The kernel's; EILSEQ for a name that is no UTF-8, which the kernel has none of; ENOMEM for more than
/// [`MOST_LISTED`] entries.
pub fn list(dir: &OwnedFd) -> std::result::Result<Vec<DirectoryEntry>, Errno> {
    let mut all = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_str().map_err(|_| Errno::ILSEQ)?;
        if !matches!(name, "." | "..") {
            if all.len() == MOST_LISTED {
                return Err(Errno::NOMEM);
            }
            all.push((name.to_owned(), entry.file_type() == FileType::Directory));
        }
    }
    Ok(all)
}
