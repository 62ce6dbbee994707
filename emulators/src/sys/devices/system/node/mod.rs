//! /sys/devices/system/node: the container's memory nodes.
//!
//! Format: drivers/base/node.c.
//! Virtual: which nodeN there are, their CPUs, their memory and their counters.
//! Passed through: what is not about memory or CPUs, read-only.
//! Invented: a node's share of the container's memory, see model/nodes.rs.

use crate::cpulist::CpuSet;
use crate::directory::{
    Decision, Directory, DirectoryFacts, family, hidden, join, split_first, static_view,
};
use crate::model::nodes::{self, Nodes, PATH};
use crate::{Context, Error};

pub mod node_n;

/// /sys/devices/system/node.
#[derive(Debug)]
pub struct Node;

/// Returns whether a file is a list of nodes. `online` and `possible` list all nodes of the container.
fn is_list(name: &str) -> bool {
    matches!(name, "online" | "possible") || name.starts_with("has_")
}

impl Directory for Node {
    fn facts(&self) -> &DirectoryFacts {
        &DirectoryFacts {
            id: 129,
            path: PATH,
            mode: 0o755,
            views: &[
                "online",
                "possible",
                "has_*",
                "nodeN/cpulist",
                "nodeN/cpumap",
                "nodeN/distance",
                "nodeN/meminfo",
                "nodeN/numastat",
                "nodeN/vmstat",
                "nodeN/hugepages/*/*_hugepages",
                "nodeN/memory_failure/*",
            ],
        }
    }

    fn entry(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        entry(cx, &nodes::read(cx)?, rel)
    }

    fn names(&self, cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error> {
        let nodes = nodes::read(cx)?;
        let Decision::Passthrough(path) = entry(cx, &nodes, rel)? else {
            return Err(hidden(rel));
        };
        let mut candidates = cx.host.names(&path)?;
        if family(rel, "node").is_some() {
            node_n::add_cpus(cx, &mut candidates)?;
            node_n::add_memory(&mut candidates);
        }
        let mut names = Vec::new();
        for name in candidates {
            if entry(cx, &nodes, &join(rel, &name))? != Decision::Hidden {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn render(&self, cx: &Context<'_>, rel: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        let nodes = nodes::read(cx)?;
        if !matches!(entry(cx, &nodes, rel)?, Decision::View { .. }) {
            return Err(hidden(rel));
        }
        let (name, rest) = split_first(rel);
        match family(name, "node") {
            Some(node) => node_n::render(cx, &nodes, node, rest, out),
            None => render_list(cx, &nodes, name, out),
        }
    }
}

fn entry(cx: &Context<'_>, nodes: &Nodes, rel: &str) -> Result<Decision, Error> {
    // There are links to other nodes, for example below nodeN/accessN.
    let is_hidden = |name| family(name, "node").is_some_and(|id| !nodes.allowed.contains(id));
    if rel.split('/').any(is_hidden) {
        return Ok(Decision::Hidden);
    }
    let (name, rest) = split_first(rel);
    match family(name, "node") {
        Some(node) => node_n::entry(cx, node, rest),
        None if rest.is_empty() && is_list(name) => Ok(static_view(cx, &join(PATH, rel))),
        None => Ok(Decision::Passthrough(join(PATH, rel))),
    }
}

fn render_list(
    cx: &Context<'_>,
    nodes: &Nodes,
    name: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    if matches!(name, "online" | "possible") {
        nodes.allowed.render_list(out);
    } else {
        let path = join(PATH, name);
        let list = CpuSet::parse_list(&cx.host.read(&path)?)
            .ok_or_else(|| Error::malformed(&path, "not a list of nodes"))?;
        list.intersection(&nodes.allowed).render_list(out);
    }
    out.push(b'\n');
    Ok(())
}
