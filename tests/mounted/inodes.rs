//! Inode numbers: a 32-bit program stats and lists every graft.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, pidfd_send_signal};
use support::{Container, Ran, Scene, find_program, open_pidfd, wait_for_end};

use crate::{LIMITS, scene};

/// The name of the 32-bit program in the probe's directory.
const PROGRAM: &str = "walk32";

/// Builds the 32-bit program for the containers of a scene.
#[track_caller]
fn build(scene: &Scene) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mounted/walk32.c");
    let mut command = Command::new(find_program("cc"));
    command.args(["-m32", "-O1", "-nostdlib", "-static", "-ffreestanding"]);
    command.args(["-fno-stack-protector", "-fno-pie", "-no-pie", "-o"]);
    command
        .arg(scene.root().join("bin").join(PROGRAM))
        .arg(source);
    let built = command.output().unwrap();
    assert!(built.status.success(), "{built:?}");
}

/// The numbers of one entry: `st_dev`, `st_ino` and `d_ino`.
type Numbers = [i64; 3];

/// Returns what the program says of the entries at and below some paths.
#[track_caller]
fn walk(container: &mut Container, paths: &[String]) -> BTreeMap<String, Numbers> {
    let program = container.program(PROGRAM);
    let paths = paths.iter().map(String::as_str);
    let command: Vec<&str> = std::iter::once(program.as_str()).chain(paths).collect();
    let said = container.run(&command);
    let line = |line: &str| {
        let mut fields = line.splitn(4, ' ');
        let numbers: Numbers = std::array::from_fn(|_| fields.next().unwrap().parse().unwrap());
        (fields.next().unwrap().to_owned(), numbers)
    };
    said.lines().map(line).collect()
}

/// Checks the numbers of all grafts of a container, and of what lies in them. Returns them, without those of the directories
/// above grafts: each container has a procfs of its own.
#[track_caller]
fn check(container: &mut Container) -> BTreeMap<String, Numbers> {
    let grafts = container.grafts();
    let all = walk(container, &grafts);
    let mut seen = HashMap::new();
    for (path, numbers) in &all {
        let [dev, ino, d_ino] = *numbers;
        assert!(dev > 0 && ino > 0 && d_ino >= 0, "{path}: {numbers:?}");
        let (above, name) = path.rsplit_once('/').unwrap();
        match name {
            "." => assert_eq!((ino, d_ino), (all[above][1], ino), "{path}"),
            ".." if grafts.iter().any(|graft| graft == above) => {
                // The directory above a graft is the kernel's, and the listing does not know it.
                assert!(d_ino > 0, "{path}");
            }
            ".." => {
                let (above, _) = above.rsplit_once('/').unwrap();
                assert_eq!((ino, d_ino), (all[above][1], ino), "{path}");
            }
            _ => {
                // An argument is not listed.
                assert!(d_ino == ino || d_ino == 0, "{path}: {numbers:?}");
                let other = seen.insert((dev, ino), path);
                assert_eq!(other, None, "{path}: {numbers:?}");
            }
        }
    }
    let is_above = |path: &str| {
        let graft = path.strip_suffix("/..");
        graft.is_some_and(|graft| grafts.iter().any(|other| other == graft))
    };
    all.into_iter()
        .filter(|(path, _)| !is_above(path))
        .collect()
}

#[test]
fn privileged_a_32_bit_program_stats_and_lists_every_graft() {
    let scene = scene();
    build(&scene);
    for options in [&[][..], &["--freshness", "0"]] {
        let daemon = scene.daemon(options);
        for (user, network) in [(false, &[][..]), (true, &["--network"])] {
            let builder = scene.container().limits(LIMITS).user_namespace(user);
            let mut container = builder.options(network).start();
            scene.attach(&container);
            let all = check(&mut container);
            assert!(all.contains_key("/sys/devices/system/cpu/cpu0/topology/core_id"));
            assert!(all.contains_key("/sys/devices/system/cpu/online"));
            let is_there = |path: &str| all.contains_key(path);
            assert_eq!(is_there("/proc/sys/net/core/somaxconn"), user);
        }
        daemon.end();
    }
}

#[test]
fn privileged_inode_numbers_stay_and_are_the_same_in_every_container() {
    let scene = scene();
    build(&scene);
    let daemon = scene.daemon(&[]);
    let start = || {
        let container = scene.container().limits(LIMITS).start();
        scene.attach(&container);
        container
    };
    let mut container = start();
    let before = check(&mut container);
    // Others come and go. The next one has another slot, and nobody can tell.
    for _ in 0..3 {
        assert_eq!(check(&mut start()), before);
    }
    daemon.kill_server();
    assert_eq!(check(&mut container), before);
    daemon.die();
    let daemon = scene.daemon(&[]);
    assert_eq!(check(&mut container), before);
    scene.eci_fs(&["upgrade"]).ok();
    assert_eq!(check(&mut container), before);
    drop(container);
    let successor = scene.daemon_pid().unwrap();
    let pidfd = open_pidfd(successor);
    pidfd_send_signal(&pidfd, Signal::TERM).unwrap();
    wait_for_end(&pidfd);
    drop(daemon);
}

#[test]
fn privileged_the_names_of_10_000_devices_have_different_inode_numbers() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let builder = scene.container().limits(LIMITS);
    let container = builder.options(&["--network"]).start();
    scene.attach(&container);
    let batch = scene.dir().join("devices");
    let devices = (0..10_000).map(|index| format!("link add d{index} type ifb\n"));
    std::fs::write(&batch, devices.collect::<String>()).unwrap();
    let pid = container.pid().to_string();
    let beside = |command: &[&str]| {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--net", "--target", &pid]).args(command);
        Ran::run(&mut nsenter).ok()
    };
    beside(&["ip", "-batch", &batch.display().to_string()]);
    let neigh = format!("/proc/{pid}/root/proc/sys/net/ipv4/neigh");
    // Of one program the numbers are those of stat(2), of the other those of readdir(3).
    let stats = beside(&[
        "find",
        &neigh,
        "-mindepth",
        "1",
        "-maxdepth",
        "1",
        "-printf",
        "%i %f\n",
    ]);
    let listed = beside(&["ls", "-1iA", &neigh]);
    let parse = |text: &str| {
        let line = |line: &str| {
            let (number, name) = line.trim().split_once(' ').unwrap();
            (name.to_owned(), number.parse::<u32>().unwrap())
        };
        text.lines().map(line).collect::<BTreeMap<_, _>>()
    };
    let (stats, listed) = (parse(&stats), parse(&listed));
    assert_eq!(stats, listed);
    let distinct: HashSet<u32> = stats.values().copied().collect();
    assert!(stats.len() > 10_000 && !distinct.contains(&0));
    assert_eq!(distinct.len(), stats.len());
    daemon.end();
}
