//! The source mounts: the mounts of the connections that grafts are clones of, in a mount namespace of their own.
//!
//! The namespace holds nothing but a tmpfs and the source mounts. So it pins no mount of the host, shows nothing to the
//! host, and vanishes with the daemon. It is made in three steps:
//!
//! 1. The thread leaves the host's namespace and puts a tmpfs where /proc was (any directory would do).
//! 2. That tmpfs becomes the root, and all other mounts are unmounted.
//! 3. The connections are mounted: cached read-only; live twice, read-only and writable, because a clone keeps the
//!    flags of its mount.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
    mount_remount, unmount,
};
use rustix::process::chdir;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::probe::duplicate;
use crate::container::in_namespace::{NamespaceKind, in_namespace};
use crate::container::mountinfo::{Mount, parse_mountinfo};
use crate::container::open_within;
use crate::container::procfs::Proc;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::{Connection, Row};

/// The source of every mount of ours, as mountinfo shows it.
pub const SOURCE: &str = "eci-fs";

/// The file system type of every graft.
pub(super) const FSTYPE: &str = "fuse";

/// The source mounts, and what the thread in their namespace works with.
#[derive(Debug)]
pub struct SourceMounts {
    /// The host's /proc.
    pub proc: Arc<Proc>,
    namespace: OwnedFd,
    cached: OwnedFd,
    live: OwnedFd,
    live_read_only: OwnedFd,
    /// `st_dev` of the connections, as mountinfo writes it.
    pub(super) devices: Vec<String>,
}

impl SourceMounts {
    /// Mounts the connections in a namespace of the calling thread's own, from which the host's is not seen.
    ///
    /// # Errors
    /// When the namespace cannot be made, or a mount is refused.
    pub(super) fn make(proc: Arc<Proc>, fuse: &[OwnedFd; 2]) -> Result<Self> {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).map_err(|e| {
            Error::io("make", "a mount namespace", e).remedy("run as root with CAP_SYS_ADMIN")
        })?;
        let namespace = proc.open_at("thread-self/ns/mnt", OFlags::RDONLY)?;
        let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount_change("/", private).map_err(|e| Error::io("mount", "/", e))?;
        do_mount("tmpfs", "/proc", "tmpfs", plain, c"size=4m,mode=0700")?;
        chdir("/proc").map_err(|e| Error::io("enter", "/proc", e))?;
        rustix::process::pivot_root(".", ".")
            .map_err(|e| Error::io("pivot_root to", "/proc", e))?;
        unmount(".", UnmountFlags::DETACH).map_err(|e| Error::io("unmount", "the old root", e))?;
        chdir("/").map_err(|e| Error::io("enter", "/", e))?;

