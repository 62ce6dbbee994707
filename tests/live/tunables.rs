//! Tunables: a container reads the values that it wrote, and nobody else sees them.
//!
//! Containers here have a user namespace. Where a graft is missing, the kernel refuses them its own file.

mod clusters;
mod reading;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use eci_fs_emulators::TUNABLES;
use eci_fs_emulators::tunable::{Handler, Policy, Tunable};
use support::{Container, Scene, let_time_pass};

use crate::source::file;

/// Of a daemon without options.
const FRESHNESS: Duration = Duration::from_millis(10);

const PANIC: &str = "/proc/sys/kernel/panic";

/// Its handler wants CAP_SYS_ADMIN of who writes.
const DMESG_RESTRICT: &str = "/proc/sys/kernel/dmesg_restrict";

fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_eci-fs"))
}

/// An attached container.
#[track_caller]
fn start(scene: &Scene) -> Container {
    let builder = scene.container().user_namespace(true);
    let container = builder.options(&["--network"]).start();
    scene.attach(&container);
    container
}

/// Those that this kernel has and does not keep for a container itself.
fn here() -> impl Iterator<Item = &'static Tunable> {
    let all = TUNABLES.iter().copied().flatten();
    all.filter(|tunable| tunable.namespaced.is_none() && Path::new(tunable.path()).exists())
}

fn can_be_read(tunable: &Tunable) -> bool {
    mode(tunable) & 0o444 != 0
}

/// The permission bits of the kernel's file.
fn mode(tunable: &Tunable) -> u32 {
    match tunable.policy {
        Policy::Constant(_) => 0o444,
        _ => std::fs::metadata(tunable.path()).unwrap().mode() & 0o777,
    }
}

/// Values that it takes, none of which is what a machine has.
fn values(tunable: &Tunable) -> Vec<String> {
    match tunable.handler {
        // A machine without the hardware has none of them.
        _ if mode(tunable) & 0o222 == 0 => Vec::new(),
        Handler::Int { count: 1, most, .. } if most < 1000 => {
            vec![most.to_string(), (most - 1).to_string()]
        }
        Handler::Int { count, .. } => vec![vec!["1234567"; count].join("\t")],
        Handler::Ulong { .. } => vec!["1234567".to_owned()],
        Handler::Qdisc => vec!["pfifo".to_owned(), "fq".to_owned()],
        Handler::Buckets => vec!["1234432".to_owned()],
        Handler::Checked { count, .. } => vec![["4", "3\t9"][count - 1].to_owned()],
        Handler::ReadOnly => Vec::new(),
    }
}

/// What it does not take.
fn refused(tunable: &Tunable) -> Vec<String> {
    let mut all = vec![
        "x".to_owned(),
        "\n".to_owned(),
        "99999999999999999999".to_owned(),
    ];
    match tunable.handler {
        Handler::Int { least, most, .. } => {
            all.push((i64::from(most) + 1).to_string());
            all.push((i64::from(least) - 1).to_string());
        }
        Handler::Ulong { least, .. } if least > 0 => all.push((least - 1).to_string()),
        Handler::Checked { .. } => all.push("-1".to_owned()),
        Handler::Ulong { .. } | Handler::ReadOnly | Handler::Buckets | Handler::Qdisc => {}
    }
    all
}

/// What the kernel answers to what a tunable does not take.
fn errno(tunable: &Tunable, value: &str) -> &'static str {
    match tunable.handler {
        // A machine without the hardware has none of them.
        _ if mode(tunable) & 0o222 == 0 => "EROFS",
        Handler::Qdisc => "ENOENT",
        Handler::Buckets if value.len() > 10 => "ERANGE",
        _ => "EINVAL",
    }
}

