//! /proc/stat: CPU time against cpuacct, throttled time as steal, and the single numbers.

use std::path::Path;
use std::time::{Duration, Instant};

use support::{Cgroup, Container, Limits, PATIENCE, let_time_pass};

use crate::clock::age_ticks;
use crate::pressure::hybrid_of;
use crate::source::{Cpus, between, dir, equal, file, keys, steady};
use crate::{LIMITS, Live, ONE_CPU};

pub(crate) const VIEWS: &[&str] = &["/proc/stat"];

const USER: usize = 0;
const NICE: usize = 1;
const SYSTEM: usize = 2;
const IDLE: usize = 3;
const STEAL: usize = 7;

/// Nanoseconds in a tick.
const TICK: u64 = 10_000_000;

/// Ticks that a view may be behind or ahead: its freshness, and each number of each CPU is rounded.
const SLACK: u64 = 6;

/// All CPUs, without a quota: a row for each.
const ALL: Limits = Limits {
    memory: None,
    swap: None,
    cpus: None,
    cpuset: None,
};

/// So little that it is throttled even where the machine is busy with something else.
const THROTTLED: Limits = Limits {
    cpus: Some(0.1),
    ..ALL
};

/// The numbers of a row.
#[track_caller]
fn row(view: &str, name: &str) -> Vec<u64> {
    let mut rows = view.lines().map(|line| line.split_once(' ').unwrap());
    let Some((_, rest)) = rows.find(|(label, _)| *label == name) else {
        panic!("no {name} in {view}");
    };
    let words = rest.split_whitespace();
    words.map(|word| word.parse().unwrap()).collect()
}

/// The time of one CPU: all of it, and its shares of user and system.
type Times = (u64, f64, f64);

/// One of them, in nanoseconds.
type Part = fn(&Times) -> u64;

/// What the kernel has counted for the cgroup.
#[derive(Debug)]
struct Used {
    cpus: Vec<Times>,
    throttled: u64,
    age: u64,
}

impl Used {
    #[track_caller]
    fn read(live: &Live) -> Self {
        let cpuacct = dir(&live.cgroup, "cpuacct");
        let percpu = file(cpuacct.join("cpuacct.usage_percpu"));
        let all = file(cpuacct.join("cpuacct.usage_all"));
        let split = all.lines().skip(1).map(|line| {
            let mut words = line.split(' ').skip(1).map(|n| n.parse::<f64>().unwrap());
            (words.next().unwrap(), words.next().unwrap())
        });
        let cpus = percpu.split_whitespace().zip(split);
        let cpus = cpus.map(|(total, (user, system))| {
            let total: u64 = total.parse().unwrap();
            let part = if user + system > 0.0 {
                user / (user + system)
            } else {
                1.0
            };
            (total, total as f64 * part, total as f64 * (1.0 - part))
        });
        let stat = keys(&file(dir(&live.cgroup, "cpu").join("cpu.stat")));
        Self {
            cpus: cpus.collect(),
            throttled: stat["throttled_time"],
            age: age_ticks(&live.container),
        }
    }

    fn sum(&self, of: Part) -> u64 {
        self.cpus.iter().map(of).sum::<u64>() / TICK
    }
}

/// The time in which nobody may read a cached view before it shows the present although its size changes: the freshness
/// and 90 ms. A test that reads more often may get a text as old as that.
const REST: Duration = Duration::from_millis(110);

