//! /sys/devices/system/cpu, and the trees of the kernel that are empty.

use std::fs;
use std::path::Path;

use support::{Limits, cpu_list};

use crate::source::{Cpus, file};
use crate::{LIMITS, Live, ONE_CPU};

pub(crate) const CPU: &str = "/sys/devices/system/cpu";

pub(crate) const VIEWS: &[&str] = &[
    CPU,
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/offline",
    "/sys/devices/system/cpu/possible",
    "/sys/devices/system/cpu/present",
    "/sys/kernel/notes",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/sys/kernel/security",
    "/sys/kernel/config",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    MEMORY,
    "/sys/bus/memory/devices",
];

const MEMORY: &str = "/sys/devices/system/memory";

/// The names of a directory in the container.
#[track_caller]
pub(crate) fn names(live: &Live, path: &str) -> Vec<String> {
    let path = format!("/proc/{}/root{path}", live.container.pid());
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The numbers of "cpu0" and its like.
pub(crate) fn ids(names: &[String], family: &str) -> Vec<u64> {
    let ids = names
        .iter()
        .filter_map(|name| name.strip_prefix(family)?.parse().ok());
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    ids
}

/// The CPUs of a mask like "00000000,00000003".
#[track_caller]
pub(crate) fn mask(text: &str) -> Vec<u64> {
    let bits = u64::from_str_radix(&text.trim().replace(',', ""), 16).unwrap();
    (0..64).filter(|cpu| bits >> cpu & 1 == 1).collect()
}

/// A quota on both CPUs, each CPU alone, and one of them with a quota.
const EACH: [Limits; 4] = [
    LIMITS,
    ONE_CPU,
    Limits {
        cpuset: Some("0"),
        ..ONE_CPU
    },
    Limits {
        cpus: Some(0.5),
        ..ONE_CPU
    },
];

#[test]
fn privileged_the_cpus_outside_of_the_cpuset_and_the_quota_are_offline() {
    for limits in EACH {
        let Some(live) = Live::start(&limits) else {
            return;
        };
        let cpus = Cpus::read(&live.cgroup);
        let list = |name: &str| cpu_list(&live.seen(&format!("{CPU}/{name}")));
        for name in ["possible", "present", "enabled", "kernel_max"] {
            let path = format!("{CPU}/{name}");
            if let Ok(kernel) = fs::read_to_string(&path) {
                assert_eq!(live.seen(&path), kernel, "{name}");
            }
        }
        let grafts = live.container.grafts();
        for name in ["possible", "present"] {
            assert!(!grafts.contains(&format!("{CPU}/{name}")), "{name}");
        }
        let possible = cpu_list(&file(format!("{CPU}/possible"))).into_iter();
        let hidden = possible.filter(|id| !cpus.visible.contains(id));
        assert_eq!(list("online"), cpus.visible);
        assert_eq!(list("offline"), hidden.collect::<Vec<_>>());
        for name in ["isolated", "nohz_full"] {
            let Ok(kernel) = fs::read_to_string(format!("{CPU}/{name}")) else {
                continue;
            };
            // nohz_full says that there is none in its own way.
            if kernel.trim() != "(null)" {
                let theirs = cpu_list(&kernel).into_iter();
                let expected: Vec<u64> = theirs.filter(|id| cpus.allowed.contains(id)).collect();
                assert_eq!(list(name), expected, "{name}");
            }
        }
    }
}

#[test]
fn privileged_there_is_a_directory_for_each_cpu_and_those_of_the_cpuset_have_a_topology() {
    for limits in EACH {
        let Some(mut live) = Live::start(&limits) else {
            return;
        };
        let cpus = Cpus::read(&live.cgroup);
        let seen = names(&live, CPU);
        let theirs = ids(&host_names(CPU), "cpu");
        assert_eq!(ids(&seen, "cpu"), theirs);
        let affinity = live.container.ask(&["facts"])["affinity"].clone();
        assert_eq!(affinity, serde_json::json!(cpus.allowed));
        for id in &theirs {
            let top = format!("{CPU}/cpu{id}");
            let (is_visible, is_allowed) = (cpus.visible.contains(id), cpus.allowed.contains(id));
            // The first CPU of many machines has no such file, where it cannot go offline.
            let mut expected = host_names(&top);
            if !is_visible && !expected.iter().any(|name| name == "online") {
                expected.push("online".to_owned());
                expected.sort();
            }
            // Addresses of the kernel.
            expected.retain(|name| !name.starts_with("crash_notes"));
            if !is_allowed {
                let gone = ["topology", "cache", "microcode", "thermal_throttle"];
                expected.retain(|name| !gone.contains(&&**name));
            }
            assert_eq!(names(&live, &top), expected, "cpu{id}");
            if expected.iter().any(|name| name == "online") {
                let online = live.seen(&format!("{top}/online"));
                assert_eq!(online.trim(), u8::from(is_visible).to_string(), "{id}");
            }
            for name in ["hotplug/state", "hotplug/target"] {
                let path = format!("{top}/{name}");
                let Ok(kernel) = fs::read_to_string(&path) else {
                    continue;
                };
                let expected = if is_visible { &*kernel } else { "0\n" };
                assert_eq!(live.seen(&path), expected, "{path}");
            }
            assert_eq!(
                live.seen(&format!("{top}/uevent")),
                file(format!("{top}/uevent"))
            );
        }
    }
}

/// The names of a directory of the host.
#[track_caller]
fn host_names(path: &str) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn privileged_counters_of_the_machines_cpus_are_zero() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    let mut compared = 0;
    for id in ids(&host_names(CPU), "cpu") {
        for (dir, counters) in [
            (
                "cpuidle",
                &["usage", "time", "above", "below", "rejected"][..],
            ),
            ("thermal_throttle", &["core_throttle_count"]),
        ] {
            let top = format!("{CPU}/cpu{id}/{dir}");
            if !Path::new(&top).exists() {
                continue;
            }
            for state in host_names(&top) {
                let (below, files) = match dir {
                    "cpuidle" => (format!("{top}/{state}"), counters),
                    _ => (top.clone(), counters),
                };
                for name in files {
                    let path = format!("{below}/{name}");
                    if Path::new(&path).exists() {
                        assert_eq!(live.seen(&path), "0\n", "{path}");
                        compared += 1;
                    }
                }
                let name = format!("{below}/name");
                if Path::new(&name).exists() {
                    assert_eq!(live.seen(&name), file(&name), "{name}");
                }
            }
        }
    }
    // A virtual machine may have none of them.
    let has_idle_states = Path::new("/sys/devices/system/cpu/cpu0/cpuidle/state0").exists();
    assert!(compared > 0 || !has_idle_states);
}

