//! /sys/devices/system/cpu/cpufreq/policyN/{affected,related}_cpus: whose frequency it is.
//!
//! Format: cpufreq_show_cpus, drivers/cpufreq/cpufreq.c: numbers and spaces.
//! Virtual: the two files, cut down to visible CPUs.
//! Passed through: everything else of the policy.
//! Invented: nothing.

use crate::cpulist::CpuSet;
use crate::model::cpus::Cpus;
use crate::text::{fields, parse_u64, put};
use crate::{Context, Error};

pub(super) fn is_view(name: &str) -> bool {
    matches!(name, "affected_cpus" | "related_cpus")
}

pub(super) fn render(
    cx: &Context<'_>,
    cpus: &Cpus,
    path: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let text = cx.host.read(path)?;
    let set: CpuSet = fields(&text)
        .filter_map(parse_u64)
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect();
    let mut separator = "";
    for cpu in cpus.shown(&set, &cpus.visible).iter() {
        put(out, format_args!("{separator}{cpu}"));
        separator = " ";
    }
    out.push(b'\n');
    Ok(())
}
