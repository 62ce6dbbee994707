//! Containers of all kinds: their views, and the requests that are refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use support::{Container, Limits, Scene, count_cpus, cpu_list, number_after, uptime};

mod attach;
mod bad_input;
mod bad_runtime_dir;
mod beside;
mod configuration;
mod crash;
mod daemon;
mod dead_daemon;
mod doctor;
mod engines;
mod fresh_procfs;
mod hanging;
mod hook;
mod inspection;
mod isolation;
mod lxc;
mod nested;
mod not_allowed;
mod output;
mod refused;
mod remembered;
mod run;
mod run_ending;
mod run_options;
mod runtime;
mod scan;
mod selftests;
mod service_manager;
mod slices;
mod starved;
mod taken;
mod threads;
mod upgrade;

/// The surroundings of one test.
#[track_caller]
fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_eci-fs"))
}

/// A limit of memory in mebibytes, and one of CPUs.
const fn limits(mebibytes: u64, cpus: f64) -> Limits {
    Limits {
        memory: Some(mebibytes << 20),
        swap: None,
        cpus: Some(cpus),
        cpuset: None,
    }
}

/// Assert that a container sees these numbers, in all files that have them.
#[track_caller]
fn sees(container: &mut Container, mebibytes: u64, cpus: usize) {
    let meminfo = container.read("/proc/meminfo");
    assert_eq!(
        number_after(&meminfo, "MemTotal:"),
        mebibytes << 10,
        "{meminfo}"
    );
    assert_eq!(number_after(&meminfo, "SwapTotal:"), 0, "{meminfo}");
    let online = container.read("/sys/devices/system/cpu/online");
    assert_eq!(cpu_list(&online).len(), cpus, "{online}");
    assert_eq!(count_cpus(&container.read("/proc/cpuinfo")), cpus);
    let stat = container.read("/proc/stat");
    let rows = stat.lines().filter(|line| line.starts_with("cpu")).count();
    assert_eq!(rows, cpus + 1, "{stat}");
    let facts = container.ask(&["facts"]);
    // Of glibc's, this is the count that comes from `online`; the others come from system calls.
    assert_eq!(facts["nprocessors_onln"], cpus, "{facts}");
    let up = uptime(&container.read("/proc/uptime"));
    assert!(up < 60.0, "the container has just begun: {up}");
}

/// Assert that a container sees the files of the kernel.
#[track_caller]
fn sees_the_host(container: &mut Container) {
    assert_eq!(container.grafts(), Vec::<String>::new());
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = number_after(&host, "MemTotal:");
    let meminfo = container.read("/proc/meminfo");
    assert_eq!(number_after(&meminfo, "MemTotal:"), total);
    let host = uptime(&std::fs::read_to_string("/proc/uptime").unwrap());
    let up = uptime(&container.read("/proc/uptime"));
    assert!((host - up).abs() < 10.0, "{host} {up}");
}
