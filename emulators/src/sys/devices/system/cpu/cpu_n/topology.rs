//! /sys/devices/system/cpu/cpuN/topology/*: which CPUs share a core, a die, a package.
//!
//! Format: drivers/base/topology.c: masks, and the same as lists.
//! Virtual: masks and lists, cut down to visible CPUs.
//! Passed through: ids of cores, dies, clusters and packages.
//! Invented: nothing.

use crate::model::cpus::Cpus;
use crate::sys::devices::system::cpu::{render_list, render_mask};
use crate::{Context, Error};

/// thread_siblings, core_cpus, package_cpus, ... and each with "_list".
pub(super) fn is_view(name: &str) -> bool {
    let mask = name.strip_suffix("_list").unwrap_or(name);
    mask.ends_with("_siblings") || mask.ends_with("_cpus")
}

pub(super) fn render(
    cx: &Context<'_>,
    cpus: &Cpus,
    path: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    if path.ends_with("_list") {
        render_list(cx, cpus, path, &cpus.visible, out)
    } else {
        render_mask(cx, cpus, path, out)
    }
}