#[test]
fn privileged_every_tunable_begins_with_the_machines_value() {
    let scene = scene();
    let mut container = start(&scene);
    let grafts = container.grafts();
    for tunable in here() {
        let path = tunable.path();
        // It may lie in a directory that is.
        let is_graft = |graft: &String| Path::new(path).starts_with(graft);
        assert!(grafts.iter().any(is_graft), "{path}");
        let seen = container.try_read(path);
        match tunable.policy {
            Policy::Constant(text) => assert_eq!(seen, Ok(format!("{text}\n")), "{path}"),
            _ if can_be_read(tunable) => assert_eq!(seen, Ok(file(path)), "{path}"),
            _ => assert_eq!(seen, Err("EACCES".to_owned()), "{path}"),
        }
    }
}

#[test]
fn privileged_what_is_written_is_read_back_and_seen_by_nobody_else() {
    let scene = scene();
    let (mut writer, mut other) = (start(&scene), start(&scene));
    for tunable in here() {
        let path = tunable.path();
        let machine = can_be_read(tunable).then(|| file(path));
        for value in values(tunable) {
            let text = match tunable.handler {
                Handler::Qdisc | Handler::Buckets => format!("{value}\n"),
                _ => format!(" {value}\n"),
            };
            let taken = writer.try_ask(&["write", path, &text]);
            assert_eq!(taken, Ok(text.len().into()), "{path}: {value}");
            if let Some(machine) = &machine {
                assert_eq!(writer.read(path), format!("{value}\n"), "{path}");
                assert_eq!(&other.read(path), machine, "{path}");
                assert_eq!(&file(path), machine, "{path}");
            }
        }
        let before = machine.is_some().then(|| writer.read(path));
        for value in refused(tunable) {
            let answer = writer.try_ask(&["write", path, &value]);
            let wanted = errno(tunable, &value).to_owned();
            assert_eq!(answer, Err(wanted), "{path}: {value:?}");
            assert_eq!(
                before,
                machine.is_some().then(|| writer.read(path)),
                "{path}"
            );
        }
    }
}

#[test]
fn privileged_the_highest_pid_is_the_containers_own_by_the_kernel_or_by_a_graft() {
    let scene = scene();
    let (mut container, mut other) = (start(&scene), start(&scene));
    let path = "/proc/sys/kernel/pid_max";
    let (machine, others) = (file(path), other.read(path));
    let grafted = container.grafts().iter().any(|graft| graft == path);
    // Where the kernel keeps one for each namespace, another inode is found in another.
    let held = std::fs::File::open(path).unwrap();
    let inode = held.metadata().unwrap().ino();
    let inside = Command::new("unshare")
        .args(["--pid", "--fork", "stat", "--format=%i", path])
        .output()
        .unwrap();
    let inside = String::from_utf8_lossy(&inside.stdout).trim().to_owned();
    assert_eq!(grafted, inside == inode.to_string());
    container.ask(&["write", path, "4000"]);
    assert_eq!(container.read(path), "4000\n");
    assert_eq!((other.read(path), file(path)), (others, machine));
}

#[test]
fn privileged_what_a_container_has_changed_is_listed() {
    let scene = scene();
    let (mut container, other) = (start(&scene), start(&scene));
    let pid = container.pid().to_string();
    let listed = |pid: &str| scene.eci_fs(&["show", pid, "--tunables"]).ok();
    assert_eq!(listed(&pid), "");
    container.ask(&["write", PANIC, "77"]);
    container.ask(&["write", "/proc/sys/kernel/printk", "1 2 3 4"]);
    let of = |path: &str| file(path).trim().replace('\t', " ");
    let wanted = format!(
        "{PANIC}  77  (at first {})\n/proc/sys/kernel/printk  1 2 3 4  (at first {})\n",
        of(PANIC),
        of("/proc/sys/kernel/printk")
    );
    assert_eq!(listed(&pid), wanted);
    assert_eq!(listed(&other.pid().to_string()), "");
}

