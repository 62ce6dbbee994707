//! The memory nodes of the container: cpuset.mems.effective.

use crate::cgroup::cpuset::read_mems;
use crate::cpulist::CpuSet;
use crate::model::meminfo::Line;
use crate::text::lines;
use crate::{Context, Controller, Error};

/// The directory of the nodes.
pub(crate) const PATH: &str = "/sys/devices/system/node";

const ONLINE: &str = "/sys/devices/system/node/online";

/// The online nodes of the host, and those that the container may take memory from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// The online nodes of the host.
    pub online: CpuSet,
    /// The nodes that the container may take memory from.
    pub allowed: CpuSet,
}

/// Reads the nodes of the container.
pub fn read(cx: &Context<'_>) -> Result<Nodes, Error> {
    let online = CpuSet::parse_list(&cx.host.read(ONLINE)?)
        .ok_or_else(|| Error::malformed(ONLINE, "not a list of nodes"))?;
    let effective = match cx.cgroup()?.of(Controller::Cpuset) {
        Some(hierarchy) => read_mems(hierarchy, &online)?,
        None => None,
    };
    let allowed = effective.unwrap_or_else(|| online.clone());
    Ok(Nodes { online, allowed })
}

/// Returns whether the container has this node.
pub(crate) fn is_shown(cx: &Context<'_>, node: u32) -> bool {
    read(cx).is_ok_and(|nodes| nodes.allowed.contains(node))
}

/// A node's share of the container's memory. It is the node's share of the memory of all nodes that the container may
/// use, because the kernel has no limit per node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    /// The node's memory in KiB.
    pub(crate) node_kib: u64,
    /// The memory of all of the container's nodes.
    sum_kib: u64,
}

impl Share {
    pub(crate) fn read(cx: &Context<'_>, nodes: &Nodes, node: u32) -> Result<Share, Error> {
        let mut share = Share {
            node_kib: 0,
            sum_kib: 0,
        };
        for other in nodes.allowed.iter() {
            let path = format!("{PATH}/node{other}/meminfo");
            let kib = parse_total_kib(&cx.host.read(&path)?)
                .ok_or_else(|| Error::malformed(&path, "no MemTotal"))?;
            share.sum_kib = share.sum_kib.saturating_add(kib);
            if other == node {
                share.node_kib = kib;
            }
        }
        Ok(share)
    }

    pub(crate) fn of(&self, value: u64) -> u64 {
        let part = u128::from(value).saturating_mul(u128::from(self.node_kib));
        u64::try_from(part.checked_div(u128::from(self.sum_kib)).unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

/// Parses "Node 0 MemTotal:       24684092 kB".
pub(crate) fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let rest = line.strip_prefix(b"Node ")?;
    let space = rest.iter().position(|&byte| byte == b' ')?;
    Line::parse_of_node(rest.get(space.checked_add(1)?..)?)
}

/// Parses the node's memory on the host, in KiB.
fn parse_total_kib(text: &[u8]) -> Option<u64> {
    lines(text)
        .filter_map(parse_line)
        .find(|line| line.key == "MemTotal")
        .map(|line| line.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::put;

    const NODE: &[u8] = b"Node 0 MemTotal:         989880 kB\nNode 0 Active(anon):      20732 kB\n\
        Node 0 HugePages_Total:     0\n";

    #[test]
    fn the_columns_are_the_kernels() {
        let mut out = Vec::new();
        for line in lines(NODE).filter_map(parse_line) {
            put(&mut out, format_args!("Node 0 "));
            line.render(line.number, &mut out);
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            String::from_utf8(NODE.into()).unwrap()
        );
        assert_eq!(parse_total_kib(NODE), Some(989_880));
    }
}
