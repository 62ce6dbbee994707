//! Views in /sys/kernel: what is hidden of it.

use crate::View;
use crate::directory::Empty;

/// The files of this directory.
pub static VIEWS: &[View] = &[
    // ELF notes, notes_read in kernel/ksysfs.c: the build id of the kernel.
    View::constant(
        47,
        "/sys/kernel/notes",
        0o444,
        b"",
        "empty, where the kernel has its notes",
    ),
];

/// debugfs is about the host, and dangerous.
pub static DEBUG: Empty = Empty::new(130, "/sys/kernel/debug", 0o700);
/// tracefs shows what others do.
pub static TRACING: Empty = Empty::new(131, "/sys/kernel/tracing", 0o700);
/// securityfs holds the policy of the host.
pub static SECURITY: Empty = Empty::new(132, "/sys/kernel/security", 0o755);
/// configfs configures the host.
pub static CONFIG: Empty = Empty::new(133, "/sys/kernel/config", 0o755);
