//! Directories of /proc/fs. What is left of it (nfsd, nfs, nfsfs, afs) belongs to a network namespace, or has a file
//! system mounted on it.

use crate::directory::Empty;

/// The allocator, the cache of extents and the journal of each ext4 file system: what all containers write to it.
pub static EXT4: Empty = Empty::new(144, "/proc/fs/ext4", 0o555);
/// The commits of each journal.
pub static JBD2: Empty = Empty::new(145, "/proc/fs/jbd2", 0o555);
/// The counters of all XFS file systems together.
pub static XFS: Empty = Empty::new(146, "/proc/fs/xfs", 0o555);
/// The segments and the I/O of each F2FS file system.
pub static F2FS: Empty = Empty::new(147, "/proc/fs/f2fs", 0o555);
/// The servers, mounts and traffic of the SMB client.
pub static CIFS: Empty = Empty::new(148, "/proc/fs/cifs", 0o555).unless_measuring();
/// The hits of the cache of network file systems.
pub static FSCACHE: Empty = Empty::new(149, "/proc/fs/fscache", 0o555);
