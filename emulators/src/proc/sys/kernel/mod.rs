//! Views below /proc/sys/kernel.

pub mod random;