#[test]
fn privileged_topology_and_caches_name_the_cpus_of_the_cpuset_alone() {
    for limits in EACH {
        let Some(live) = Live::start(&limits) else {
            return;
        };
        let cpus = Cpus::read(&live.cgroup);
        let allowed = |all: Vec<u64>| -> Vec<u64> {
            all.into_iter()
                .filter(|id| cpus.allowed.contains(id))
                .collect()
        };
        let mut compared = 0;
        for id in &cpus.allowed {
            let top = format!("{CPU}/cpu{id}");
            let mut paths: Vec<String> = names(&live, &format!("{top}/topology"))
                .iter()
                .map(|name| format!("{top}/topology/{name}"))
                .collect();
            for index in names(&live, &format!("{top}/cache")) {
                let dir = format!("{top}/cache/{index}");
                if index.starts_with("index") {
                    paths.extend(
                        names(&live, &dir)
                            .iter()
                            .map(|name| format!("{dir}/{name}")),
                    );
                }
            }
            for path in paths {
                if fs::metadata(&path).unwrap().is_dir() {
                    continue;
                }
                let Ok(kernel) = fs::read_to_string(&path) else {
                    continue;
                };
                let seen = live.seen(&path);
                compared += 1;
                if path.ends_with("_list") {
                    assert_eq!(cpu_list(&seen), allowed(cpu_list(&kernel)), "{path}");
                } else if path.ends_with("_map") || is_mask(&path) {
                    assert_eq!(mask(&seen), allowed(mask(&kernel)), "{path}");
                    assert_eq!(seen.len(), kernel.len(), "{path}");
                } else {
                    assert_eq!(seen, kernel, "{path}");
                }
            }
        }
        assert!(compared > 20, "{compared} files");
    }
}

/// `core_cpus` and its like, each of which has a list beside it.
fn is_mask(path: &str) -> bool {
    path.contains("/topology/") && Path::new(&format!("{path}_list")).exists()
}

#[test]
fn privileged_trees_of_the_kernel_are_empty_and_have_its_modes() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    let trees = [
        ("/sys/kernel/debug", "700"),
        ("/sys/kernel/tracing", "700"),
        ("/sys/kernel/security", "755"),
        ("/sys/kernel/config", "755"),
        ("/sys/firmware", "755"),
        ("/sys/devices/virtual/powercap", "755"),
    ];
    for (path, mode) in trees {
        if !Path::new(path).exists() {
            continue;
        }
        assert_eq!(names(&live, path), Vec::<String>::new(), "{path}");
        let stat = live.container.ask(&["stat", path])[path].clone();
        assert_eq!(stat["mode"], mode, "{path}");
        assert_eq!(
            (&stat["uid"], &stat["gid"]),
            (&0.into(), &0.into()),
            "{path}"
        );
    }
    assert_eq!(live.container.read("/sys/kernel/notes"), "");
}

#[test]
fn privileged_memory_is_one_block_of_the_limit_which_may_change() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    let block = format!("{MEMORY}/memory0");
    let size = |live: &Live| {
        let text = live.seen(&format!("{MEMORY}/block_size_bytes"));
        u64::from_str_radix(text.trim(), 16).unwrap()
    };
    assert_eq!(size(&live), 256 << 20);
    let blocks = |path: &str| {
        let names = names(&live, path);
        names
            .iter()
            .filter(|name| name.starts_with("memory"))
            .count()
    };
    assert_eq!(blocks(MEMORY), 1);
    assert_eq!(blocks("/sys/bus/memory/devices"), 1);
    assert_eq!(live.seen(&format!("{block}/state")), "online\n");
    assert_eq!(live.seen(&format!("{block}/online")), "1\n");
    for name in names(&live, &block) {
        let kernel = Path::new(&block).join(&name);
        assert!(kernel.exists(), "{name}");
    }
    for link in [
        "/sys/devices/system/node/node0/memory0",
        "/sys/bus/memory/devices/memory0",
    ] {
        let ls = live.container.busybox(&["ls", &format!("{link}/")]);
        assert!(ls.contains("phys_index"), "{link}: {ls}");
    }
    live.cgroup.limit(&Limits {
        memory: Some(128 << 20),
        ..LIMITS
    });
    assert_eq!(size(&live), 128 << 20);
    let lsmem = live.container.try_run(&["lsmem", "--summary", "--bytes"]);
    let online = lsmem
        .stdout
        .lines()
        .find(|line| line.starts_with("Total online memory:"));
    assert!(online.unwrap().ends_with(" 134217728"), "{lsmem:?}");
    // It is a report: nothing can be switched off.
    let refused = live
        .container
        .try_ask(&["write", &format!("{block}/state"), "offline"]);
    assert_eq!(refused, Err("EROFS".to_owned()));
}
