//! /sys/devices/system/cpu: the container's CPUs.
//!
//! Format: drivers/base/cpu.c, and the drivers that add to it.
//! Virtual: which cpuN and policyN there are, and every list or mask of CPUs.
//! Passed through: everything else, read-only.
//! Invented: `online` of CPUs that only a quota hides says 0.

pub mod cpu_n;
pub mod cpufreq;

use crate::cpulist::CpuSet;
use crate::directory::{
    Decision, Directory, DirectoryFacts, family, hidden, join, split_first, static_view,
};
use crate::model::cpus::{self, Cpus, PATH, render_list};
use crate::view::Render;
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /sys/devices/system/cpu.
#[derive(Debug)]
pub struct Cpu;

/// The files of this directory that are also grafts of their own: show_cpus_attr and print_cpus_offline,
/// drivers/base/cpu.c.
pub static VIEWS: &[View] = &[
    // The CPUs that the container is shown.
    list(22, "/sys/devices/system/cpu/online", render_visible).sources(QUOTA_V1, QUOTA_V2),
    // Those that its threads may run on, which a quota does not change.
    list(23, "/sys/devices/system/cpu/possible", render_allowed).sources(CPUSET_V1, CPUSET_V2),
    list(24, "/sys/devices/system/cpu/present", render_allowed).sources(CPUSET_V1, CPUSET_V2),
    // Those that only a quota hides.
    list(25, "/sys/devices/system/cpu/offline", render_hidden).sources(QUOTA_V1, QUOTA_V2),
];

const CPUSET_V1: &str = "cpuset.effective_cpus";
const CPUSET_V2: &str = "cpuset.cpus.effective";
const QUOTA_V1: &str = "cpuset.effective_cpus, cpu.cfs_quota_us, cpu.cfs_period_us";
const QUOTA_V2: &str = "cpuset.cpus.effective, cpu.max";

/// Returns the row of a list of CPUs, which ends with a newline.
const fn list(id: u16, path: &'static str, render: Render) -> View {
    View::new(id, path, render).steady().needs(Needs::CGROUP)
}

fn render_visible(_: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    put_list(&cpus::read(cx)?.shown_visible(), out)
}

fn render_allowed(_: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    put_list(&cpus::read(cx)?.shown_allowed(), out)
}

fn render_hidden(_: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let cpus = cpus::read(cx)?;
    let hidden = cpus.allowed.difference(&cpus.visible);
    put_list(&cpus.shown(&hidden, &cpus.allowed), out)
}

fn put_list(cpus: &CpuSet, out: &mut Vec<u8>) -> Result<Bound, Error> {
    cpus.render_list(out);
    out.push(b'\n');
    Ok(Bound::Exact)
}

/// Lists that only some hosts have. They are reduced to C.
const LISTS: &[&str] = &["enabled", "isolated", "nohz_full", "hotpluggable"];

/// Returns the row of a file at the top.
fn view(name: &str) -> Option<&'static View> {
    VIEWS
        .iter()
        .find(|view| view.facts().path.rsplit('/').next() == Some(name))
}

impl Directory for Cpu {
    fn facts(&self) -> &DirectoryFacts {
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
            // With dense ids the host may not have a name that is shown, and may have names that are hidden.
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
        if let Some(cpu) = family(name, "cpu").and_then(|id| cpus.host_id(id)) {
            return cpu_n::render(cx, &cpus, cpu, rest, out);
        }
        if name == "cpufreq" {
            return cpufreq::render(cx, &cpus, rest, out);
        }
        match view(rel) {
            Some(view) => view.render(cx, out).map(drop),
            None => render_list(cx, &cpus, &join(PATH, rel), &cpus.allowed, out),
        }
    }
}

fn entry(cx: &Context<'_>, cpus: &Cpus, rel: &str) -> Result<Decision, Error> {
    let passthrough = || Decision::Passthrough(join(PATH, rel));
    let (name, rest) = split_first(rel);
    if let Some(id) = family(name, "cpu") {
        return Ok(match cpus.host_id(id) {
            Some(cpu) => cpu_n::entry(cx, cpus, cpu, rest),
            None => Decision::Hidden,
        });
    }
    Ok(match name {
        "cpufreq" => cpufreq::entry(cx, cpus, rest),
        _ if rest.is_empty() && (view(name).is_some() || LISTS.contains(&name)) => {
            static_view(cx, &join(PATH, rel))
        }
        _ => passthrough(),
    })
}
