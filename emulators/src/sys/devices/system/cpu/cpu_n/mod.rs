//! /sys/devices/system/cpu/cpuN: one CPU of the host, which is offline if it is not in V.
//!
//! Format: drivers/base/core.c, topology.c and cacheinfo.c: masks of CPUs, and the same as lists; kernel/cpu.c.
//! Virtual: `online` and `hotplug`; the masks and lists in `topology` and `cache`, cut down to C. A CPU outside of C has
//! none of the entries that the kernel removes when a CPU goes offline. A CPU of C that only a quota takes out of V keeps
//! them: threads run on it, and programs that pin threads need its topology.
//! Passed through: everything else, constants of the host. Where the host cannot take a CPU offline there is no `online`,
//! unless the CPU is not in V.
//! Invented: a CPU that is not in V is offline. The counters of idle states and of throttling are 0, because they are the
//! host's.

use crate::directory::{Decision, family, hidden, join, split_first, static_view};
use crate::model::cpus::{Cpus, PATH, is_policy_of, render_list, render_mask, renumbered};
use crate::model::nodes;
use crate::{Context, Error, Pace};

/// The entries that the kernel removes when a CPU goes offline: topology_remove_dev, cacheinfo_cpu_pre_down,
/// mc_cpu_down_prep, thermal_throttle_offline, cpuid_cpu_offline (arm64).
const ONLINE_ONLY: &[&str] = &["topology", "cache", "microcode", "thermal_throttle", "regs"];

/// Returns whether a path of the directory above is cpuN itself.
pub(super) fn is_top(rel: &str) -> bool {
    family(rel, "cpu").is_some()
}

/// Returns a path below the directory of one of the host's CPUs.
fn path(cpu: u32, rest: &str) -> String {
    join(&format!("{PATH}/cpu{cpu}"), rest)
}

/// One kind of computed files below cpuN, which are computed where the host has them.
struct File {
    /// The first component of its path.
    name: &'static str,
    /// Returns whether the rest of the path is such a file.
    is_it: fn(&str) -> bool,
    text: Text,
}

/// The text of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    /// A mask or a list, reduced to C.
    CpuSet,
    /// 0.
    Zero,
}

const FILES: &[File] = &[
    // thread_siblings, core_cpus, package_cpus, ... and each with "_list".
    File {
        name: "topology",
        is_it: |name| {
            let mask = name.strip_suffix("_list").unwrap_or(name);
            mask.ends_with("_siblings") || mask.ends_with("_cpus")
        },
        text: Text::CpuSet,
    },
    File {
        name: "cache",
        is_it: |below| {
            let (index, name) = split_first(below);
            index.starts_with("index") && matches!(name, "shared_cpu_list" | "shared_cpu_map")
        },
        text: Text::CpuSet,
    },
    // How often and how long the CPU was idle (drivers/cpuidle/sysfs.c).
    File {
        name: "cpuidle",
        is_it: |below| {
            let (state, name) = split_first(below);
            let name = name.strip_prefix("s2idle/").unwrap_or(name);
            state.starts_with("state")
                && matches!(name, "usage" | "time" | "above" | "below" | "rejected")
        },
        text: Text::Zero,
    },
    // How often and how long the CPU was too hot (drivers/thermal/intel/therm_throt.c).
    File {
        name: "thermal_throttle",
        is_it: |below| !below.is_empty(),
        text: Text::Zero,
    },
    // The same on s390 (arch/s390/kernel/smp.c).
    File {
        name: "idle_count",
        is_it: str::is_empty,
        text: Text::Zero,
    },
    File {
        name: "idle_time_us",
        is_it: str::is_empty,
        text: Text::Zero,
    },
];

/// The entries that no container has: where the kernel writes notes when it crashes (drivers/base/cpu.c), and registers of
/// POWER that count what the CPU has done (arch/powerpc/kernel/sysfs.c).
const HIDDEN: &[&str] = &[
    "crash_notes",
    "crash_notes_size",
    "idle_purr",
    "idle_spurr",
    "purr",
    "spurr",
];

/// Returns whether a name is one of [`HIDDEN`], or of a counter of events of POWER: pmc1, mmcr0.
fn is_hidden(name: &str) -> bool {
    HIDDEN.contains(&name) || name.starts_with("pmc") || name.starts_with("mmcr")
}

/// Returns the kind of a file below cpuN.
fn file(rest: &str) -> Option<&'static File> {
    let (name, below) = split_first(rest);
    FILES
        .iter()
        .find(|file| file.name == name && (file.is_it)(below))
}

/// Returns what the container sees at a path below cpuN. `cpu` is the host's number.
pub(super) fn entry(
    cx: &Context<'_>,
    cpus: &Cpus,
    cpu: u32,
    rest: &str,
) -> Result<Decision, Error> {
    let path = path(cpu, rest);
    let (name, below) = split_first(rest);
    if ONLINE_ONLY.contains(&name) && !cpus.allowed.contains(cpu) {
        return Ok(Decision::Hidden);
    }
    if is_hidden(name) {
        return Ok(Decision::Hidden);
    }
    if file(rest).is_some() {
        return Ok(static_view(cx, &path));
    }
    let online = cpus.visible.contains(cpu);
    Ok(match (name, below) {
        ("online", "") if online && !cx.host.exists(&path) => Decision::Hidden,
        ("online", "") => view(0o644),
        ("hotplug", "state" | "target") if online || !cx.host.exists(&path) => {
            Decision::Passthrough(path)
        }
        ("hotplug", "state") => view(0o444),
        ("hotplug", "target") => view(0o644),
        // How much the CPU has done since the host was booted (drivers/acpi/cppc_acpi.c).
        ("acpi_cppc", "feedback_ctrs") => Decision::Hidden,
        // The link leads to a policy that has another number.
        ("cpufreq", _) if renumbered(cx) => Decision::Hidden,
        ("cpufreq", _) if !has_policy(cx, cpus, cpu)? => Decision::Hidden,
        (name, _) => match family(name, "node") {
            Some(id) if !nodes::is_shown(cx, id) => Decision::Hidden,
            _ => Decision::Passthrough(path),
        },
    })
}

/// Returns a file that has no counterpart on the host, or another text than that.
fn view(mode: u16) -> Decision {
    Decision::View {
        mode,
        pace: Pace::Static,
    }
}

/// Returns whether the frequency policy of a CPU is shown. It is the policy of all CPUs whose frequency changes together.
fn has_policy(cx: &Context<'_>, cpus: &Cpus, cpu: u32) -> Result<bool, Error> {
    Ok(cpus.allowed.contains(cpu) || is_policy_of(cx, cpus, &path(cpu, "cpufreq"))?)
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
    match file(rest).map(|file| file.text) {
        Some(Text::CpuSet) if path.ends_with("_list") => {
            render_list(cx, cpus, &path, &cpus.allowed, out)
        }
        Some(Text::CpuSet) => render_mask(cx, cpus, &path, &cpus.allowed, out),
        Some(Text::Zero) => {
            out.extend_from_slice(b"0\n");
            Ok(())
        }
        None if rest == "online" => {
            let online = u8::from(cpus.visible.contains(cpu));
            out.extend_from_slice(&[b'0'.saturating_add(online), b'\n']);
            Ok(())
        }
        // CPUHP_OFFLINE, for a CPU that is not in V.
        None if rest.starts_with("hotplug/") => {
            out.extend_from_slice(b"0\n");
            Ok(())
        }
        None => Err(hidden(rest)),
    }
}
