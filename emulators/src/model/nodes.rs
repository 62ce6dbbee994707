//! The memory nodes of the container: cpuset.mems.effective.

use crate::cgroup::cpuset::read_mems;
use crate::cpulist::CpuSet;
use crate::{Context, Controller, Error};

const ONLINE: &str = "/sys/devices/system/node/online";

/// The machine's nodes and those of them that the container may take memory from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// The machine's online nodes.
    pub online: CpuSet,
    /// The container's.
    pub allowed: CpuSet,
}

/// The nodes of the container.
pub fn read(cx: &Context<'_>) -> Result<Nodes, Error> {
    let online = CpuSet::parse_list(&cx.host.read(ONLINE)?)
        .ok_or_else(|| Error::malformed(ONLINE, "not a list of nodes"))?;
    let effective = match cx.container.cgroup.of(Controller::Cpuset) {
        Some(hierarchy) => read_mems(hierarchy, &online)?,
        None => None,
    };
    let allowed = effective.unwrap_or_else(|| online.clone());
    Ok(Nodes { online, allowed })
}
