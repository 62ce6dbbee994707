//! /sys/devices/system/node/nodeN: one memory node of the container.
//!
//! Format: drivers/base/node.c, mm/hugetlb.c, mm/memory-failure.c.
//! Virtual: `cpulist` and `cpumap`, which list CPUs that are online, cut down to V; nodes, cut down to those of the
//! container; `meminfo` and `vmstat`, each with a source of its own.
//! Passed through: what is not about memory or CPUs.
//! Invented: the zeros of `numastat`, `hugepages` and `memory_failure`: the kernel keeps no such figures per cgroup.

pub mod meminfo;
pub mod vmstat;

use crate::directory::{Decision, family, hidden, join, split_first, static_view};
use crate::model::cpus::{self, render_list, render_mask, renumbered};
use crate::model::memory_block::{self, BLOCK};
use crate::model::nodes::{Nodes, PATH};
use crate::text::{fields, lines};
use crate::{Context, Error, Pace};

/// One kind of computed files below nodeN.
struct File {
    /// The first component of its path.
    name: &'static str,
    /// Returns whether the rest of the path is such a file.
    is_it: fn(&str) -> bool,
    pace: Pace,
    render: fn(&Node<'_>, &Context<'_>, &mut Vec<u8>) -> Result<(), Error>,
}

/// A file of a node that is to be rendered.
struct Node<'a> {
    nodes: &'a Nodes,
    node: u32,
    path: &'a str,
}

const FILES: &[File] = &[
    // node_read_cpulist, node_read_cpumap: the online CPUs next to the node's memory.
    File::new("cpulist", |file, cx, out| {
        let cpus = cpus::read(cx)?;
        render_list(cx, &cpus, file.path, &cpus.visible, out)
    }),
    File::new("cpumap", |file, cx, out| {
        let cpus = cpus::read(cx)?;
        render_mask(cx, &cpus, file.path, &cpus.visible, out)
    }),
    // node_read_distance: how far the other nodes are.
    File::new("distance", render_distance),
    // node_read_numastat: where allocations were placed.
    File::new("numastat", |file, cx, out| {
        for key in lines(&cx.host.read(file.path)?).filter_map(|line| fields(line).next()) {
            out.extend_from_slice(key);
            out.extend_from_slice(b" 0\n");
        }
        Ok(())
    }),
    // One number for each size of huge pages.
    File::new("hugepages", render_zero).below(|below| split_first(below).1.ends_with("_hugepages")),
    // Broken pages of the node.
    File::new("memory_failure", render_zero).below(|below| !below.is_empty()),
    File::new("meminfo", |file, cx, out| {
        meminfo::render(cx, file.nodes, file.node, file.path, out)
    })
    .ticking(),
    File::new("vmstat", |file, cx, out| {
        vmstat::render(cx, file.nodes, file.node, file.path, out)
    })
    .ticking(),
];

impl File {
    const fn new(
        name: &'static str,
        render: fn(&Node<'_>, &Context<'_>, &mut Vec<u8>) -> Result<(), Error>,
    ) -> File {
        File {
            name,
            is_it: str::is_empty,
            pace: Pace::Static,
            render,
        }
    }

    const fn below(mut self, is_it: fn(&str) -> bool) -> File {
        self.is_it = is_it;
        self
    }

    const fn ticking(mut self) -> File {
        self.pace = Pace::Ticking;
        self
    }
}

/// Returns the kind of a file below nodeN.
fn file(rest: &str) -> Option<&'static File> {
    let (name, below) = split_first(rest);
    FILES
        .iter()
        .find(|file| file.name == name && (file.is_it)(below))
}

fn render_zero(_: &Node<'_>, _: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    out.extend_from_slice(b"0\n");
    Ok(())
}

/// Appends the distances of the container's nodes. The kernel's file has one number per online node.
fn render_distance(file: &Node<'_>, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let text = cx.host.read(file.path)?;
    let shown = file
        .nodes
        .online
        .iter()
        .zip(fields(&text))
        .filter(|(node, _)| file.nodes.allowed.contains(*node));
    for (index, (_, distance)) in shown.enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(distance);
    }
    out.push(b'\n');
    Ok(())
}

fn path(node: u32, rest: &str) -> String {
    join(&format!("{PATH}/node{node}"), rest)
}

/// Returns what the container sees at a path below nodeN.
pub(super) fn entry(cx: &Context<'_>, node: u32, rest: &str) -> Result<Decision, Error> {
    let path = path(node, rest);
    if let Some(id) = family(rest, "cpu") {
        return cpu_link(cx, node, id);
    }
    let (name, below) = split_first(rest);
    Ok(match file(rest) {
        Some(file) if file.pace == Pace::Static => static_view(cx, &path),
        // If the kernel does not have the file, the last arm passes the path through, and it does not exist either.
        Some(file) if cx.host.exists(&path) => Decision::View {
            mode: 0o444,
            pace: file.pace,
        },
        _ => match (name, below) {
            // These tell how much memory the host has, or can only be written.
            ("compact" | "reclaim", _) => Decision::Hidden,
            (BLOCK, "") if memory_block::node(cx) == Some(node) && has_blocks(cx) => {
                Decision::Link(format!("../../memory/{BLOCK}"))
            }
            (name, _) if family(name, "memory").is_some() => Decision::Hidden,
            _ => Decision::Passthrough(path),
        },
    })
}

/// Returns whether the host has blocks of memory, so that the container has one.
fn has_blocks(cx: &Context<'_>) -> bool {
    cx.host.is_directory(memory_block::PATH)
}

/// Returns the link to a CPU of the node: the kernel's, which an offline CPU has too, or one with the number that is
/// shown.
fn cpu_link(cx: &Context<'_>, node: u32, id: u32) -> Result<Decision, Error> {
    if !renumbered(cx) {
        return Ok(Decision::Passthrough(path(node, &format!("cpu{id}"))));
    }
    let on_host = |cpu: &u32| cx.host.exists(&path(node, &format!("cpu{cpu}")));
    Ok(match cpus::read(cx)?.host_id(id).filter(on_host) {
        None => Decision::Hidden,
        Some(_) => Decision::Link(format!("../../cpu/cpu{id}")),
    })
}

/// With dense ids, replaces the host's CPUs by those that are shown.
pub(super) fn add_cpus(cx: &Context<'_>, names: &mut Vec<String>) -> Result<(), Error> {
    if !renumbered(cx) {
        return Ok(());
    }
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

/// Replaces the host's blocks of memory by that of the container.
pub(super) fn add_memory(names: &mut Vec<String>) {
    names.retain(|name| family(name, "memory").is_none());
    names.push(BLOCK.to_owned());
    names.sort();
}

/// Appends the text of a view below nodeN.
pub(super) fn render(
    cx: &Context<'_>,
    nodes: &Nodes,
    node: u32,
    rest: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let file = file(rest).ok_or_else(|| hidden(rest))?;
    let path = &path(node, rest);
    (file.render)(&Node { nodes, node, path }, cx, out)
}
