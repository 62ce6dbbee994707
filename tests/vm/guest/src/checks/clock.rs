//! Times that have to agree: uptime, btime, the start times of processes; and the load averages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::{host, row, within};
use crate::report::{Report, between, equal};

/// The kernel's averages take a step every five seconds; after two there must be something to see.
const TWO_STEPS: Duration = Duration::from_secs(30);

pub(super) fn checks(report: &mut Report) {
    report.group("clocks of `run`", |report| {
        let mut container = Container::run(&["--cpus", "2"])?;
        all(report, &mut container)?;
        report.check("loadavg follows the threads", load(&mut container));
        container.end()
    });
    report.group("clocks of an attached container", |report| {
        let cgroup = Cgroup::new("clocks")?;
        let mut container = Container::attach(&cgroup, false)?;
        all(report, &mut container)?;
        let view = container.read("/proc/stat")?;
        let kernel = host("/proc/stat")?;
        report.equal(
            "btime is the machine's",
            &row(&view, "btime")?,
            &row(&kernel, "btime")?,
        );
        container.end()?;
        cgroup.remove()
    });
}

fn all(report: &mut Report, container: &mut Container) -> Result<()> {
    report.check("uptime is the container's age", uptime(container));
    report.check(
        "btime and the start of pid 1 are now",
        start_times(container),
    );
    report.check("loadavg counts its threads", threads(container));
    Ok(())
}

fn uptime(container: &mut Container) -> Result<()> {
    let before = container.age_ticks()?;
    let view = container.read("/proc/uptime")?;
    let after = container.age_ticks()?;
    let first = view.split(' ').next().unwrap_or_default().replace('.', "");
    let ticks = first.parse().map_err(|_| view.clone())?;
    // Ten times the freshness, should somebody hold it open; and a tick of rounding.
    between("ticks", ticks, before.saturating_sub(3), after + 1)
}

/// As ps works it out: boot time and the ticks since then.
fn start_times(container: &mut Container) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|e| e.to_string())?.as_secs();
    let stat = container.read("/proc/stat")?;
    let btime = row(&stat, "btime")?.first().copied().unwrap_or(0);
    let first = container.read("/proc/1/stat")?;
    let rest = first.rsplit_once(')').map_or("", |(_, rest)| rest);
    let start: u64 = rest
        .split_whitespace()
        .nth(19)
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| first.clone())?;
    let age = container.age_ticks()? / 100;
    let started = btime + start / 100;
    between("started at", started, now - age - 3, now - age + 3)
}

fn threads(container: &mut Container) -> Result<()> {
    let threads = container.cgroup.threads()?;
    let last = threads
        .iter()
        .filter_map(|tid| {
            let status = host(&format!("/proc/{tid}/status")).ok()?;
            let pids = status.lines().find(|line| line.starts_with("NSpid:"))?;
            let pids: Vec<&str> = pids.split_whitespace().skip(1).collect();
            // Those that made the container are in its cgroup and not in its pid namespace.
            (pids.len() > 1).then(|| pids.last()?.parse::<u32>().ok())?
        })
        .max()
        .unwrap_or(0);
    within(
        Duration::from_secs(2),
        || container.read("/proc/loadavg"),
        |view| {
            let mut words = view.trim_end().split([' ', '/']).skip(3);
            let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
            let (running, total, pid) = (number(), number(), number());
            equal("threads", &total, &u32::try_from(threads.len()).ok())?;
            equal("the last pid", &pid, &Some(last))?;
            let running = u64::from(running.unwrap_or(u32::MAX));
            between("running", running, 1, threads.len() as u64)
        },
    )
}

/// Two threads that never rest.
fn load(container: &mut Container) -> Result<()> {
    container.tell(&["spin", "2"])?;
    let result = within(
        TWO_STEPS,
        || container.read("/proc/loadavg"),
        |view| {
            let first = view.split(' ').next().unwrap_or_default().replace('.', "");
            let hundredths = first.parse().map_err(|_| view.to_owned())?;
            between("hundredths", hundredths, 8, 400)
        },
    );
    container.tell(&["rest"])?;
    result
}