#[test]
fn privileged_what_was_written_outlives_the_server() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let (mut container, mut other) = (start(&scene), start(&scene));
    let value = |tunable: &Tunable| values(tunable).pop();
    for tunable in here() {
        if let Some(value) = value(tunable) {
            container.ask(&["write", tunable.path(), &value]);
        }
    }
    // Of two tunables that say the same in other units the one that was written last has its value, and the other is 0.
    let cleared: Vec<u16> = here().filter_map(|tunable| tunable.clears).collect();
    let is_single = |tunable: &&'static Tunable| !cleared.contains(&tunable.id());
    for _ in 0..2 {
        daemon.kill_server();
        for tunable in here()
            .filter(|tunable| can_be_read(tunable))
            .filter(is_single)
        {
            let path = tunable.path();
            if let Some(value) = value(tunable) {
                assert_eq!(container.read(path), format!("{value}\n"), "{path}");
                assert_eq!(other.read(path), file(path), "{path}");
            }
        }
        daemon.wait_for("the server died");
    }
    // What was being written when it died was written, or will be.
    for number in 0..4 {
        daemon.kill_server();
        container.ask(&["write", PANIC, &number.to_string()]);
        assert_eq!(container.read(PANIC), format!("{number}\n"));
        daemon.wait_for("the server died");
    }
    drop((container, other));
    daemon.end();
}

#[test]
fn privileged_what_was_written_is_gone_with_the_container() {
    let scene = scene();
    let mut first = start(&scene);
    first.ask(&["write", PANIC, "77"]);
    drop(first);
    assert_eq!(start(&scene).read(PANIC), file(PANIC));
}

#[test]
fn privileged_only_the_first_write_of_an_open_file_counts_as_on_the_machine() {
    let scene = scene();
    let mut container = start(&scene);
    let write = |container: &mut Container, words: &[&str]| {
        let taken = container.ask(words);
        (taken.as_u64().unwrap(), container.read(PANIC))
    };
    assert_eq!(
        write(&mut container, &["write", PANIC, "5 6\n"]),
        (2, "5\n".to_owned())
    );
    assert_eq!(
        write(&mut container, &["write-at", PANIC, "1", "7\n"]),
        (2, "5\n".to_owned())
    );
    assert_eq!(
        write(&mut container, &["append", PANIC, "0x10\n"]),
        (5, "16\n".to_owned())
    );
    // What was open before sees it when it is read from the beginning.
    assert_eq!(
        container.ask(&["write-and-read", PANIC, "8"]),
        serde_json::json!(["16\n", "8\n"])
    );
    container.busybox(&["sh", "-c", &format!("echo 9 > {PANIC}")]);
    assert_eq!(container.read(PANIC), "9\n");
    container.busybox(&["dd", "bs=1", "if=/dev/null", &format!("of={PANIC}")]);
    assert_eq!(container.read(PANIC), "9\n");
}

#[test]
fn privileged_paths_beside_the_grafts_cross_no_mount() {
    let scene = scene();
    let mut container = scene.container().user_namespace(true).start();
    let paths = [
        "sys/kernel/hostname",
        "sys/kernel/shmmax",
        "sys/kernel/cap_last_cap",
        "sys/net/ipv4/ip_forward",
        "sys/net/core/somaxconn",
        "sys/fs/mqueue/msg_max",
        "sys/user/max_user_namespaces",
        "1/status",
    ];
    let command = [&["open-beneath", "/proc"], &paths[..]].concat();
    let before = container.ask(&command);
    assert_eq!(before["sys/kernel/hostname"], "opened");
    scene.attach(&container);
    assert_eq!(container.ask(&command), before);
    // A graft is a mount, as it is wherever something lies over a file.
    let grafted = container.ask(&["open-beneath", "/proc", "sys/kernel/panic"]);
    assert_eq!(grafted["sys/kernel/panic"], "EXDEV");
}

