//! The greatest age of a view.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_getres};
use support::{Limits, form, let_time_pass, number_after, uptime};

use crate::scene;

/// The freshness of a daemon that is not told another one, and what a reader is held to that keeps a file open.
const FRESHNESS: Duration = Duration::from_millis(10);
const HELD: Duration = Duration::from_millis(100);

/// The kernel counts timeouts in jiffies, and one that has begun counts whole. One is what the coarse clock resolves.
fn jiffy() -> Duration {
    clock_getres(ClockId::MonotonicCoarse).try_into().unwrap()
}

const fn memory(mebibytes: u64) -> Limits {
    Limits {
        memory: Some(mebibytes << 20),
        swap: None,
        cpus: None,
        cpuset: None,
    }
}

#[test]
fn privileged_a_changed_limit_shows_at_the_next_open_after_the_freshness() {
    let scene = scene();
    let mut container = scene.container().limits(memory(256)).start();
    scene.attach(&container);
    for round in 0..40 {
        let mebibytes = if round % 2 == 0 { 128 } else { 256 };
        // At all ages that the text before may have.
        let_time_pass(Duration::from_millis(round / 2));
        container.read("/proc/meminfo");
        container.cgroup().limit(&memory(mebibytes));
        let_time_pass(FRESHNESS + jiffy());
        let text = container.read("/proc/meminfo");
        assert_eq!(
            number_after(&text, "MemTotal:"),
            mebibytes << 10,
            "round {round}"
        );
    }
}

#[test]
fn privileged_a_changed_limit_shows_after_the_freshness_however_often_the_view_is_opened() {
    let scene = scene();
    let mut container = scene.container().limits(memory(256)).start();
    scene.attach(&container);
    for round in 0..40 {
        let mebibytes = if round % 2 == 0 { 128 } else { 256 };
        container.cgroup().limit(&memory(mebibytes));
        let changed = Instant::now();
        loop {
            let opened = changed.elapsed();
            let text = container.read("/proc/meminfo");
            if number_after(&text, "MemTotal:") == mebibytes << 10 {
                break;
            }
            let late = opened > FRESHNESS + jiffy();
            assert!(
                !late,
                "round {round}: the old limit {opened:?} after the change"
            );
            let_time_pass(Duration::from_millis(1));
        }
    }
}

#[test]
fn privileged_a_changed_limit_shows_at_once_when_nothing_is_cached() {
    let scene = scene();
    let daemon = scene.daemon(&["--freshness", "0"]);
    let mut container = scene.container().limits(memory(256)).start();
    scene.attach(&container);
    for round in 0..20 {
        let mebibytes = if round % 2 == 0 { 128 } else { 256 };
        container.cgroup().limit(&memory(mebibytes));
        let text = container.read("/proc/meminfo");
        assert_eq!(
            number_after(&text, "MemTotal:"),
            mebibytes << 10,
            "round {round}"
        );
    }
    drop(container);
    daemon.end();
}

#[test]
fn privileged_a_descriptor_that_is_held_open_shows_a_changed_limit_when_it_is_rewound() {
    let scene = scene();
    let mut container = scene.container().limits(memory(256)).start();
    scene.attach(&container);
    container.ask(&["hold", "meminfo", "/proc/meminfo"]);
    for round in 0..10 {
        let mebibytes = if round % 2 == 0 { 128 } else { 256 };
        container.cgroup().limit(&memory(mebibytes));
        let_time_pass(HELD + jiffy());
        let text = container.ask(&["again", "meminfo"]);
        let total = number_after(text.as_str().unwrap(), "MemTotal:");
        assert_eq!(total, mebibytes << 10, "round {round}");
    }
}

#[test]
fn privileged_a_changed_quota_shows_in_all_files_about_cpus_at_the_same_time() {
    let scene = scene();
    let quota = |cpus| Limits {
        cpus: Some(cpus),
        ..Limits::default()
    };
    let mut container = scene.container().limits(quota(1.0)).start();
    scene.attach(&container);
    let all =
        support::cpu_list(&std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap());
    assert!(all.len() > 1, "this test needs a machine with two CPUs");
    for cpus in [2, 1, 2] {
        container.cgroup().limit(&quota(cpus as f64));
        let_time_pass(FRESHNESS + jiffy());
        let online = support::cpu_list(&container.read("/sys/devices/system/cpu/online"));
        let info = support::count_cpus(&container.read("/proc/cpuinfo"));
        let stat = container.read("/proc/stat");
        let rows = stat.lines().filter(|line| line.starts_with("cpu")).count() - 1;
        assert_eq!((online.len(), info, rows), (cpus, cpus, cpus));
    }
}

#[test]
fn privileged_uptime_goes_on_while_its_descriptor_is_held() {
    let scene = scene();
    let mut container = scene.container().start();
    scene.attach(&container);
    container.ask(&["hold", "uptime", "/proc/uptime"]);
    let mut last = container
        .ask(&["again", "uptime"])
        .as_str()
        .unwrap()
        .to_owned();
    for _ in 0..5 {
        let_time_pass(HELD + FRESHNESS);
        let next = container
            .ask(&["again", "uptime"])
            .as_str()
            .unwrap()
            .to_owned();
        assert!(uptime(&next) > uptime(&last), "{last:?} {next:?}");
        assert_eq!(form(&next), form(&last));
        last = next;
    }
}
