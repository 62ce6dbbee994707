//! What the daemon finds out about a container, from a pidfd of one of its processes.
//!
//! Everything comes from what the kernel says about the process (`/proc/<pid>` of the host); nothing that
//! the container itself wrote is read.

mod cgroup;
mod describe;
pub mod mountinfo;
pub mod network;
mod pid_max;
pub mod procfs;
pub(crate) mod visit;

use serde::{Deserialize, Serialize};

pub use cgroup::Membership;
pub(crate) use describe::has_ended;
pub use describe::{Described, Subject, describe, describe_again, open_pidfd};

/// What the server is told of a container. Values only; the descriptors travel beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its name.
    pub id: String,
    /// When its first process started, in nanoseconds of the host's CLOCK_BOOTTIME.
    pub start_nsec: u64,
    /// The offset of CLOCK_BOOTTIME in its time namespace in nanoseconds; none when it shares the host's.
    pub boottime_offset_nsec: Option<i64>,
    /// How many pid namespaces lie between the host's and its own: the index into `NSpid` lines.
    pub pid_level: u32,
    /// Whether the kernel keeps a kernel/pid_max for its pid namespace.
    #[serde(default)]
    pub pid_max_is_own: bool,
    /// Its network namespace; none where that is the host's.
    #[serde(default)]
    pub network: Option<network::NetworkFacts>,
    /// The user that its root is on the host.
    pub uid: u32,
    /// The group that its root is on the host.
    pub gid: u32,
    /// Its cgroup in each hierarchy; a directory descriptor for each travels beside.
    pub hierarchies: Vec<HierarchyFacts>,
}

/// A cgroup of a container in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyFacts {
    /// 1 or 2.
    pub version: u8,
    /// The controllers bound to the hierarchy, by the kernel's names.
    pub controllers: Vec<String>,
    /// Components of the cgroup's path below the hierarchy's mount; 0 is its root.
    pub depth: u32,
}
