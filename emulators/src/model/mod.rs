//! The arithmetic that several views share: CPUs, memory, CPU time and load. Files that say the same thing say it
//! alike, because all of them use these modules.

pub mod cpu_time;
pub mod cpus;
pub(crate) mod disks;
pub(crate) mod frequency;
pub(crate) mod hugepages;
pub(crate) mod irq;
pub mod load;
pub(crate) mod meminfo;
pub mod memory;
pub(crate) mod memory_block;
pub mod nodes;
pub mod threads;
pub mod vmstat;
