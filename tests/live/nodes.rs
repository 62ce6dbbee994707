//! /sys/devices/system/node.

use std::fs;

use support::cpu_list;

use crate::source::{Cpus, Memory, dir, equal, file, steady};
use crate::sysfs::{ids, mask, names};
use crate::{LIMITS, Live, ONE_CPU};

const NODE: &str = "/sys/devices/system/node";

pub(crate) const VIEWS: &[&str] = &[NODE];

/// The nodes that the container may use.
fn allowed(live: &Live) -> Vec<u64> {
    cpu_list(&file(
        dir(&live.cgroup, "cpuset").join("cpuset.effective_mems"),
    ))
}

#[test]
fn privileged_nodes_are_those_of_the_cpuset_with_the_visible_cpus() {
    for limits in [LIMITS, ONE_CPU] {
        let Some(live) = Live::start(&limits) else {
            return;
        };
        let (nodes, cpus) = (allowed(&live), Cpus::read(&live.cgroup));
        let seen = names(&live, NODE);
        assert_eq!(ids(&seen, "node"), nodes);
        for name in seen.iter().filter(|name| !name.starts_with("node")) {
            if ["online", "possible"].contains(&&**name) {
                assert_eq!(
                    cpu_list(&live.seen(&format!("{NODE}/{name}"))),
                    nodes,
                    "{name}"
                );
            } else if name.starts_with("has_") {
                let path = format!("{NODE}/{name}");
                let theirs = cpu_list(&file(&path)).into_iter();
                let expected: Vec<u64> = theirs.filter(|node| nodes.contains(node)).collect();
                assert_eq!(cpu_list(&live.seen(&path)), expected, "{name}");
            }
        }
        for node in &nodes {
            let visible = |all: Vec<u64>| -> Vec<u64> {
                all.into_iter()
                    .filter(|id| cpus.visible.contains(id))
                    .collect()
            };
            let path = |name: &str| format!("{NODE}/node{node}/{name}");
            let (list, map) = (path("cpulist"), path("cpumap"));
            assert_eq!(cpu_list(&live.seen(&list)), visible(cpu_list(&file(&list))));
            assert_eq!(mask(&live.seen(&map)), visible(mask(&file(&map))));
            let distances = live.seen(&path("distance")).split_whitespace().count();
            assert_eq!(distances, nodes.len());
            let entries = names(&live, &format!("{NODE}/node{node}"));
            // A CPU that is offline has its link too.
            let theirs = fs::read_dir(format!("{NODE}/node{node}")).unwrap();
            let theirs = theirs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert_eq!(
                ids(&entries, "cpu"),
                ids(&theirs.collect::<Vec<_>>(), "cpu")
            );
        }
    }
}

#[test]
fn privileged_meminfo_of_the_nodes_is_together_that_of_the_container() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    live.use_memory();
    let nodes = allowed(&live);
    let text = |node: &u64| live.seen(&format!("{NODE}/node{node}/meminfo"));
    let view = || nodes.iter().map(text).collect::<String>();
    let judge = |memory: &Memory, view: &str| {
        let expected = [
            ("MemTotal", memory.total),
            ("MemFree", memory.free),
            ("MemUsed", memory.total - memory.free),
            ("AnonPages", memory.stat("rss")),
            ("FilePages", memory.stat("cache")),
            ("Slab", 0),
        ];
        for (key, bytes) in expected {
            let rows = view.lines().filter_map(|line| {
                let (before, after) = line.split_once(':')?;
                let number = after.split_whitespace().next()?.parse::<u64>().ok()?;
                (before.split_whitespace().last() == Some(key)).then_some(number)
            });
            let sum: u64 = rows.sum();
            // Each node's share is rounded on its own.
            let missing = (bytes / 1024).saturating_sub(sum);
            equal(
                key,
                (sum <= bytes / 1024, missing < nodes.len() as u64 + 1),
                (true, true),
            )
            .map_err(|error| format!("{error}: {sum} of {}", bytes / 1024))?;
        }
        Ok(())
    };
    steady(|| Memory::read(&live.cgroup), view, judge);
}

#[test]
fn privileged_counters_of_the_nodes_are_zero() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    for node in allowed(&live) {
        let path = format!("{NODE}/node{node}/numastat");
        let (view, kernel) = (live.seen(&path), file(&path));
        let zeros: String = kernel
            .lines()
            .map(|line| format!("{} 0\n", line.split(' ').next().unwrap()))
            .collect();
        assert_eq!(view.trim_end(), zeros.trim_end(), "{path}");
        let path = format!("{NODE}/node{node}/vmstat");
        let keys = |text: &str| -> Vec<String> {
            let keys = text.lines().filter_map(|line| line.split(' ').next());
            keys.map(str::to_owned).collect()
        };
        assert_eq!(keys(&live.seen(&path)), keys(&file(&path)));
        let huge = format!("{NODE}/node{node}/hugepages");
        for size in fs::read_dir(&huge).into_iter().flatten().flatten() {
            let size = size.file_name().into_string().unwrap();
            // What is beside them is for writing.
            let names = names(&live, &format!("{huge}/{size}"));
            for name in names.iter().filter(|name| name.ends_with("_hugepages")) {
                let seen = live.seen(&format!("{huge}/{size}/{name}"));
                assert_eq!(seen.trim(), "0", "{size}/{name}");
            }
        }
    }
}
