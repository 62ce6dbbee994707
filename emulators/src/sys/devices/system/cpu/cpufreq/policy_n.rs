//! /sys/devices/system/cpu/cpufreq/policyN/{affected,related}_cpus: whose frequency it is.
//!
//! Format: cpufreq_show_cpus, drivers/cpufreq/cpufreq.c: numbers and spaces.
//! Virtual: `affected_cpus`, which are online, cut down to V; `related_cpus`, which need not be, cut down to C.
//! Passed through: everything else of the policy.
//! Invented: nothing.

use crate::cpulist::CpuSet;
use crate::model::cpus::Cpus;
use crate::text::{fields, parse_u64, put};
use crate::{Context, Error};

pub(super) fn is_view(name: &str) -> bool {
    matches!(name, "affected_cpus" | "related_cpus")
}

/// Returns whether a CPU of C has the policy at `path`. A path that does not exist is no policy.
pub(in crate::sys::devices::system::cpu) fn has_cpu(
    cx: &Context<'_>,
    cpus: &Cpus,
    path: &str,
) -> Result<bool, Error> {
    let text = cx.host.read_optional(&format!("{path}/related_cpus"))?;
    let has_one = |text: &[u8]| !parse(text).intersection(&cpus.allowed).is_empty();
    Ok(text.is_some_and(|text| has_one(&text)))
}

/// Parses numbers between spaces.
fn parse(text: &[u8]) -> CpuSet {
    fields(text)
        .filter_map(parse_u64)
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect()
}

pub(super) fn render(
    cx: &Context<'_>,
    cpus: &Cpus,
    path: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let scope = match path.ends_with("/affected_cpus") {
        true => &cpus.visible,
        false => &cpus.allowed,
    };
    let mut separator = "";
    for cpu in cpus.shown(&parse(&cx.host.read(path)?), scope).iter() {
        put(out, format_args!("{separator}{cpu}"));
        separator = " ";
    }
    out.push(b'\n');
    Ok(())
}
