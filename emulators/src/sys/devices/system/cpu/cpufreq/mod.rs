//! /sys/devices/system/cpu/cpufreq: the frequency policies of the container's CPUs.

use crate::directory::{Decision, family, join, split_first, static_view};
use crate::model::cpus::{Cpus, PATH};
use crate::{Context, CpuIds, Error};

pub mod policy_n;

/// Returns what the container sees at a path below. A policy has the number of a CPU. If CPUs are renumbered, links
/// and files would contradict each other, so there are no policies.
pub(super) fn entry(cx: &Context<'_>, cpus: &Cpus, rest: &str) -> Decision {
    let path = join(&join(PATH, "cpufreq"), rest);
    let (name, below) = split_first(rest);
    match family(name, "policy") {
        Some(id) if !cpus.allowed.contains(id) || cpus.ids() == CpuIds::Dense => Decision::Hidden,
        Some(_) if policy_n::is_view(below) => static_view(cx, &path),
        _ => Decision::Passthrough(path),
    }
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
