//! Attributes of a node, as stat(2) shows them.

use std::time::SystemTime;

use crate::server::container::Attached;
use crate::server::ids::NodeId;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// What stat(2) shows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its id, which is its inode number too.
    pub id: NodeId,
    /// What it is.
    pub kind: Kind,
    /// Its size in bytes; exact for a view.
    pub size: u64,
    /// Permission bits.
    pub mode: u16,
    /// Root of the container's user namespace, on the host.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When this version of the view was computed; for a directory, the epoch.
    pub mtime: SystemTime,
}

impl Attr {
    /// The view of `EMULATORS[index]` of a container, with a text of `size` bytes from `mtime`.
    pub(super) fn view(
        id: NodeId,
        container: &Attached,
        index: usize,
        size: usize,
        mtime: SystemTime,
    ) -> Self {
        Self {
            id,
            kind: Kind::File,
            size: size as u64,
            mode: container.mode(index),
            uid: container.uid,
            gid: container.gid,
            mtime,
        }
    }

    /// A directory that may be searched and listed by all.
    pub(super) fn directory(id: NodeId, uid: u32, gid: u32) -> Self {
        Self {
            id,
            kind: Kind::Directory,
            size: 0,
            mode: 0o555,
            uid,
            gid,
            mtime: SystemTime::UNIX_EPOCH,
        }
    }
}
