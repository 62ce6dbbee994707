//! Views below /sys/module/nf_conntrack.

pub mod parameters;
