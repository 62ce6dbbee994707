//! What the daemon tells the server about a container. Values only; the descriptors travel beside them.

use serde::{Deserialize, Serialize};

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
    pub network: Option<NetworkFacts>,
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

/// What the server is told of a network namespace that is not the machine's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// What can be set in it, by absolute path, in those directories where the kernel keeps some for all namespaces.
    pub settable: Vec<String>,
}
