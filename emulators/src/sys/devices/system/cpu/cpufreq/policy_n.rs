//! /sys/devices/system/cpu/cpufreq/policyN/{affected,related}_cpus: whose frequency it is.
//!
//! Format: cpufreq_show_cpus, drivers/cpufreq/cpufreq.c: numbers and spaces.
//! Virtual: `affected_cpus`, which are online, cut down to V; `related_cpus`, which need not be, cut down to C.
//! Passed through: everything else of the policy.
//! Invented: nothing.

use crate::model::cpus::{Cpus, parse_numbers};
use crate::text::put;
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
