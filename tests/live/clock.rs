//! /proc/uptime and /proc/loadavg.

use support::Container;

use crate::source::{between, dir, equal, file, steady};
use crate::{LIMITS, Live, ONE_CPU};

pub(crate) const VIEWS: &[&str] = &["/proc/uptime", "/proc/loadavg"];

/// T in ticks: since the start of the container's pid 1.
#[track_caller]
pub(crate) fn age_ticks(container: &Container) -> u64 {
    let stat = file(format!("/proc/{}/stat", container.pid()));
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let start: u64 = rest.split_whitespace().nth(19).unwrap().parse().unwrap();
    hundredths(file("/proc/uptime").split(' ').next().unwrap()) - start
}

#[track_caller]
fn hundredths(seconds: &str) -> u64 {
    seconds.trim().replace('.', "").parse().unwrap()
}

#[test]
fn privileged_uptime_is_the_age_of_pid_1_and_the_idle_time_of_stat() {
    for limits in [LIMITS, ONE_CPU] {
        let Some(mut live) = Live::start(&limits) else {
            return;
        };
        live.container.ask(&["burn", "100"]);
        let before = age_ticks(&live.container);
        let uptime = live.seen("/proc/uptime");
        let stat = live.seen("/proc/stat");
        let after = age_ticks(&live.container);
        let fields: Vec<u64> = uptime.split_whitespace().map(hundredths).collect();
        between("uptime", fields[0], before.saturating_sub(3), after + 1);
        let idle = stat.split_whitespace().nth(4).unwrap().parse().unwrap();
        between("idle", fields[1], u64::saturating_sub(idle, 6), idle + 6);
        // The rows of stat add up to T for each of the CPUs, one here.
        let numbers = stat.lines().next().unwrap().split_whitespace().skip(1);
        let sum: u64 = numbers.map(|number| number.parse::<u64>().unwrap()).sum();
        between("the sum of stat", sum, before.saturating_sub(3), after + 6);
    }
}

/// Three loops that never rest, which end with the container.
fn spin(live: &mut Live) {
    let busybox = live.container.program("busybox");
    let spin = format!("{busybox} sh -c 'while :; do :; done' >/dev/null 2>&1 &");
    let all = [&*spin, &*spin, &*spin].join(" ");
    live.container.busybox(&["sh", "-c", &all]);
}

#[test]
fn privileged_the_averages_begin_as_a_constant_load_would_have_made_them() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    spin(&mut live);
    let before = age_ticks(&live.container);
    let loadavg = live.seen("/proc/loadavg");
    let after = age_ticks(&live.container);
    let tasks = file(dir(&live.cgroup, "cpu").join("tasks")).lines().count();
    let words = loadavg.split_whitespace();
    for (average, tau) in words.zip([60.0, 300.0, 900.0]) {
        // The three loops, and perhaps the rest of the container.
        let hundredths_of = |active: f64, ticks: u64| {
            100.0 * active * (1.0 - (-(ticks as f64) / 100.0 / tau).exp())
        };
        let (least, most) = (
            hundredths_of(3.0, before),
            hundredths_of(tasks as f64, after),
        );
        let least = (least as u64).saturating_sub(1);
        between(&loadavg, hundredths(average), least, most as u64 + 1);
    }
}

#[test]
fn privileged_loops_that_begin_show_as_running_in_stat_and_loadavg_alike() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    let running = |loadavg: &str| {
        let tasks = loadavg.split(' ').nth(3).unwrap();
        tasks.split_once('/').unwrap().0.to_owned()
    };
    // The reader runs, and nothing else does.
    assert_eq!(running(&live.seen("/proc/loadavg")), "1");
    spin(&mut live);
    let judge = |loadavg: &String, stat: &str| {
        let procs_running = stat
            .lines()
            .find_map(|line| line.strip_prefix("procs_running "));
        equal("procs_running", procs_running, Some(&running(loadavg)))?;
        // The three, and the reader.
        equal("running", running(loadavg).as_str(), "4")
    };
    let loadavg = || live.seen("/proc/loadavg");
    steady(loadavg, || live.seen("/proc/stat"), judge);
}

#[test]
fn privileged_loadavg_counts_the_threads_of_the_cgroup() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    let program = live.container.program("probe");
    live.container.ask(&["start", "second", &program, "agent"]);
    let below = live.cgroup.child("below", &support::Limits::default());
    let second = support::children_of(live.container.pid())[0];
    below.add(second);
    let tasks = || {
        let own = dir(&live.cgroup, "cpu");
        file(own.join("tasks")) + &file(own.join("below/tasks"))
    };
    let judge = |tasks: &String, view: &str| {
        let words: Vec<&str> = view.split_whitespace().collect();
        let (running, total) = words[3].split_once('/').unwrap();
        equal("threads", total, &tasks.lines().count().to_string())?;
        let running: usize = running.parse().unwrap();
        equal("whoever reads runs", running.max(1), running)?;
        equal(
            "running is not more",
            running.min(tasks.lines().count()),
            running,
        )?;
        // In the pid namespace of the container the second process of the probe.
        let status = file(format!("/proc/{second}/status"));
        let pids = status.lines().find(|line| line.starts_with("NSpid:"));
        let last = pids.unwrap().split_whitespace().last().unwrap();
        equal("the last pid", words[4], last)?;
        for average in &words[..3] {
            let most = 100 * tasks.lines().count() as u64;
            equal(
                "an average is not more",
                hundredths(average).min(most),
                hundredths(average),
            )?;
        }
        equal("words", words.len(), 5)
    };
    steady(tasks, || live.seen("/proc/loadavg"), judge);
    live.container.ask(&["end", "second"]);
}
