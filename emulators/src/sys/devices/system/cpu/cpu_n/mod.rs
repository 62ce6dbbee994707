//! /sys/devices/system/cpu/cpuN: one CPU of the container.

use crate::directory::{Decision, family, hidden, join, split_first, static_view};
use crate::model::cpus::Cpus;
use crate::sys::devices::system::{cpu, node};
use crate::{Context, Error};

pub mod cache;
pub mod online;
pub mod topology;

/// Whether a path of the directory above is cpuN itself.
pub(super) fn is_top(rel: &str) -> bool {
    family(rel, "cpu").is_some()
}

/// The directory of one of the machine's CPUs.
fn path(cpu: u32, rest: &str) -> String {
    join(&format!("{}/cpu{cpu}", cpu::PATH), rest)
}

/// What is at a path below cpuN; `cpu` is the machine's number.
pub(super) fn entry(cx: &Context<'_>, cpus: &Cpus, cpu: u32, rest: &str) -> Decision {
    let path = path(cpu, rest);
    let (name, below) = split_first(rest);
    let visible = cpus.visible.contains(cpu);
    match name {
        "online" if below.is_empty() => online::entry(cx, cpus, cpu, &path),
        // As the kernel does when it takes a CPU offline.
        "topology" | "cache" if !visible => Decision::Hidden,
        "topology" if topology::is_view(below) => static_view(cx, &path),
        "cache" if cache::is_view(below) => static_view(cx, &path),
        // Links to what has another number, or is hidden.
        "cpufreq" if cpu::renumbered(cx) => Decision::Hidden,
        name => match family(name, "node") {
            Some(id) if !node::is_shown(cx, id) => Decision::Hidden,
            _ => Decision::Passthrough(path),
        },
    }
}

/// The text of a view below cpuN.
pub(super) fn render(
    cx: &Context<'_>,
    cpus: &Cpus,
    cpu: u32,
    rest: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let path = path(cpu, rest);
    match split_first(rest).0 {
        "online" => {
            online::render(cpus, cpu, out);
            Ok(())
        }
        "topology" => topology::render(cx, cpus, &path, out),
        "cache" => cache::render(cx, cpus, &path, out),
        _ => Err(hidden(rest)),
    }
}
