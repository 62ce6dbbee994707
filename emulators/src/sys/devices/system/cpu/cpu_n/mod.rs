//! /sys/devices/system/cpu/cpuN: one CPU of the container.
//!
//! Format: drivers/base/core.c, topology.c and cacheinfo.c: masks of CPUs, and the same as lists.
//! Virtual: `online`; the masks and lists in `topology` and `cache`, cut down to visible CPUs.
//! Passed through: everything else, constants of the host. Where the host cannot take a CPU offline there is no
//! `online`.
//! Invented: `online` says 0 of a CPU that only a quota hides, which is online on the host.

use crate::directory::{Decision, family, hidden, join, split_first, static_view};
use crate::model::cpus::{Cpus, PATH, render_list, render_mask, renumbered};
use crate::model::nodes;
use crate::{Context, Error, Pace};

/// Returns whether a path of the directory above is cpuN itself.
pub(super) fn is_top(rel: &str) -> bool {
    family(rel, "cpu").is_some()
}

/// Returns a path below the directory of one of the host's CPUs.
fn path(cpu: u32, rest: &str) -> String {
    join(&format!("{PATH}/cpu{cpu}"), rest)
}

/// A directory with masks and lists of CPUs.
struct CpuSets {
    directory: &'static str,
    /// Returns whether a file in it is a mask or a list.
    is_it: fn(&str) -> bool,
}

const CPU_SETS: &[CpuSets] = &[
    // thread_siblings, core_cpus, package_cpus, ... and each with "_list".
    CpuSets {
        directory: "topology",
        is_it: |name| {
            let mask = name.strip_suffix("_list").unwrap_or(name);
            mask.ends_with("_siblings") || mask.ends_with("_cpus")
        },
    },
    CpuSets {
        directory: "cache",
        is_it: |below| {
            let (index, name) = split_first(below);
            index.starts_with("index") && matches!(name, "shared_cpu_list" | "shared_cpu_map")
        },
    },
];

/// Returns what the container sees at a path below cpuN. `cpu` is the host's number.
pub(super) fn entry(cx: &Context<'_>, cpus: &Cpus, cpu: u32, rest: &str) -> Decision {
    let path = path(cpu, rest);
    let (name, below) = split_first(rest);
    let visible = cpus.visible.contains(cpu);
    if let Some(sets) = CPU_SETS.iter().find(|sets| sets.directory == name) {
        return match visible {
            // The kernel does the same when it takes a CPU offline.
            false => Decision::Hidden,
            true if (sets.is_it)(below) => static_view(cx, &path),
            true => Decision::Passthrough(path),
        };
    }
    match name {
        "online" if !below.is_empty() => Decision::Passthrough(path),
        "online" if visible && !cx.host.exists(&path) => Decision::Hidden,
        "online" => Decision::View {
            mode: 0o644,
            pace: Pace::Static,
        },
        // The link leads to a policy that has another number or is hidden.
        "cpufreq" if renumbered(cx) => Decision::Hidden,
        name => match family(name, "node") {
            Some(id) if !nodes::is_shown(cx, id) => Decision::Hidden,
            _ => Decision::Passthrough(path),
        },
    }
}

/// Appends the text of a view below cpuN.
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
            let online = u8::from(cpus.visible.contains(cpu));
            out.extend_from_slice(&[b'0'.saturating_add(online), b'\n']);
            Ok(())
        }
        "topology" | "cache" if path.ends_with("_list") => {
            render_list(cx, cpus, &path, &cpus.visible, out)
        }
        "topology" | "cache" => render_mask(cx, cpus, &path, out),
        _ => Err(hidden(rest)),
    }
}
