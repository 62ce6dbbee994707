//! Views below /proc/sys/kernel/random.

pub mod boot_id;
