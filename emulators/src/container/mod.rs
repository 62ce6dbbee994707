//! One container, as far as its views depend on it.

use std::time::Duration;

pub(crate) mod history;
mod values;

pub use history::{History, Shown};
pub use values::Values;

use crate::Cgroup;

/// A container: where its numbers come from, who it is, and what it was shown last.
#[derive(Debug)]
pub struct Container {
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// What tells it from others.
    pub identity: Identity,
    /// The last shown counters.
    pub history: History,
    /// What it has written.
    pub tunables: Values,
}

/// What tells a container from others, fixed when it is attached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Its name.
    pub id: String,
    /// CLOCK_BOOTTIME of the host when its first process started.
    pub start: Duration,
    /// In a time namespace of its own: what the kernel adds to CLOCK_BOOTTIME there, in
    /// nanoseconds (/proc/\<pid>/timens_offsets).
    pub boottime_offset: Option<i128>,
    /// Index of its pid namespace in the NSpid line of its processes; 0 is the host's.
    pub pid_level: u32,
    /// Whether the kernel keeps a kernel/pid_max for its pid namespace.
    pub pid_max_is_own: bool,
    /// Its network namespace; none where that is the machine's.
    pub network: Option<Network>,
    /// Its random boot id, a version 4 UUID.
    pub boot_id: [u8; 16],
    /// A secret of the machine that no container sees, of this boot.
    pub host_secret: [u8; 32],
}

/// A network namespace of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// The tunables below /proc/sys/net that the kernel keeps for it, by id: who may can set them there.
    pub own_tunables: Vec<u16>,
}
