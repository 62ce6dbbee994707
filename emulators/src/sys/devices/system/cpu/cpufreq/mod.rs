//! /sys/devices/system/cpu/cpufreq: the frequency policies of the container's CPUs.

use crate::directory::{Decision, family, join, split_first};
use crate::model::cpus::{Cpus, PATH, is_policy_of};
use crate::{Context, CpuIds, Error, Pace};

pub mod policy_n;

/// Returns what the container sees at a path below. A policy is shown if a CPU of C has it; its number is that of the
/// first CPU that has it. If CPUs are renumbered, links and files would contradict each other, so there are no policies.
pub(super) fn entry(cx: &Context<'_>, cpus: &Cpus, rest: &str) -> Result<Decision, Error> {
    let path = join(&join(PATH, "cpufreq"), rest);
    let (name, below) = split_first(rest);
    let Some(id) = family(name, "policy") else {
        return Ok(Decision::Passthrough(path));
    };
    let policy = format!("{PATH}/cpufreq/{name}");
    let is_shown = cpus.ids() == CpuIds::Physical
        && (cpus.allowed.contains(id) || is_policy_of(cx, cpus, &policy)?);
    Ok(match split_first(below).0 {
        _ if !is_shown => Decision::Hidden,
        // How long each frequency was used. A kernel without CONFIG_CPU_FREQ_STAT does not have it either.
        "stats" => Decision::Hidden,
        _ if policy_n::is_view(below) => match cx.host.mode(&path) {
            Some(mode) => Decision::View {
                mode,
                pace: Pace::Static,
            },
            None => Decision::Hidden,
        },
        _ => Decision::Passthrough(path),
    })
}

/// Appends the text of a view below.
pub(super) fn render(
    cx: &Context<'_>,
    cpus: &Cpus,
    rest: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    policy_n::render(cx, cpus, &join(&join(PATH, "cpufreq"), rest), out)
}
