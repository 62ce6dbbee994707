//! /sys/devices/system/cpu/cpufreq/policyN: a frequency, and whose it is.
//!
//! Format: cpufreq_show_cpus, drivers/cpufreq/cpufreq.c: numbers and spaces; a number in the other files.
//! Virtual: `affected_cpus`, which are online, cut down to V; `related_cpus`, which need not be, cut down to C.
//! Passed through: everything else of the policy.
//! Invented: the present frequency, in `scaling_cur_freq`, `cpuinfo_cur_freq` and `cpuinfo_avg_freq`, is the nominal one, as
//! in /proc/cpuinfo: the kernel's tells what others do. Where that is not known it is the highest.

use crate::directory::family;
use crate::model::cpus::{Cpus, parse_numbers};
use crate::model::frequency;
use crate::text::put;
use crate::{Context, Error};

pub(super) fn is_view(name: &str) -> bool {
    matches!(name, "affected_cpus" | "related_cpus") || PRESENT.contains(&name)
}

/// The files that tell the present frequency.
const PRESENT: &[&str] = &["cpuinfo_avg_freq", "cpuinfo_cur_freq", "scaling_cur_freq"];

pub(super) fn render(
    cx: &Context<'_>,
    cpus: &Cpus,
    path: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let (policy, name) = path.rsplit_once('/').unwrap_or(("", path));
    if PRESENT.contains(&name) {
        return render_frequency(cx, policy, out);
    }
    let scope = match path.ends_with("/affected_cpus") {
        true => &cpus.visible,
        false => &cpus.allowed,
    };
    let mut separator = "";
    for cpu in cpus
        .shown(&parse_numbers(&cx.host.read(path)?), scope)
        .iter()
    {
        put(out, format_args!("{separator}{cpu}"));
        separator = " ";
    }
    out.push(b'\n');
    Ok(())
}

/// Appends the nominal frequency of the CPU that a policy is numbered by.
fn render_frequency(cx: &Context<'_>, policy: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    let (_, name) = policy.rsplit_once('/').unwrap_or(("", policy));
    match family(name, "policy").and_then(|cpu| frequency::read(cx, cpu)) {
        Some(khz) => put(out, format_args!("{khz}\n")),
        None => out.extend_from_slice(&cx.host.read(&format!("{policy}/cpuinfo_max_freq"))?),
    }
    Ok(())
}
