//! What several views have in common: one model of CPUs, one of memory, one of CPU time, one of
//! load. Files that say the same thing say it alike because they ask here.

pub mod cpu_time;
pub mod cpus;
pub(crate) mod irq;
pub mod load;
pub(crate) mod meminfo;
pub mod memory;
pub mod nodes;
pub mod threads;
pub mod vmstat;
