//! The file system as values: nodes, attributes, contents. No type of a FUSE library may appear here, so that almost
//! everything is tested without a mount, and the library can be exchanged.
//!
//! One [`FileSystem`] serves both connections. It has a directory for each container, named by its slot, and below it
//! the paths of the container's views: `/7/proc/meminfo`. A graft is a clone of the mount at such a path, so the mount
//! that is read says which container asks.
//!
//! [`FileSystem`] is the only type that knows all parts. The parts are the cached views, the live views, the sysctls, the
//! directory grafts and the directories on the way. They know what they share and nothing above them:
//!
//! ```text
//! dispatch -> file_system -> request
//!                  |
//!                  v
//!             cached, live, sysctls, grafts, directories, catalogue
//!                  |
//!                  v
//!             snapshots, permission, render -> persistence, containers, content -> attr
//! ```

mod attr;
mod cached;
mod catalogue;
mod containers;
mod content;
mod directories;
mod dispatch;
mod file_system;
mod grafts;
mod live;
mod permission;
mod persistence;
mod render;
mod request;
mod snapshots;
mod sysctls;

pub use attr::{Attr, DirEntry, Kind, Listing};
pub use dispatch::{Backlog, Dispatcher};
pub use file_system::{FileSystem, KernelCache, Looked, Services};
pub use permission::Caller;
pub use request::{FsRequest, Operation, Replies, Reply};
pub use snapshots::{Opened, Write};
