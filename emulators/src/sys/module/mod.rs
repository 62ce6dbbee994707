//! /sys/module: the modules of the kernel, and their parameters.
//!
//! Format: kernel/module/sysfs.c, kernel/params.c.
//! Virtual: `refcnt`, the users of a module: the modules in its `holders`, as in /proc/modules.
//! Passed through: everything else, read-only.
//! Invented: that nobody else uses a module. Addresses of the kernel (`sections`) are hidden.

pub mod nf_conntrack;

use crate::directory::{Counters, Kind};
use crate::{Context, Error};

/// /sys/module.
pub static MODULE: Counters = Counters::new(171, "/sys/module", &["refcnt"], |rel| {
    match rel.split_once('/') {
        Some((_, "refcnt")) => Kind::Number(0o444, users),
        Some((_, below)) if below == "sections" || below.starts_with("sections/") => Kind::Hidden,
        _ => Kind::Kernel,
    }
});

/// Returns the number of modules that use the module whose file `refcnt` is at `path`.
fn users(cx: &Context<'_>, path: &str) -> Result<u64, Error> {
    let holders = path.replace("/refcnt", "/holders");
    let names = match cx.host.is_directory(&holders) {
        true => cx.host.names(&holders)?,
        false => Vec::new(),
    };
    Ok(u64::try_from(names.len()).unwrap_or(u64::MAX))
}
