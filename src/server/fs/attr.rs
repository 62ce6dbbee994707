//! The attributes of a node, as stat(2) shows them, and the entries of a directory.

use std::time::{Duration, SystemTime};

use crate::server::ids::NodeId;

/// The type of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// The attributes that stat(2) shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// The node.
    pub id: NodeId,
    /// The inode number.
    pub ino: u32,
    /// The type.
    pub kind: Kind,
    /// The size in bytes; exact for a view.
    pub size: u64,
    /// Permission bits.
    pub mode: u16,
    /// Root of the container's user namespace, by the host's numbers.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time at which this version of the view was computed; for a directory, the epoch.
    pub mtime: SystemTime,
}

impl Attr {
    /// Returns the attributes of a directory that everybody may search and list.
    pub(super) fn directory(id: NodeId, uid: u32, gid: u32) -> Self {
        Self {
            id,
            ino: id.inode(),
            kind: Kind::Directory,
            size: 0,
            mode: 0o555,
            uid,
            gid,
            mtime: SystemTime::UNIX_EPOCH,
        }
    }
}

/// The answer to a LOOKUP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The attributes of the node.
    pub attr: Attr,
    /// The time for which the kernel may believe the name.
    pub timeout: Duration,
    /// The generation of the node, which is never another one.
    pub generation: u32,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The node.
    pub id: NodeId,
    /// The inode number, which stat(2) of the entry shows too.
    pub ino: u32,
    /// The type.
    pub kind: Kind,
    /// The name.
    pub name: String,
}

impl DirEntry {
    /// Returns the entry of a node at a name.
    pub(super) fn new(id: NodeId, kind: Kind, name: String) -> Self {
        let ino = id.inode();
        Self {
            id,
            ino,
            kind,
            name,
        }
    }
}

/// A listing of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The inode number of the directory, which is the entry ".".
    pub own: u32,
    /// The inode number of the directory that holds it, which is the entry "..".
    pub parent: u32,
    /// All other entries.
    pub entries: Vec<DirEntry>,
}
