//! Events in the life of a container: its limits change, its processes move, its cgroup is removed.

use std::fs;
use std::time::Duration;

use super::memory::{same_meminfo, same_swaps};
use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::{meminfo, within};
use crate::report::{Report, equal};

const MIB: u64 = 1 << 20;

/// The freshness, rounded up to jiffies, and the time of a reading.
const FRESHNESS: Duration = Duration::from_millis(100);

pub(super) fn checks(report: &mut Report) {
    report.group("limits that change", changing);
    report.group("cgroups below the container's", below);
    report.group("a cgroup that is removed", removed);
}

fn has_total(view: &str, kib: u64) -> Result<()> {
    equal(
        "MemTotal",
        &meminfo(view).get("MemTotal").copied(),
        &Some(kib),
    )
}

fn changing(report: &mut Report) -> Result<()> {
    let pod = Cgroup::new("changing")?;
    let app = pod.child("app")?;
    let mut container = Container::attach(&app, false)?;
    for (what, cgroup, mib) in [
        ("its own limit is set", &app, 64),
        ("its own limit is raised", &app, 128),
        ("a limit above is set", &pod, 96),
        ("a limit above is lowered", &pod, 48),
    ] {
        cgroup.set("memory.max", &(mib * MIB).to_string())?;
        let result = within(
            FRESHNESS,
            || container.read("/proc/meminfo"),
            |view| has_total(view, mib * 1024),
        );
        report.check(&format!("{what}: MemTotal follows"), result);
    }
    container.end()?;
    app.remove()?;
    pod.remove()
}

/// A program in the container that makes cgroups of its own sees the container's figures.
fn below(report: &mut Report) -> Result<()> {
    let cgroup = Cgroup::new("nesting")?;
    cgroup.set("memory.max", &(96 * MIB).to_string())?;
    let mut container = Container::attach(&cgroup, false)?;
    let sub = Cgroup::existing("nesting/sub");
    fs::create_dir("/sys/fs/cgroup/nesting/sub").map_err(|e| e.to_string())?;
    sub.join(container.outer())?;
    sub.join(container.first()?)?;
    for controller in ["+memory", "+cpu", "+cpuset"] {
        cgroup.set("cgroup.subtree_control", controller)?;
    }
    sub.set("memory.max", &(32 * MIB).to_string())?;
    sub.set("cpu.max", "50000 100000")?;
    report.check("meminfo of a process below", same_meminfo(&mut container));
    report.check("swaps of a process below", same_swaps(&mut container));
    let threads = cgroup.threads()?.len();
    report.check(
        "loadavg counts the threads below",
        loadavg_total(&mut container, threads),
    );
    container.end()?;
    sub.remove()?;
    cgroup.remove()
}

fn loadavg_total(container: &mut Container, threads: usize) -> Result<()> {
    within(
        Duration::from_secs(2),
        || container.read("/proc/loadavg"),
        |view| {
            let total = view.split(['/', ' ']).nth(4).unwrap_or_default();
            equal("threads", &total, &threads.to_string().as_str())
        },
    )
}

/// The processes have gone elsewhere, and what the views would be computed from is no more.
fn removed(report: &mut Report) -> Result<()> {
    let (cgroup, other) = (Cgroup::new("removed")?, Cgroup::new("refuge")?);
    cgroup.set("memory.max", &(96 * MIB).to_string())?;
    let mut container = Container::attach(&cgroup, false)?;
    container.read("/proc/meminfo")?;
    let first = container.first()?;
    other.join(container.outer())?;
    other.join(first)?;
    cgroup.remove()?;
    for path in ["/proc/meminfo", "/proc/stat", "/proc/uptime"] {
        let mut last = String::new();
        // What the page cache holds is as old as the freshness at most.
        let result = within(
            FRESHNESS,
            || {
                last = match container.ask(&["read", path]) {
                    Ok(bytes) => format!("{} bytes", bytes.len()),
                    Err(error) => error,
                };
                Ok(last.clone())
            },
            |seen| equal("reading", &seen, &"EIO"),
        );
        report.check(&format!("{path} is an error"), result);
    }
    report.check(
        "what is not grafted can be read",
        container.read("/proc/version").map(drop),
    );
    container.end()?;
    other.remove()
}
