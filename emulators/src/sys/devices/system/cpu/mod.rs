//! /sys/devices/system/cpu: the container's CPUs.
//!
//! Format: drivers/base/cpu.c, and the drivers that add to it.
//! Virtual: which cpuN and policyN there are, and every list or mask of CPUs.
//! Passed through: everything else, read-only.
//! Invented: `online` of CPUs that only a quota hides says 0.

use crate::cpulist::CpuSet;
use crate::directory::{
    Decision, Directory, DirectoryFacts, family, hidden, join, split_first, static_view,
};
use crate::model::cpus::{self, Cpus};
use crate::{Context, CpuIds, Emulator, Error};

pub mod cpu_n;
pub mod cpufreq;
pub mod offline;
pub mod online;
pub mod possible;
pub mod present;

/// The path, for what is passed through.
pub(crate) const PATH: &str = "/sys/devices/system/cpu";

/// /sys/devices/system/cpu.
#[derive(Debug)]
pub struct Cpu;

/// Lists that only some machines have: cut down to C.
const LISTS: &[&str] = &["enabled", "isolated", "nohz_full", "hotpluggable"];

/// The emulators of files at the top.
fn emulator(name: &str) -> Option<&'static dyn Emulator> {
    let emulators: [&'static dyn Emulator; 4] = [
        &online::Online,
        &possible::Possible,
        &present::Present,
        &offline::Offline,
    ];
    emulators
        .into_iter()
        .find(|emulator| emulator.facts().path.rsplit('/').next() == Some(name))
}

impl Directory for Cpu {
    fn facts(&self) -> &'static DirectoryFacts {
        &DirectoryFacts {
            id: 128,
            path: PATH,
            mode: 0o755,
            views: &[
                "online",
                "offline",
                "possible",
                "present",
                "enabled",
                "isolated",
                "nohz_full",
                "cpuN/online",
                "cpuN/topology/*",
                "cpuN/cache/index*/shared_cpu_*",
                "cpufreq/policyN/*_cpus",
            ],
        }
    }

    fn entry(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        entry(cx, &cpus::read(cx)?, rel)
    }

    fn names(&self, cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error> {
        let cpus = cpus::read(cx)?;
        let Decision::Passthrough(path) = entry(cx, &cpus, rel)? else {
            return Err(hidden(rel));
        };
        let mut candidates = cx.host.names(&path)?;
        if rel.is_empty() {
            // Dense ids may be names that the machine has not, and the machine's may be hidden.
            candidates.retain(|name| family(name, "cpu").is_none());
            candidates.extend(cpus.shown_allowed().iter().map(|id| format!("cpu{id}")));
        } else if cpu_n::is_top(rel) {
            candidates.push("online".to_owned());
        }
        candidates.sort();
        candidates.dedup();
        let mut names = Vec::new();
        for name in candidates {
            if entry(cx, &cpus, &join(rel, &name))? != Decision::Hidden {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn render(&self, cx: &Context<'_>, rel: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        let cpus = cpus::read(cx)?;
        if !matches!(entry(cx, &cpus, rel)?, Decision::View { .. }) {
            return Err(hidden(rel));
        }
        let (name, rest) = split_first(rel);
        if let Some(cpu) = family(name, "cpu").and_then(|id| cpus.machine_id(id)) {
            return cpu_n::render(cx, &cpus, cpu, rest, out);
        }
        if name == "cpufreq" {
            return cpufreq::render(cx, &cpus, rest, out);
        }
        match emulator(rel) {
            Some(emulator) => emulator.render(cx, out),
            None => render_list(cx, &cpus, &join(PATH, rel), &cpus.allowed, out),
        }
    }
}

fn entry(cx: &Context<'_>, cpus: &Cpus, rel: &str) -> Result<Decision, Error> {
    let passthrough = || Decision::Passthrough(join(PATH, rel));
    let (name, rest) = split_first(rel);
    if let Some(id) = family(name, "cpu") {
        return Ok(match cpus.machine_id(id) {
            Some(cpu) => cpu_n::entry(cx, cpus, cpu, rest),
            None => Decision::Hidden,
        });
    }
    Ok(match name {
        "cpufreq" => cpufreq::entry(cx, cpus, rest),
        _ if rest.is_empty() && (emulator(name).is_some() || LISTS.contains(&name)) => {
            static_view(cx, &join(PATH, rel))
        }
        _ => passthrough(),
    })
}

/// A list of the machine's CPUs, cut down to a set.
pub(crate) fn render_list(
    cx: &Context<'_>,
    cpus: &Cpus,
    path: &str,
    scope: &CpuSet,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let text = cx.host.read(path)?;
    // "(null)" is what nohz_full says when there is none.
    let set = CpuSet::parse_list(&text).unwrap_or_default();
    cpus.shown(&set, scope).render_list(out);
    out.push(b'\n');
    Ok(())
}

/// A mask of the machine's CPUs, cut down to V and as wide as it was.
pub(crate) fn render_mask(
    cx: &Context<'_>,
    cpus: &Cpus,
    path: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let text = cx.host.read(path)?;
    let set = CpuSet::parse_mask(&text).ok_or_else(|| Error::malformed(path, "not a mask"))?;
    cpus.shown(&set, &cpus.visible).render_mask_like(&text, out);
    out.push(b'\n');
    Ok(())
}

/// Whether CPUs have other numbers than on the machine.
pub(crate) fn renumbered(cx: &Context<'_>) -> bool {
    cx.settings.cpu_ids == CpuIds::Dense
}
