//! The CPUs and memory nodes that a cgroup may use.

use crate::Error;
use crate::cgroup::{Hierarchy, Version};
use crate::cpulist::CpuSet;

/// Reads the effective CPUs: those of the nearest cgroup that has one in common with `online`; the root counts too.
/// The kernel searches upwards in the same way (guarantee_online_cpus, kernel/cgroup/cpuset.c). Returns `None`
/// without the controller.
pub(crate) fn read_cpus(hierarchy: &Hierarchy, online: &CpuSet) -> Result<Option<CpuSet>, Error> {
    read_effective(
        hierarchy,
        online,
        "cpuset.cpus.effective",
        "cpuset.effective_cpus",
    )
}

/// Reads the effective memory nodes, as [`read_cpus`] reads CPUs.
pub(crate) fn read_mems(hierarchy: &Hierarchy, online: &CpuSet) -> Result<Option<CpuSet>, Error> {
    read_effective(
        hierarchy,
        online,
        "cpuset.mems.effective",
        "cpuset.effective_mems",
    )
}

fn read_effective(
    hierarchy: &Hierarchy,
    online: &CpuSet,
    v2: &'static str,
    v1: &'static str,
) -> Result<Option<CpuSet>, Error> {
    let file = match hierarchy.version {
        Version::V1 => v1,
        Version::V2 => v2,
    };
    for level in 0..=hierarchy.depth {
        if let Some(set) = hierarchy.limit(level, file, CpuSet::parse_list)? {
            let set = set.intersection(online);
            if !set.is_empty() {
                return Ok(Some(set));
            }
        }
    }
    Ok(None)
}
