//! Steps that a container may take with mounts that it has made itself.

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_move, mount_remount, unmount,
};
use serde_json::json;

use super::calls::{self, Attributes};
use super::grafts::{directory, tmpfs};
use crate::answer::{Answer, name, wrong};

/// A step, by name.
type Step = (&'static str, fn() -> Result<(), Errno>);

const STEPS: &[Step] = &[
    ("mount a tmpfs", || tmpfs("/mnt")),
    ("make it read-only", || {
        mount_remount("/mnt", MountFlags::RDONLY, "")
    }),
    ("make it writable", || {
        mount_remount("/mnt", MountFlags::empty(), "")
    }),
    ("make the mount read-only", || {
        mount_remount("/mnt", MountFlags::BIND | MountFlags::RDONLY, "")
    }),
    ("make the mount writable", || {
        calls::mount_setattr(CWD, "/mnt", 0, Attributes::WRITABLE)
    }),
    ("make a directory", || directory("/mnt/a")),
    ("make another", || directory("/mnt/b")),
    ("bind one on the other", || mount_bind("/mnt/a", "/mnt/b")),
    ("unmount that", || unmount("/mnt/b", UnmountFlags::empty())),
    ("bind a read-only volume", || mount_bind("/vol", "/mnt/a")),
    ("unmount that too", || {
        unmount("/mnt/a", UnmountFlags::empty())
    }),
    ("make a third", || directory("/tmp/own")),
    ("move the tmpfs", || mount_move("/mnt", "/tmp/own")),
    ("unmount it", || unmount("/tmp/own", UnmountFlags::empty())),
    ("bind a directory of the image", || {
        mount_bind("/bin", "/mnt")
    }),
    ("make that read-only", || {
        // Devices are forbidden on the image already, and stay so.
        let kept = MountFlags::BIND | MountFlags::NODEV;
        mount_remount("/mnt", kept | MountFlags::RDONLY, "")
    }),
    ("unmount the directory", || {
        unmount("/mnt", UnmountFlags::empty())
    }),
    ("bind everything", || mount_bind_recursive("/", "/mnt")),
    ("unmount everything", || {
        unmount("/mnt", UnmountFlags::DETACH)
    }),
];

/// Does all steps.
pub(super) fn all() -> Answer {
    for (what, step) in STEPS {
        step().map_err(|errno| wrong(format!("{what}: {}", name(&errno.into()))))?;
    }
    Ok(json!(STEPS.len()))
}
