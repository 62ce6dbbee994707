//! Views below /proc.

pub mod buddyinfo;
pub mod cpuinfo;
pub mod diskstats;
pub mod interrupts;
pub mod latency_stats;
pub mod loadavg;
pub mod meminfo;
pub mod pagetypeinfo;
pub mod pressure;
pub mod sched_debug;
pub mod schedstat;
pub mod slabinfo;
pub mod softirqs;
pub mod stat;
pub mod swaps;
pub mod sys;
pub mod timer_list;
pub mod uptime;
pub mod vmstat;
pub mod zoneinfo;
