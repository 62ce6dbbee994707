//! What a container learns of others by names and numbers, and what it reaches by them.

use std::collections::BTreeSet;

use serde_json::Value;
use support::{Container, Scene};

/// A cached view, a live one, a tunable, and a directory graft.
const ENTRIES: [&str; 4] = [
    "/proc/meminfo",
    "/proc/vmstat",
    "/proc/sys/vm/swappiness",
    "/sys/devices/system/cpu",
];

/// The entry of a container's top directory in the node id.
const TOP: u64 = 1 << 16;

fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_eci-fs"))
}

/// Two containers that have all capabilities on the host.
fn two(scene: &Scene) -> [Container; 2] {
    [(); 2].map(|()| {
        let container = scene.container().start();
        scene.attach(&container);
        container
    })
}

/// The name of a container's directory in the connections, by its own mountinfo.
fn top(container: &mut Container) -> String {
    let mounts = container.read("/proc/self/mountinfo");
    let roots = mounts
        .lines()
        .filter(|line| line.contains(" - fuse eci-fs "));
    let names = roots.map(|line| line.split(' ').nth(3).unwrap().split('/').nth(1).unwrap());
    let names: BTreeSet<&str> = names.collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names.into_iter().next().unwrap().to_owned()
}

/// The slot and the generation of a container.
fn ids(container: &mut Container) -> (u64, u32) {
    let top = top(container);
    let (slot, generation) = top.split_once('-').unwrap_or((&top, "0"));
    (
        slot.parse().unwrap(),
        u32::from_str_radix(generation, 16).unwrap(),
    )
}

fn inode(container: &mut Container, path: &str) -> u64 {
    let ran = container.try_run(&["stat", "-c", "%i", path]);
    ran.stdout.trim().parse().unwrap()
}

/// Have a container open the node with this id and generation on each of its mounts.
fn open(container: &mut Container, node: u64, generation: u32) -> Vec<Result<Value, String>> {
    let words = [(node >> 32) as u32, node as u32, generation].map(|word| word.to_string());
    ENTRIES
        .map(|mount| {
            let [high, low, generation] = words.each_ref().map(String::as_str);
            container.try_ask(&["open-handle", mount, high, low, generation])
        })
        .into()
}

#[test]
fn privileged_no_file_handle_leads_to_another_container() {
    let scene = scene();
    let [mut one, mut other] = two(&scene);
    let (own_slot, own) = ids(&mut one);
    let (slot, generation) = ids(&mut other);
    assert_ne!(own_slot, slot);
    assert!(own != 0 && generation != 0 && own != generation);
    let mut entries = vec![TOP];
    for path in ENTRIES {
        entries.push(inode(&mut other, path));
        // The kernel knows the node, so that a handle could find it.
        other.try_ask(&["read", path]).ok();
    }
    for entry in entries {
        for guess in [0, 1, own] {
            for tried in open(&mut one, slot << 40 | entry, guess) {
                assert_eq!(tried, Err("ESTALE".to_owned()), "{entry:#x}, {guess}");
            }
        }
    }
}

/// Where the kernel can be told that there are no handles (Linux 6.9).
#[test]
fn privileged_there_are_no_file_handles_at_all() {
    let scene = scene();
    let [mut one, mut other] = two(&scene);
    for path in ENTRIES {
        let got = one.try_ask(&["handle", path]);
        assert_eq!(got, Err("EOPNOTSUPP".to_owned()), "{path}");
    }
    let (slot, generation) = ids(&mut other);
    let meminfo = slot << 40 | inode(&mut other, "/proc/meminfo");
    for tried in open(&mut one, meminfo, generation) {
        assert_eq!(tried, Err("ESTALE".to_owned()));
    }
    for tried in open(&mut one, 1, 0) {
        assert_eq!(tried, Err("ESTALE".to_owned()), "the root of a connection");
    }
}

#[test]
fn privileged_nothing_that_a_container_sees_counts_containers() {
    let scene = scene();
    let mut slots = Vec::new();
    for _ in 0..4 {
        let mut container = scene.container().start();
        scene.attach(&container);
        slots.push(ids(&mut container).0);
        container.kill();
    }
    // Numbers that count would be near each other.
    for (index, one) in slots.iter().enumerate() {
        for other in &slots[..index] {
            assert!(one.abs_diff(*other) > 4, "{slots:?}");
        }
    }
    let [mut one, mut other] = two(&scene);
    let paths = [
        "/proc/meminfo",
        "/proc/stat",
        "/proc/vmstat",
        "/proc/pressure/cpu",
        "/proc/sys/vm/swappiness",
        "/sys/devices/system/cpu/online",
        "/sys/devices/system/cpu/cpu0",
    ];
    for path in paths {
        assert_eq!(inode(&mut one, path), inode(&mut other, path), "{path}");
    }
    let list = |container: &mut Container| {
        container.ask(&[
            "list",
            "/sys/devices/system/cpu",
            "/sys/devices/system/node",
        ])
    };
    assert_eq!(list(&mut one), list(&mut other));
    let mounts = |container: &mut Container| {
        let text = container.read("/proc/self/mounts");
        // Their order is that of the numbers that the kernel gives to mounts. It says which clones were prepared.
        let ours: BTreeSet<String> = text
            .lines()
            .filter(|line| line.contains(" fuse "))
            .map(str::to_owned)
            .collect();
        ours
    };
    assert_eq!(mounts(&mut one), mounts(&mut other));
}

/// The kernel's limit of requests in the background is one for all containers.
#[test]
fn privileged_a_container_that_fills_the_background_requests_stops_no_reader_of_another() {
    let scene = scene();
    let [mut one, mut other] = two(&scene);
    // Its processes open as many files as they may, and end, which closes all at once; others read ahead.
    let closing = "while :; do bash -c 'for i in {1..900}; do exec {fd}</proc/vmstat; done'; done";
    let ahead = "while :; do cat /proc/meminfo /proc/uptime /proc/stat; done";
    let all = format!("exec >/dev/null 2>&1; for i in 1 2; do ({closing}) & ({ahead}) & done");
    one.try_run(&["bash", "-c", &all]);
    for _ in 0..100 {
        for path in ["/proc/meminfo", "/proc/vmstat", "/proc/sys/vm/swappiness"] {
            assert!(!other.read(path).is_empty());
        }
        other.ask(&["list", "/sys/devices/system/cpu"]);
    }
}
