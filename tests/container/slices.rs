//! The time slices of the server's threads, which decide how long a request waits beside threads that keep the CPUs busy.

use std::fs;
use std::thread::yield_now;

use procfs::KernelVersion;
use procfs::process::{Process, Task};

use crate::scene;

/// The first Linux in which a thread has a slice of its own.
const SLICES: KernelVersion = KernelVersion {
    major: 6,
    minor: 12,
    patch: 0,
};

/// The slice of a thread in nanoseconds.
#[track_caller]
fn slice_of(task: &Task) -> u64 {
    let path = format!("/proc/{}/task/{}/sched", task.pid, task.tid);
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(name, _)| name.trim() == "se.slice");
    found.expect("a slice").1.trim().parse().unwrap()
}

#[track_caller]
fn nice_of(task: &Task) -> i64 {
    task.stat().unwrap().nice
}

#[test]
fn privileged_threads_that_read_requests_interrupt_workers_and_both_interrupt_other_programs() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let server = Process::new(i32::try_from(daemon.server()).unwrap()).unwrap();
    let tasks: Vec<Task> = server.tasks().unwrap().flatten().collect();
    let named = |is_name: fn(&str) -> bool| {
        let is_named = |task: &&Task| is_name(&task.stat().unwrap().comm);
        let found: Vec<_> = tasks.iter().filter(is_named).collect();
        assert!(!found.is_empty(), "no such thread");
        found
    };
    let readers = named(|name| name.starts_with("fuser-"));
    let workers = named(|name| name == "worker");
    let other = Process::myself().unwrap().task_main_thread().unwrap();
    // A worker gives way as soon as it runs.
    while workers.iter().any(|task| nice_of(task) != 5) {
        yield_now();
    }
    for task in &readers {
        assert_eq!(nice_of(task), nice_of(&other));
    }
    if KernelVersion::current().unwrap() >= SLICES {
        for task in readers {
            assert_eq!(slice_of(task), 100_000);
        }
        for task in workers {
            assert_eq!(slice_of(task), 200_000);
        }
        assert!(slice_of(&other) > 200_000);
    }
    daemon.end();
}
