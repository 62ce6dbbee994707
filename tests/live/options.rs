//! The two options of the daemon that change what a view says.

use crate::source::{Memory, equal, file, steady};
use crate::sysfs::{CPU, ids, names};
use crate::{Live, ONE_CPU};

#[test]
fn privileged_dense_ids_are_the_same_in_every_file() {
    let Some(live) = Live::start_with(&["--dense-cpu-ids"], &ONE_CPU) else {
        return;
    };
    let starts = |path: &str, label: &str| {
        let view = live.seen(path);
        let lines = view.lines().filter(|line| line.contains(label));
        lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    // The container is on the second CPU of the machine.
    assert_eq!(starts("/proc/cpuinfo", "processor"), ["processor\t: 0"]);
    assert_eq!(starts("/proc/interrupts", "CPU"), ["CPU0"]);
    assert_eq!(starts("/proc/zoneinfo", "cpu: "), ["cpu: 0"]);
    let rows = starts("/proc/stat", "cpu");
    assert!(rows.len() == 2 && rows[1].starts_with("cpu0 "), "{rows:?}");
    for name in [
        "online",
        "possible",
        "present",
        "cpu0/topology/core_cpus_list",
    ] {
        assert_eq!(live.seen(&format!("{CPU}/{name}")).trim(), "0", "{name}");
    }
    assert_eq!(ids(&names(&live, CPU), "cpu"), [0]);
    let list = live.seen("/sys/devices/system/node/node0/cpulist");
    assert_eq!(list.trim(), "0");
}

#[test]
fn privileged_without_the_clamp_no_figure_of_the_host_shows() {
    let Some(live) = Live::start_with(&["--no-host-clamp"], &ONE_CPU) else {
        return;
    };
    let judge = |memory: &Memory, view: &str| {
        let free = support::number_after(view, "MemFree:");
        equal("MemFree", free, memory.free / 1024)
    };
    let sources = || Memory::read(&live.cgroup);
    steady(sources, || live.seen("/proc/meminfo"), judge);
    // It is more than the machine has: others use some of that.
    let machine = support::number_after(&file("/proc/meminfo"), "MemFree:");
    assert!(support::number_after(&live.seen("/proc/meminfo"), "MemFree:") > machine);
}
