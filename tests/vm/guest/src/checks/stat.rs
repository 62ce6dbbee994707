//! /proc/stat and /proc/uptime: CPU time.

use std::time::Duration;

use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::{Cpus, host, row, within};
use crate::report::{Report, between, equal};

/// Columns of a row.
const USER: usize = 0;
const NICE: usize = 1;
const SYSTEM: usize = 2;
const IDLE: usize = 3;
const STEAL: usize = 7;

pub(super) fn checks(report: &mut Report) {
    report.group("stat of `run`", |report| {
        let mut container = Container::run(&["--cpus", "0.5"])?;
        all(report, &mut container)?;
        container.end()
    });
    report.group("stat below a shared quota", |report| {
        let pod = Cgroup::new("pod-stat")?;
        let app = pod.child("app")?;
        pod.set("cpu.max", "60000 100000")?;
        app.set("cpuset.cpus", "1-2")?;
        let mut container = Container::attach(&app, false)?;
        all(report, &mut container)?;
        container.end()?;
        app.remove()?;
        pod.remove()
    });
}

fn all(report: &mut Report, container: &mut Container) -> Result<()> {
    let mut last = Last::default();
    report.check("an idle container", times(container, &mut last));
    container.tell(&["user", "300000"])?;
    report.check("after time in user mode", times(container, &mut last));
    container.tell(&["system", "300000"])?;
    report.check("after time in the kernel", times(container, &mut last));
    container.tell(&["nice", "300000"])?;
    report.check("after time that was nice", times(container, &mut last));

    // More threads than the quota allows for: the kernel throttles.
    container.tell(&["watch", "/proc/stat", "/proc/uptime"])?;
    container.tell(&["spin", "2"])?;
    container.tell(&["user", "300000"])?;
    container.tell(&["rest"])?;
    let watched = container.tell(&["watched"])?;
    report.check("no row falls while CPUs are busy", nothing_wrong(&watched));
    report.check("after throttling", times(container, &mut last));
    let stat = container.read("/proc/stat")?;
    report.check(
        "there is steal",
        match row(&stat, "cpu")?.get(STEAL) {
            Some(0) | None => Err(format!("expected some got none: {stat:?}")),
            Some(_) => Ok(()),
        },
    );
    report.check("the single numbers", single_numbers(container));
    Ok(())
}

/// What a watch said: it read, and nothing was wrong.
pub(super) fn nothing_wrong(watched: &str) -> Result<()> {
    match watched.split_once('\n') {
        Some((reads, "")) if reads != "0" => Ok(()),
        _ => Err(format!("expected reads without trouble got {watched:?}")),
    }
}

/// What the last look at a container has found.
#[derive(Debug, Default)]
struct Last {
    /// The sums of the rows.
    shown: Vec<u64>,
}

/// Microseconds that the cgroup waited for a CPU, as an average of the CPUs. 0 where the kernel does not tell.
fn stalled(cgroup: &Cgroup) -> u64 {
    let pressure = cgroup.read("cpu.pressure").unwrap_or_default();
    let full = pressure.lines().find_map(|line| line.strip_prefix("full "));
    full.and_then(|full| full.rsplit_once("total=")?.1.parse().ok())
        .unwrap_or(0)
}

