//! Directories of /sys/fs. Each mounted file system has one in that of its type, with settings, and with counters of what
//! all containers do there. Programs look in `features` for what the kernel can do.

use crate::directory::Empty;

/// Kilobytes written in the life of each ext4 file system and since it was mounted, and blocks that wait for allocation.
pub static EXT4: Empty = Empty::new(150, "/sys/fs/ext4", 0o755)
    .but_for(&["features"])
    .unless_measuring();
/// The space, the commits and the errors of each Btrfs file system.
pub static BTRFS: Empty = Empty::new(151, "/sys/fs/btrfs", 0o755)
    .but_for(&["features"])
    .unless_measuring();
/// The counters of each XFS file system and of all together.
pub static XFS: Empty = Empty::new(152, "/sys/fs/xfs", 0o755).unless_measuring();
/// Kilobytes written in the life of each F2FS file system, and its segments.
pub static F2FS: Empty = Empty::new(153, "/sys/fs/f2fs", 0o755)
    .but_for(&["features"])
    .unless_measuring();
/// The I/O and the latencies of each bcachefs file system.
pub static BCACHEFS: Empty = Empty::new(154, "/sys/fs/bcachefs", 0o755).unless_measuring();
/// The segments and checkpoints of each NILFS2 file system.
pub static NILFS2: Empty = Empty::new(155, "/sys/fs/nilfs2", 0o755)
    .but_for(&["features"])
    .unless_measuring();
