//! /sys/devices/system/node/nodeN: one memory node of the container.

use crate::directory::{Decision, family, hidden, join, split_first, static_view};
use crate::model::cpus;
use crate::model::nodes::Nodes;
use crate::sys::devices::system::{cpu, node};
use crate::{Context, Error, Pace};

pub mod cpulist;
pub mod cpumap;
pub mod distance;
pub mod hugepages;
pub mod meminfo;
pub mod memory_failure;
pub mod numastat;
pub mod vmstat;

fn path(node: u32, rest: &str) -> String {
    join(&format!("{}/node{node}", node::PATH), rest)
}

/// What is at a path below nodeN.
pub(super) fn entry(cx: &Context<'_>, node: u32, rest: &str) -> Result<Decision, Error> {
    let path = path(node, rest);
    if let Some(id) = family(rest, "cpu") {
        return cpu_link(cx, node, id);
    }
    let (name, below) = split_first(rest);
    Ok(match (name, below) {
        ("meminfo" | "vmstat", "") if cx.host.exists(&path) => Decision::View {
            mode: 0o444,
            pace: Pace::Ticking,
        },
        ("cpulist" | "cpumap" | "distance" | "numastat", "") => static_view(cx, &path),
        ("hugepages", _) if hugepages::is_view(below) => static_view(cx, &path),
        ("memory_failure", _) if memory_failure::is_view(below) => static_view(cx, &path),
        // How much memory the machine has, and where; and what only writes.
        ("compact" | "reclaim", _) => Decision::Hidden,
        (name, _) if family(name, "memory").is_some() => Decision::Hidden,
        _ => Decision::Passthrough(path),
    })
}

/// The link to a CPU of the node: the kernel's, or one that says the number that is shown.
fn cpu_link(cx: &Context<'_>, node: u32, id: u32) -> Result<Decision, Error> {
    let cpus = cpus::read(cx)?;
    let on_machine = |cpu: &u32| cx.host.exists(&path(node, &format!("cpu{cpu}")));
    Ok(match cpus.machine_id(id).filter(on_machine) {
        None => Decision::Hidden,
        Some(_) if cpu::renumbered(cx) => Decision::Link(format!("../../cpu/cpu{id}")),
        Some(cpu) => Decision::Passthrough(path(node, &format!("cpu{cpu}"))),
    })
}

/// Puts the CPUs as they are shown in the place of the machine's.
pub(super) fn add_cpus(cx: &Context<'_>, names: &mut Vec<String>) -> Result<(), Error> {
    names.retain(|name| family(name, "cpu").is_none());
    names.extend(
        cpus::read(cx)?
            .shown_allowed()
            .iter()
            .map(|id| format!("cpu{id}")),
    );
    names.sort();
    Ok(())
}

/// The text of a view below nodeN.
pub(super) fn render(
    cx: &Context<'_>,
    nodes: &Nodes,
    node: u32,
    rest: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let path = path(node, rest);
    match split_first(rest).0 {
        "cpulist" => cpulist::render(cx, &path, out),
        "cpumap" => cpumap::render(cx, &path, out),
        "distance" => distance::render(cx, nodes, &path, out),
        "meminfo" => meminfo::render(cx, nodes, node, &path, out),
        "vmstat" => vmstat::render(cx, nodes, node, &path, out),
        "numastat" => numastat::render(cx, &path, out),
        "hugepages" => {
            hugepages::render(out);
            Ok(())
        }
        "memory_failure" => {
            memory_failure::render(out);
            Ok(())
        }
        _ => Err(hidden(rest)),
    }
}

/// A node's part of what its container has: as large as its part of the memory of those nodes that
/// the container may use. The kernel keeps no limit per node.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// The node's memory in KiB.
    node_kib: u64,
    /// The memory of all of the container's nodes.
    sum_kib: u64,
}

impl Share {
    fn read(cx: &Context<'_>, nodes: &Nodes, node: u32) -> Result<Share, Error> {
        let mut share = Share {
            node_kib: 0,
            sum_kib: 0,
        };
        for other in nodes.allowed.iter() {
            let path = path(other, "meminfo");
            let kib = meminfo::parse_total_kib(&cx.host.read(&path)?)
                .ok_or_else(|| Error::malformed(&path, "no MemTotal"))?;
            share.sum_kib = share.sum_kib.saturating_add(kib);
            if other == node {
                share.node_kib = kib;
            }
        }
        Ok(share)
    }

    fn of(&self, value: u64) -> u64 {
        let part = u128::from(value).saturating_mul(u128::from(self.node_kib));
        u64::try_from(part.checked_div(u128::from(self.sum_kib)).unwrap_or(0)).unwrap_or(u64::MAX)
    }
}