/// The sums of the rows, against cpu.stat and cpu.pressure before and after.
fn times(container: &mut Container, last: &mut Last) -> Result<()> {
    let cpus = Cpus::read(&container.cgroup)?;
    let line = container.cgroup.line();
    let bound = cpus.level.and_then(|level| line.get(level)).cloned();
    let count = cpus.visible.len() as u64;
    let read = |container: &mut Container| -> Result<_> {
        let own = container.cgroup.keys("cpu.stat")?;
        let throttled = match &bound {
            Some(cgroup) => cgroup.keys("cpu.stat")?.get("throttled_usec").copied(),
            None => None,
        };
        // Throttled time is in the one too, and is a sum over CPUs.
        let stalled = stalled(&container.cgroup) * count;
        let wanted = throttled.unwrap_or(0).max(stalled);
        Ok((own, wanted, container.age_ticks()?))
    };
    let before = read(container)?;
    let view = container.read("/proc/stat")?;
    let uptime = container.read("/proc/uptime")?;
    let after = read(container)?;
    let total = row(&view, "cpu")?;
    let column = |index: usize| total.get(index).copied().unwrap_or(0);

    // Each row is rounded down, and the view may be as old as the freshness, here one or two ticks
    // of each CPU of the machine.
    let slack = count + 8;
    // The server reads cpu.pressure again after 12 jiffies, which are 5 ticks. What was shown as idle by then stays.
    let stale = 5 * count;
    let usec = |of: &(std::collections::BTreeMap<String, u64>, u64, u64), key: &str| {
        of.0.get(key).copied().unwrap_or(0) / 10_000
    };
    let in_range = |what: &str, got: u64, least: u64, most: u64| {
        between(what, got, least.saturating_sub(slack), most + 1)
    };
    let nice = |of| usec(of, "nice_usec");
    for (index, shown) in last.shown.iter().enumerate() {
        between("what was shown before", column(index), *shown, u64::MAX)?;
    }
    // The kernel counts nice time by ticks. It scales user time, so that user and system time are together
    // the time that tasks have run (cputime_adjust in kernel/sched/cputime.c). On a loaded machine ticks
    // can count more than that, so user time without nice time falls. A column of the view never falls:
    // `held` is how far it can stand above what the kernel says now.
    let least = before.0.get("user_usec").copied().unwrap_or(0);
    let least = least.saturating_sub(after.0.get("nice_usec").copied().unwrap_or(0)) / 10_000;
    let user_shown = last.shown.get(USER).copied().unwrap_or(0);
    let held = user_shown.saturating_sub(least);
    in_range(
        "all time in ticks",
        column(USER) + column(NICE) + column(SYSTEM),
        usec(&before, "usage_usec"),
        usec(&after, "usage_usec") + held,
    )?;
    in_range(
        "system",
        column(SYSTEM),
        usec(&before, "system_usec"),
        usec(&after, "system_usec"),
    )?;
    in_range("nice", column(NICE), nice(&before), nice(&after))?;
    in_range(
        "user",
        column(USER),
        usec(&before, "user_usec").saturating_sub(nice(&after)),
        usec(&after, "user_usec")
            .saturating_sub(nice(&before))
            .max(user_shown),
    )?;
    let used = column(USER) + column(NICE) + column(SYSTEM);
    let room = |age: u64| (age * count).saturating_sub(used);
    // Time that is only held leaves as much room for the others.
    let most_room = |age: u64| room(age) + held;
    in_range(
        "steal",
        column(STEAL),
        (before.1 / 10_000)
            .saturating_sub(stale)
            .min(room(before.2)),
        (after.1 / 10_000).min(most_room(after.2) + slack),
    )?;
    // Throttled time is summed over CPUs, so it can grow faster than time goes by. Idle time that
    // was shown before never falls then. But whenever it was shown, so much was stolen already.
    let stolen = last.shown.get(STEAL).copied().unwrap_or(0);
    let most = (most_room(after.2 + 2) + slack + stale).saturating_sub(stolen);
    last.shown.clone_from(&total);
    let least = room(before.2).saturating_sub(after.1 / 10_000);
    in_range("idle", column(IDLE), least.saturating_sub(slack), most)?;
    let zero: u64 = [4, 5, 6, 8, 9].into_iter().map(column).sum();
    equal("iowait, irq, softirq, guest", &zero, &0)?;
    let rows: Vec<Vec<u64>> = cpus
        .visible
        .iter()
        .map(|id| row(&view, &format!("cpu{id}")))
        .collect::<Result<_>>()?;
    for (index, sum) in total.iter().enumerate() {
        let parts = rows.iter().filter_map(|row| row.get(index)).sum();
        equal("the sum of the rows", sum, &parts)?;
    }
    let mut fields = uptime.split_whitespace().map(|word| word.replace('.', ""));
    let mut field = || {
        fields
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    };
    between("uptime", field(), before.2.saturating_sub(2), after.2)?;
    between(
        "idle of uptime",
        field(),
        column(IDLE).saturating_sub(slack),
        column(IDLE) + slack + (after.2 - before.2) * count,
    )
}

fn single_numbers(container: &mut Container) -> Result<()> {
    let view = container.read("/proc/stat")?;
    let kernel = host("/proc/stat")?;
    for (key, expected) in [("intr", 0), ("ctxt", 0), ("softirq", 0)] {
        let (ours, theirs) = (row(&view, key)?, row(&kernel, key)?);
        equal(&format!("columns of {key}"), &ours.len(), &theirs.len())?;
        equal(key, &ours.iter().sum(), &expected)?;
    }
    let single = |view: &str, key: &str| row(view, key).map(|row| *row.first().unwrap_or(&0));
    between("processes", single(&view, "processes")?, 1, 1000)?;
    // The agent runs while it reads. The threads were counted in the last second, and some may have ended since then.
    let threads = container.cgroup.threads()?.len() as u64;
    within(
        Duration::from_secs(3),
        || container.read("/proc/stat"),
        |view| {
            between(
                "procs_running",
                single(view, "procs_running")?,
                1,
                threads + 2,
            )?;
            between(
                "procs_blocked",
                single(view, "procs_blocked")?,
                0,
                threads + 2,
            )
        },
    )
}
