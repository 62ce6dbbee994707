//! Facts about a container, from the daemon for the server. They are values only; the descriptors travel beside them.

use serde::{Deserialize, Serialize};

/// Facts about a container. A directory descriptor for each of the hierarchies travels beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The name of the container.
    pub id: String,
    /// When its first process started, in nanoseconds of the host's CLOCK_BOOTTIME.
    pub start_nsec: u64,
    /// The offset of CLOCK_BOOTTIME in its time namespace in nanoseconds; none when it shares the host's.
    pub boottime_offset_nsec: Option<i64>,
    /// The number of pid namespaces between that of the host and that of the container: the index into `NSpid` lines.
    pub pid_level: u32,
    /// True if the kernel keeps a kernel/pid_max for the pid namespace of the container.
    #[serde(default)]
    pub pid_max_is_own: bool,
    /// The network namespace of the container; none where it is that of the host.
    #[serde(default)]
    pub network: Option<NetworkFacts>,
    /// The user that its root is on the host.
    pub uid: u32,
    /// The group that its root is on the host.
    pub gid: u32,
    /// The cgroup of the container in each hierarchy.
    pub hierarchies: Vec<HierarchyFacts>,
    /// True if its programs can measure what runs on any CPU: the bounding set of its init has a capability for that, in
    /// the initial user namespace. The server looks again, because a bounding set can shrink.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_measure_cpus: bool,
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

/// Facts about a network namespace that is not that of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// The absolute paths of the files that can be written to in it, in directories where the kernel keeps some files
    /// for all namespaces.
    pub settable: Vec<String>,
}