/// The view between two readings of the cgroup.
#[track_caller]
fn same(live: &Live) -> Vec<u64> {
    let_time_pass(REST);
    let cpus = Cpus::read(&live.cgroup);
    let before = Used::read(live);
    let view = live.seen("/proc/stat");
    let after = Used::read(live);
    let total = row(&view, "cpu");
    let in_range = |what: &str, got, least: u64, most: u64| {
        between(what, got, least.saturating_sub(SLACK), most + SLACK);
    };
    let used = total[USER] + total[SYSTEM];
    in_range("used", used, before.sum(|c| c.0), after.sum(|c| c.0));
    let parts: [(&str, usize, Part); 2] = [
        ("user", USER, |cpu| cpu.1 as u64),
        ("system", SYSTEM, |cpu| cpu.2 as u64),
    ];
    for (what, column, of) in parts {
        in_range(what, total[column], before.sum(of), after.sum(of));
    }
    // v1 does not tell nice time from the rest of user time; iowait, irq, softirq and guest are nobody's.
    for column in [NICE, 4, 5, 6, 8, 9] {
        assert_eq!(total[column], 0, "column {column} in {view}");
    }
    let count = cpus.visible.len() as u64;
    let room = |age: u64| (age * count).saturating_sub(used);
    let steal = |used: &Used| (used.throttled / TICK).min(room(used.age));
    in_range("steal", total[STEAL], steal(&before), steal(&after));
    let rest = |age: u64| room(age).saturating_sub(total[STEAL]);
    in_range("idle", total[IDLE], rest(before.age), rest(after.age));
    let rows: Vec<Vec<u64>> = cpus
        .visible
        .iter()
        .map(|id| row(&view, &format!("cpu{id}")))
        .collect();
    let labels = view.lines().filter(|line| line.starts_with("cpu"));
    assert_eq!(labels.count(), rows.len() + 1, "{view}");
    for (column, sum) in total.iter().enumerate() {
        assert_eq!(
            *sum,
            rows.iter().map(|row| row[column]).sum::<u64>(),
            "{view}"
        );
    }
    // Each CPU's own, where all of those that it used are visible.
    if cpus.visible.len() == before.cpus.len() {
        for (row, (before, after)) in rows.iter().zip(before.cpus.iter().zip(&after.cpus)) {
            in_range(
                "a CPU",
                row[USER] + row[SYSTEM],
                before.0 / TICK,
                after.0 / TICK,
            );
        }
    }
    total
}

#[test]
fn privileged_the_rows_of_stat_are_the_cpu_time_of_the_cgroup() {
    for limits in [THROTTLED, ONE_CPU, ALL] {
        let Some(mut live) = Live::start(&limits) else {
            return;
        };
        same(&live);
        live.container.ask(&["burn", "150"]);
        let total = same(&live);
        assert!(total[USER] + total[SYSTEM] >= 15 - SLACK, "{total:?}");
        // System time: many short system calls. The kernel counts it in ticks that it samples, and on a busy host may
        // sample none of them in one go.
        let system = |live: &Live| Used::read(live).sum(|cpu| cpu.2 as u64);
        for _ in 0..100 {
            live.container
                .busybox(&["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=100000"]);
            if system(&live) > 1 {
                break;
            }
        }
        let total = same(&live);
        assert!(total[SYSTEM] > 0, "{total:?}");
        // It had to wait nine times as long as it ran.
        assert_eq!(total[STEAL] > 5, limits.cpus.is_some(), "{total:?}");
    }
}

#[test]
fn privileged_no_row_of_stat_falls_in_200_reads_while_cpus_are_busy() {
    let Some(mut live) = Live::start(&THROTTLED) else {
        return;
    };
    let busybox = live.container.program("busybox");
    let spin = format!("{busybox} sh -c 'while :; do :; done' >/dev/null 2>&1 &");
    live.container
        .busybox(&["sh", "-c", &[&*spin, &*spin].join(" ")]);
    let rows = |view: &str| -> Vec<u64> {
        let rows = view.lines().filter(|line| line.starts_with("cpu"));
        let words = rows.flat_map(|row| row.split_whitespace().skip(1));
        words.map(|word| word.parse().unwrap()).collect()
    };
    let first = live.seen("/proc/stat");
    let mut last = first.clone();
    for _ in 0..200 {
        let view = live.seen("/proc/stat");
        let falls = rows(&last)
            .iter()
            .zip(rows(&view))
            .any(|(old, new)| new < *old);
        assert!(!falls, "{last} {view}");
        last = view;
        // As long as a view is fresh it would be the same one.
        let_time_pass(Duration::from_millis(5));
    }
    let moved = |column: usize| row(&last, "cpu")[column] - row(&first, "cpu")[column];
    assert!(moved(USER) + moved(SYSTEM) > 0, "{first} {last}");
    assert!(moved(STEAL) > 0, "{first} {last}");
}

/// Microseconds that the container waited for its CPU, by its v2 cgroup.
#[track_caller]
fn stalled_usec(unified: &Path) -> u64 {
    let pressure = file(unified.join("cpu.pressure"));
    let full = pressure.lines().find(|line| line.starts_with("full "));
    let (_, total) = full.unwrap().split_once("total=").unwrap();
    total.parse().unwrap()
}