#[test]
fn privileged_root_of_the_user_namespace_may_write_and_others_may_not() {
    let scene = scene();
    let mut container = start(&scene);
    let probe = container.program("probe");
    let mut write_as = |before: &str, path: &str| {
        let before: Vec<&str> = before.split_whitespace().collect();
        let write = [before.as_slice(), &[probe.as_str(), "write", path, "1"]].concat();
        let ran = container.try_run(&write);
        let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        answer["error"].as_str().map(str::to_owned)
    };
    for (before, path, wanted) in [
        ("setpriv", PANIC, None),
        ("setpriv", DMESG_RESTRICT, None),
        ("setpriv --reuid 1000 --clear-groups", PANIC, Some("EACCES")),
        // It is asked who it is, not what it may.
        (
            "setpriv --reuid 1000 --clear-groups --inh-caps +all --ambient-caps +all",
            PANIC,
            Some("EACCES"),
        ),
        ("setpriv --bounding-set -all", PANIC, None),
        (
            "setpriv --bounding-set -sys_admin",
            DMESG_RESTRICT,
            Some("EPERM"),
        ),
        // In a user namespace of its own it is who it was, and may no more of the container than anybody.
        ("unshare --user", PANIC, None),
        ("unshare --user", DMESG_RESTRICT, Some("EPERM")),
        (
            "unshare --user --map-root-user",
            DMESG_RESTRICT,
            Some("EPERM"),
        ),
    ] {
        assert_eq!(write_as(before, path).as_deref(), wanted, "{before} {path}");
    }
    // The machine's root may, where it is one.
    let from_outside = format!("/proc/{}/root{DMESG_RESTRICT}", container.pid());
    std::fs::write(from_outside, "0").unwrap();
    assert_eq!(container.read(DMESG_RESTRICT), "0\n");
}

#[test]
fn privileged_the_number_of_threads_is_at_first_no_more_than_the_limit() {
    let scene = scene();
    let mut container = scene.container().user_namespace(true).start();
    let cgroups = container.cgroup().dirs();
    let files: Vec<_> = cgroups
        .iter()
        .map(|dir| dir.join("pids.max"))
        .filter(|file| file.exists())
        .collect();
    assert_eq!(files.len(), 1, "no controller of pids in {cgroups:?}");
    std::fs::write(&files[0], "77").unwrap();
    scene.attach(&container);
    let path = "/proc/sys/kernel/threads-max";
    assert_eq!(container.read(path), "77\n");
    // Longer and shorter, for a reader that copies as much as it was told.
    for limit in ["66", "12345", "8"] {
        container.read(path);
        std::fs::write(&files[0], limit).unwrap();
        let_time_pass(2 * FRESHNESS);
        assert_eq!(container.busybox(&["cat", path]), format!("{limit}\n"));
    }
    container.ask(&["write", path, "4000"]);
    assert_eq!(container.read(path), "4000\n");
}

#[test]
fn privileged_each_of_many_writers_in_five_containers_reads_its_own() {
    let scene = scene();
    let mut containers: Vec<Container> = (0..5).map(|_| start(&scene)).collect();
    let paths: Vec<&str> = here()
        .filter(|tunable| {
            let wide = match tunable.handler {
                Handler::Int { count, most, .. } => count == 1 && most > 1 << 20,
                Handler::Ulong { .. } => true,
                _ => false,
            };
            wide && can_be_read(tunable)
        })
        .map(Tunable::path)
        .take(20)
        .collect();
    assert_eq!(paths.len(), 20);
    std::thread::scope(|scope| {
        for (number, container) in containers.iter_mut().enumerate() {
            let first = (1000 * (number + 1)).to_string();
            let paths = &paths;
            scope.spawn(move || {
                let command = [&["compete", &first, "50"], paths.as_slice()].concat();
                assert_eq!(container.ask(&command), 0);
            });
        }
    });
    for (number, container) in containers.iter_mut().enumerate() {
        let last = format!("{}\n", 1000 * (number + 1) + 49);
        for path in &paths {
            assert_eq!(container.read(path), last, "{path}");
        }
    }
}
