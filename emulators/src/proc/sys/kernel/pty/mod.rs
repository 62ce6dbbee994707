//! Views in /proc/sys/kernel/pty.

use crate::View;

/// The files of this directory.
pub static VIEWS: &[View] = &[
    // pty_count, fs/devpts/inode.c: the terminals of the host and of all containers together.
    View::constant(
        64,
        "/proc/sys/kernel/pty/nr",
        0o444,
        b"0\n",
        "that no terminal is open: the kernel keeps no count per container",
    ),
];