        for dir in ["/cached", "/live", "/live-read-only", "/mounts"] {
            std::fs::create_dir(dir).map_err(|e| Error::io("create", dir, e))?;
        }
        let [cached, live] = fuse;
        let read_only = plain | MountFlags::RDONLY;
        do_mount(SOURCE, "/cached", FSTYPE, read_only, &fuse_options(cached)?)?;
        do_mount(SOURCE, "/live", FSTYPE, plain, &fuse_options(live)?)?;
        mount_bind("/live", "/live-read-only")
            .and_then(|()| mount_remount("/live-read-only", read_only | MountFlags::BIND, ""))
            .map_err(|e| Error::io("mount", "/live-read-only", e))?;
        Self::of(proc, namespace)
    }

    /// Moves the calling thread into the namespace of source mounts that another thread has made.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub(super) fn join(proc: Arc<Proc>, namespace: OwnedFd) -> Result<Self> {
        unshare(CloneFlags::CLONE_FS)
            .map_err(|e| Error::io("leave", "the root of the other threads", e))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(|e| Error::io("enter", "the mount namespace of the source mounts", e))?;
        Self::of(proc, namespace)
    }

    /// Moves the calling thread into the namespace of a daemon that is dead. Somebody who is not trusted has kept it,
    /// so its mounts are checked.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or is not one that [`Self::make`] made.
    pub(super) fn enter(proc: Arc<Proc>, namespace: OwnedFd) -> Result<Self> {
        unshare(CloneFlags::CLONE_FS)
            .map_err(|e| Error::io("leave", "the root of the other threads", e))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(|e| Error::io("enter", "the mount namespace that was handed over", e))?;
        let mounts = parse_mountinfo(&proc.read("thread-self/mountinfo")?);
        let is_ours = |mount: &Mount| match mount.point.as_str() {
            "/" => mount.fstype == "tmpfs",
            "/cached" | "/live" | "/live-read-only" => {
                mount.fstype == FSTYPE && mount.source == SOURCE && mount.root == "/"
            }
            point => point.starts_with("/mounts/") && mount.source == SOURCE,
        };
        let points = |point: &str| mounts.iter().filter(|mount| mount.point == point).count();
        let whole = ["/", "/cached", "/live", "/live-read-only"]
            .iter()
            .all(|point| points(point) == 1);
        if !whole || !mounts.iter().all(is_ours) {
            return Err(Error::refused(
                "the mount namespace that was handed over is not one of eci-mountd",
            ));
        }
        // A daemon that died in the middle of a mount has left these.
        for mount in mounts.iter().rev() {
            if mount.point.starts_with("/mounts/") {
                let _ = unmount(mount.point.as_str(), UnmountFlags::DETACH);
            }
        }
        Self::of(proc, namespace)
    }

    /// Opens the source mounts. The thread is in the namespace `namespace`, in which the connections are mounted.
    fn of(proc: Arc<Proc>, namespace: OwnedFd) -> Result<Self> {
        let (cached, live) = (open_dir("/cached")?, open_dir("/live")?);
        Ok(Self {
            devices: vec![device(&cached)?, device(&live)?],
            cached,
            live,
            live_read_only: open_dir("/live-read-only")?,
            namespace,
            proc,
        })
    }

    /// Returns the mount namespace, for the next daemon.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn namespace(&self) -> Result<OwnedFd> {
        duplicate(&self.namespace)
    }

    /// Returns the root directories of the connections, in the order of [`Connection::ALL`].
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub(super) fn roots(&self) -> Result<[OwnedFd; 2]> {
        Ok([duplicate(&self.cached)?, duplicate(&self.live)?])
    }

    /// Returns a detached clone of the mount of one row of the container with the directory `top`, to be moved onto its
    /// target.
    pub(super) fn clone_of(&self, top: &str, row: &Row) -> Result<OwnedFd> {
        use rustix::mount::{OpenTreeFlags, open_tree};
        let path = format!("{top}{}", row.path);
        open_tree(
            self.source(row),
            path.as_str(),
            OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_SYMLINK_NOFOLLOW,
        )
        .map_err(|e| Error::io("clone", format!("{}:/{path}", row.connection.name()), e))
    }

    /// Opens one file of the container with the directory `top` for reading, as a program in the container would.
    pub fn open_view(&self, top: &str, row: &Row) -> Result<OwnedFd> {
        let path = format!("{top}{}", row.path);
        rustix::fs::openat(
            self.source(row),
            path.as_str(),
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(|e| Error::io("open", &row.path, e))
    }

    /// Returns one file of the container with the directory `top` as a place (`O_PATH`), which can be opened again and again.
    pub fn view_place(&self, top: &str, row: &Row) -> Result<OwnedFd> {
        let path = format!("{top}{}", row.path);
        rustix::fs::openat(
            self.source(row),
            path.as_str(),
            OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(|e| Error::io("find", &row.path, e))
    }

    /// Opens `path`, which is the path of the directory graft `row` of the container with the directory `top`, or one
    /// below it, as a place (`O_PATH`). Links are followed within the container's directory.
    pub fn open_in_directory(&self, top: &str, row: &Row, path: &str) -> Result<OwnedFd> {
        let place = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let source = self.source(row);
        rustix::fs::openat(source, top, place | OFlags::DIRECTORY, Mode::empty())
            .and_then(|top| {
                let path = path.trim_start_matches('/');
                open_within(&top, path, place, resolve)
            })
            .map_err(|e| Error::io("open", path, e))
    }

    fn source(&self, row: &Row) -> &OwnedFd {
        match (row.connection, row.writable) {
            (Connection::Cached, _) => &self.cached,
            (Connection::Live, true) => &self.live,
            (Connection::Live, false) => &self.live_read_only,
        }
    }

    /// Does `work` in another mount namespace.
    ///
    /// # Errors
    /// As [`in_namespace`], and what `work` says.
    pub(super) fn inside<T>(
        &self,
        namespace: impl AsFd,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        in_namespace(NamespaceKind::Mount, namespace, &self.namespace, work)?
    }

    /// Does `work` in a copy of this mount namespace that only this thread has.
    ///
    /// # Errors
    /// When there are no more namespaces, and what `work` says.
    pub(super) fn in_copy<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.inside(&self.namespace, || {
            unshare(CloneFlags::CLONE_NEWNS)
                .map_err(|e| Error::io("make", "a mount namespace", e))?;
            work()
        })
    }
}

fn fuse_options(fuse: &OwnedFd) -> Result<CString> {
    // default_permissions makes the kernel check modes, and ask for attributes at open when they have
    // expired: that is what makes a cached view fresh, and sendfile whole (design, "sendfile and splice").
    CString::new(format!(
        "fd={},rootmode=40555,user_id=0,group_id=0,allow_other,default_permissions",
        fuse.as_raw_fd()
    ))
    .map_err(|e| Error::io("mount", FSTYPE, e))
}

pub(super) fn do_mount(
    source: &str,
    target: &str,
    fstype: &str,
    flags: MountFlags,
    data: &CStr,
) -> Result<()> {
    mount(source, target, fstype, flags, data)
        .map_err(|e| Error::io("mount", format!("{fstype} on {target}"), e))
}

pub(crate) fn open_dir(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| Error::io("open", path, e))
}

/// Returns the `st_dev` of a mount of ours, as mountinfo writes it.
fn device(fd: &OwnedFd) -> Result<String> {
    use rustix::fs::{AtFlags, statx};
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, "", flags, StatxFlags::TYPE)
        .map_err(|e| Error::io("look at", "a connection", e))?;
    Ok(format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor))
}
