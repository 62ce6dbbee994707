//! /sys/devices/system/cpu: the host's CPUs, of which those that the container does not have are offline.
//!
//! Format: drivers/base/cpu.c, and the drivers that add to it.
//! Virtual: `online`, `offline` and `isolated`; below cpuN what a CPU loses when it goes offline, and its lists and masks;
//! the policies of cpufreq. With dense ids, which cpuN there are, and every list.
//! Passed through: `possible`, `present`, `kernel_max` and everything else, read-only. System calls answer by these CPUs:
//! bpf(2) writes a value for each possible CPU, and getcpu(2) and affinity masks use ids below them.
//! Invented: a CPU that the container does not have is offline. Counters of the host are 0.

pub mod cpu_n;
pub mod cpufreq;

use crate::cpulist::CpuSet;
use crate::directory::{
    Decision, Directory, DirectoryFacts, family, hidden, join, split_first, static_view,
};
use crate::model::cpus::{self, Cpus, PATH, render_list, renumbered};
use crate::view::Render;
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /sys/devices/system/cpu.
#[derive(Debug)]
pub struct Cpu;

/// The files of this directory that are also grafts of their own: show_cpus_attr and print_cpus_offline,
/// drivers/base/cpu.c.
pub static VIEWS: &[View] = &[
    // The CPUs that the container is shown.
    list(22, "/sys/devices/system/cpu/online", render_online).sources(QUOTA_V1, QUOTA_V2),
    // Version 0.1.0 grafted these two into every container, so they are served to containers that it attached.
    list(23, "/sys/devices/system/cpu/possible", render_all)
        .sources(DENSE_V1, DENSE_V2)
        .only_for(renumbered),
    list(24, "/sys/devices/system/cpu/present", render_all)
        .sources(DENSE_V1, DENSE_V2)
        .only_for(renumbered),
    // All others that the kernel has.
    list(25, "/sys/devices/system/cpu/offline", render_offline).sources(QUOTA_V1, QUOTA_V2),
];

const DENSE_V1: &str = "with dense ids cpuset.effective_cpus, else the kernel's own and no graft";
const DENSE_V2: &str = "with dense ids cpuset.cpus.effective, else the kernel's own and no graft";
const QUOTA_V1: &str = "cpuset.effective_cpus, cpu.cfs_quota_us, cpu.cfs_period_us";
const QUOTA_V2: &str = "cpuset.cpus.effective, cpu.max";

/// Returns the row of a list of CPUs, which ends with a newline.
const fn list(id: u16, path: &'static str, render: Render) -> View {
    View::new(id, path, render).steady().needs(Needs::CGROUP)
}

fn render_online(_: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    put_list(&cpus::read(cx)?.shown_visible(), out)
}

/// Appends the kernel's own list. With dense ids all CPUs are those of C.
fn render_all(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    if renumbered(cx) {
        return put_list(&cpus::read(cx)?.shown_allowed(), out);
    }
    out.extend_from_slice(&cx.host.read(facts.path)?);
    Ok(Bound::Exact)
}

/// Appends the CPUs that are not online for the container. The kernel adds those of the firmware that are beyond its own
/// highest one (print_cpus_offline).
fn render_offline(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let cpus = cpus::read(cx)?;
    if renumbered(cx) {
        let hidden = cpus.allowed.difference(&cpus.visible);
        return put_list(&cpus.shown(&hidden, &cpus.allowed), out);
    }
    let read = |path: &str| {
        let list = CpuSet::parse_list(&cx.host.read(path)?);
        list.ok_or_else(|| Error::malformed(path, "not a list of CPUs"))
    };
    let mut all = read(&join(PATH, "possible"))?;
    read(facts.path)?.iter().for_each(|cpu| all.insert(cpu));
    put_list(&all.difference(&cpus.visible), out)
}

fn put_list(cpus: &CpuSet, out: &mut Vec<u8>) -> Result<Bound, Error> {
    cpus.render_list(out);
    out.push(b'\n');
    Ok(Bound::Exact)
}

/// Lists that only some hosts have. They are reduced to C.
const LISTS: &[&str] = &["isolated", "nohz_full", "hotpluggable"];

/// Returns the row of a file at the top, if its text is computed for this container.
fn view(cx: &Context<'_>, name: &str) -> Option<&'static View> {
    VIEWS
        .iter()
        .find(|view| view.facts().path.rsplit('/').next() == Some(name) && view.is_offered(cx))
}

/// Returns whether a file at the top is a list that is reduced to C. `enabled` is the kernel's own, as `present` is.
fn is_list(cx: &Context<'_>, name: &str) -> bool {
    LISTS.contains(&name) || name == "enabled" && renumbered(cx)
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
                "isolated",
                "nohz_full",
                "cpuN/online",
                "cpuN/hotplug/state",
                "cpuN/hotplug/target",
                "cpuN/topology/*",
                "cpuN/cache/index*/shared_cpu_*",
                "cpuN/cpuidle/state*/*",
                "cpuN/thermal_throttle/*",
                "cpuN/idle_count",
                "cpuN/idle_time_us",
                "cpufreq/policyN/*_cpus",
                "cpufreq/policyN/*_cur_freq",
                "cpufreq/policyN/cpuinfo_avg_freq",
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
        if rel.is_empty() && renumbered(cx) {
            // The host may not have a name that is shown, and may have names that are hidden.
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
        match view(cx, rel) {
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
            Some(cpu) => cpu_n::entry(cx, cpus, cpu, rest)?,
            None => Decision::Hidden,
        });
    }
    Ok(match name {
        "cpufreq" => cpufreq::entry(cx, cpus, rest)?,
        // The present frequency of what the CPUs share (drivers/platform/x86/intel/uncore-frequency).
        "intel_uncore_frequency" if rest.ends_with("/current_freq_khz") => Decision::Hidden,
        _ if rest.is_empty() && (view(cx, name).is_some() || is_list(cx, name)) => {
            static_view(cx, &join(PATH, rel))
        }
        _ => passthrough(),
    })
}