#[test]
fn privileged_a_container_that_waits_for_a_busy_cpu_sees_that_as_steal() {
    // Ticks that the steal may be older than the rest: the kernel would lose some of it if it were asked more often.
    const STALE: u64 = 8;
    let Some((mut live, unified)) = Live::start(&ONE_CPU).and_then(hybrid_of) else {
        return;
    };
    let spin = |container: &mut Container| {
        let busybox = container.program("busybox");
        let spin = format!("{busybox} sh -c 'while :; do :; done' >/dev/null 2>&1 &");
        container.busybox(&["sh", "-c", &spin]);
    };
    // Another container wants the same CPU, and has many more shares of it.
    let other = Cgroup::new(&ONE_CPU);
    let mut competitor = live.scene.container().options(&["--host-cgroup"]).start();
    other.add(competitor.pid());
    spin(&mut competitor);
    std::fs::write(dir(&live.cgroup, "cpu").join("cpu.shares"), "20").unwrap();
    spin(&mut live.container);

    let started = Instant::now();
    let mut last = row(&live.seen("/proc/stat"), "cpu");
    let_time_pass(REST);
    while last[STEAL] < 50 {
        assert!(started.elapsed() < PATIENCE, "{last:?}");
        let (used, stalled) = (Used::read(&live), stalled_usec(&unified));
        let view = live.seen("/proc/stat");
        let total = row(&view, "cpu");
        let (used_after, stalled_after) = (Used::read(&live), stalled_usec(&unified));
        let least = (stalled / 10_000).saturating_sub(SLACK + STALE);
        between("steal", total[STEAL], least, stalled_after / 10_000 + SLACK);
        let sum: u64 = total.iter().sum();
        let least = used.age.saturating_sub(SLACK);
        between("the row", sum, least, used_after.age + SLACK + STALE);
        assert!(
            last.iter().zip(&total).all(|(a, b)| a <= b),
            "{last:?} {total:?}"
        );
        last = total;
        let_time_pass(REST);
    }
    // It is not idle: what it did not use, others took.
    let idle = row(&live.seen("/proc/stat"), "cpu")[IDLE];
    let uptime = live.seen("/proc/uptime");
    let (_, shown) = uptime.trim().split_once(' ').unwrap();
    let shown = shown.replace('.', "").parse().unwrap();
    between("idle of uptime", shown, idle, idle + SLACK + STALE);
}

#[test]
fn privileged_what_a_hidden_cpu_has_used_stays_in_the_sum() {
    let Some(mut live) = Live::start(&ALL) else {
        return;
    };
    live.container.ask(&["burn", "200"]);
    let before = row(&live.seen("/proc/stat"), "cpu");
    live.cgroup.limit(&LIMITS);
    let cpus = Cpus::read(&live.cgroup);
    assert_eq!(cpus.visible.len(), 1);
    // The change of a limit is an event; until it has come, the view is the one before.
    let changed = |_: &(), view: &str| {
        let rows = view.lines().filter(|line| line.starts_with("cpu"));
        equal("rows", rows.count(), 2)
    };
    steady(|| (), || live.seen("/proc/stat"), changed);
    let after = row(&live.seen("/proc/stat"), "cpu");
    let falls = before.iter().zip(&after).any(|(old, new)| new < old);
    assert!(!falls, "{before:?} {after:?}");
}

#[test]
fn privileged_the_single_numbers_of_stat_are_the_containers_or_zero() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    let (view, kernel) = (live.seen("/proc/stat"), file("/proc/stat"));
    let labels = |text: &str| -> Vec<String> {
        let labels = text.lines().filter_map(|line| line.split(' ').next());
        labels
            .filter(|l| !l.starts_with("cpu"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(labels(&view), labels(&kernel));
    for key in ["intr", "ctxt", "softirq"] {
        let (ours, theirs) = (row(&view, key), row(&kernel, key));
        assert_eq!(ours, vec![0; theirs.len()], "{key}");
    }
    assert_eq!(row(&view, "btime"), row(&kernel, "btime"));
    // The probe is pid 1, the highest that there has been.
    assert_eq!(row(&view, "processes"), [1]);
    // Who reads runs, and the probe is all that there is.
    assert_eq!(row(&view, "procs_running"), [1]);
    between("procs_blocked", row(&view, "procs_blocked")[0], 0, 2);
}

#[test]
fn privileged_processes_never_falls_and_counts_the_running_ones() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    let busybox = live.container.program("busybox");
    let spin = format!("{busybox} sh -c 'while :; do :; done' >/dev/null 2>&1 &");
    live.container.busybox(&["sh", "-c", &spin]);
    let tasks = || file(dir(&live.cgroup, "cpu").join("tasks")).lines().count() as u64;
    let mut most = 0;
    for _ in 0..40 {
        let view = live.seen("/proc/stat");
        assert!(row(&view, "processes")[0] >= most, "{view}");
        most = row(&view, "processes")[0];
        between("procs_running", row(&view, "procs_running")[0], 1, tasks());
        let_time_pass(Duration::from_millis(5));
    }
    assert!(most >= 2, "{most}");
}
