//! Views in /sys/kernel: what is hidden of it.

pub mod mm;

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
    // uevent_seqnum_show: one more for each device that comes or goes, so for each container with a network.
    View::constant(
        49,
        "/sys/kernel/uevent_seqnum",
        0o444,
        b"0\n",
        "that no device has come or gone",
    ),
    // vmcoreinfo_show: a physical address of the kernel.
    View::constant(
        50,
        "/sys/kernel/vmcoreinfo",
        0o444,
        b"",
        "empty, where the kernel has an address",
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
/// The numbers of all objects of the kernel, by type. /proc/slabinfo says the same.
pub static SLAB: Empty = Empty::new(161, "/sys/kernel/slab", 0o755);
/// The interrupts of the host are counted here, as in /proc/interrupts.
pub static IRQ: Empty = Empty::new(162, "/sys/kernel/irq", 0o755);
/// The memory map that the host was booted with.
pub static BOOT_PARAMS: Empty = Empty::new(163, "/sys/kernel/boot_params", 0o755);
