//! Views below /proc.

pub mod cpuinfo;
pub mod loadavg;
pub mod meminfo;
pub mod stat;
pub mod swaps;
pub mod uptime;
