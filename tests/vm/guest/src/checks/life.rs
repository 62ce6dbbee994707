//! What happens to a container: its limits change, its processes move, its cgroup goes, the server
//! is killed.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::memory::{same_meminfo, same_swaps};
use super::stat::nothing_wrong;
use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::{meminfo, within};
use crate::report::{Report, equal};

const MIB: u64 = 1 << 20;

/// The freshness, rounded up to jiffies, and the time of a reading.
const FRESHNESS: Duration = Duration::from_millis(100);

/// How often the server is killed.
const KILLS: usize = 5;

pub(super) fn checks(report: &mut Report) {
    report.group("limits that change", changing);
    report.group("cgroups below the container's", below);
    report.group("a cgroup that is removed", removed);
    report.group("a server that is killed", killed);
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

/// Before Linux 6.9 a request that the killed server had read is not sent again.
fn killed(report: &mut Report) -> Result<()> {
    if kernel_version()? < (6, 9) {
        report.skip("no read is lost", "this kernel cannot send requests again");
        return Ok(());
    }
    let cgroup = Cgroup::new("killed")?;
    cgroup.set("memory.max", &(96 * MIB).to_string())?;
    let mut container = Container::attach(&cgroup, false)?;
    let mut views = vec![
        "/proc/meminfo",
        "/proc/stat",
        "/proc/uptime",
        "/proc/loadavg",
    ];
    let grafts = container.grafts()?;
    for live in ["/proc/vmstat", "/proc/pressure/cpu", "/proc/zoneinfo"] {
        if grafts.contains(live) {
            views.push(live);
        }
    }
    let mut command = vec!["watch"];
    command.extend(&views);
    container.tell(&command)?;
    for _ in 0..KILLS {
        kill_server()?;
        // Answered by the next server: this waits for it.
        container.read("/proc/uptime")?;
        container.read("/proc/stat")?;
    }
    let watched = container.tell(&["watched"])?;
    report.check(
        "no read is lost, and nothing falls",
        nothing_wrong(&watched),
    );
    report.check("meminfo of the next server", same_meminfo(&mut container));
    container.end()?;
    cgroup.remove()
}

/// Kills the server, and waits until it is dead.
fn kill_server() -> Result<()> {
    let is_server = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.any(|word| word == b"serve") && line.windows(3).any(|part| part == b"exe")
    };
    let pids = fs::read_dir("/proc").map_err(|e| e.to_string())?;
    let mut pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let pid = pids.find(is_server).ok_or("no server runs")?;
    let pidfd = pidfd_open(Pid::from_raw(pid).ok_or("pid 0")?, PidfdFlags::empty())
        .map_err(|e| e.to_string())?;
    pidfd_send_signal(&pidfd, Signal::KILL).map_err(|e| e.to_string())?;
    let mut fds = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, None).map_err(|e| e.to_string())?;
    Ok(())
}

fn kernel_version() -> Result<(u32, u32)> {
    let release = crate::expect::host("/proc/sys/kernel/osrelease")?;
    let mut parts = release.split(['.', '-']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(release),
    }
}
