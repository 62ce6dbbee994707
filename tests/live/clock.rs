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
