//! One container: what its views depend on.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub(crate) mod history;
mod values;

pub use history::{History, Shown};
pub use values::Values;

use crate::Cgroup;

/// A container, from which views are computed.
#[derive(Debug)]
pub struct Container {
    /// The cgroup of the container.
    pub cgroup: Cgroup,
    /// The identity of the container.
    pub identity: Identity,
    /// The counters that it was shown last.
    pub history: History,
    /// The values that it has written to tunables.
    pub tunables: Values,
    /// True if its programs can measure what runs on any CPU, as perf and eBPF agents do. These open one buffer for each
    /// CPU that is online, and lose what happens on the others.
    pub can_measure_cpus: AtomicBool,
}

/// The identity of a container. It is fixed when the container is attached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The name of the container.
    pub id: String,
    /// CLOCK_BOOTTIME of the host when its first process started.
    pub start: Duration,
    /// The nanoseconds that the kernel adds to CLOCK_BOOTTIME in the container's time namespace
    /// (/proc/\<pid>/timens_offsets); `None` in the host's.
    pub boottime_offset: Option<i128>,
    /// The index of its pid namespace in the NSpid line of its processes; 0 is the host's.
    pub pid_level: u32,
    /// True if the kernel has a pid_max for its pid namespace.
    pub pid_max_is_own: bool,
    /// The network namespace of the container; `None` if that is the host's.
    pub network: Option<Network>,
    /// The random boot id of the container, a version 4 UUID.
    pub boot_id: [u8; 16],
    /// A secret of the host, for this boot. No container sees it.
    pub host_secret: [u8; 32],
}

/// A network namespace that is not the host's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// The ids of tunables below /proc/sys/net for which the kernel has a value in this namespace. A container with
    /// the right to set them sets those.
    pub own_tunables: Vec<u16>,
}
