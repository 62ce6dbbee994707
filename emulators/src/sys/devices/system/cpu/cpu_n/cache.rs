//! /sys/devices/system/cpu/cpuN/cache/index*/shared_cpu_{list,map}: which CPUs share a cache.
//!
//! Format: drivers/base/cacheinfo.c.
//! Virtual: the two files, cut down to visible CPUs.
//! Passed through: everything else about the cache, constants of the machine.
//! Invented: nothing.

use crate::directory::split_first;
use crate::model::cpus::Cpus;
use crate::sys::devices::system::cpu::{render_list, render_mask};
use crate::{Context, Error};

pub(super) fn is_view(below: &str) -> bool {
    let (index, name) = split_first(below);
    index.starts_with("index") && matches!(name, "shared_cpu_list" | "shared_cpu_map")
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
