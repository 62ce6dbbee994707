//! Views below /sys/module.

pub mod nf_conntrack;
