//! `eci-fs run`: the views of its container. Afterwards the host is unchanged.

use std::path::PathBuf;

use support::{Scene, mounts_of, number_after};

use crate::scene;

const LIMITS: [&str; 4] = ["--memory", "256M", "--cpus", "0.5"];

fn run(scene: &Scene, options: &[&str], script: &str) -> String {
    let command = ["--", "sh", "-c", script];
    scene.eci_fs(&[&["run"], options, &command].concat()).ok()
}

#[test]
fn privileged_run_shows_its_limits_to_ordinary_programs() {
    let scene = scene();
    let free = run(&scene, &LIMITS, "free -m");
    assert_eq!(number_after(&free, "Mem:"), 256, "{free}");
    assert_eq!(number_after(&free, "Swap:"), 0, "{free}");
    assert_eq!(
        run(&scene, &LIMITS, "getconf _NPROCESSORS_ONLN").trim(),
        "1"
    );
    assert_eq!(
        run(&scene, &LIMITS, "grep -c ^processor /proc/cpuinfo").trim(),
        "1"
    );
    let up = run(&scene, &LIMITS, "uptime");
    assert!(up.contains(" up 0 min") || up.contains(" up 0:00"), "{up}");
    let text = run(&scene, &LIMITS, "head -3 /proc/meminfo");
    assert_eq!(number_after(&text, "MemTotal:"), 256 << 10, "{text}");
    let free = number_after(&text, "MemFree:");
    assert!(free <= 256 << 10 && free > 200 << 10, "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn privileged_run_shows_the_time_since_it_began_and_the_clocks_agree() {
    let scene = scene();
    let probe = scene.root().join("bin/probe").display().to_string();
    let text = run(&scene, &[], &format!("cat /proc/uptime; {probe} facts"));
    let up = support::uptime(&text);
    assert!(up < 10.0, "{text}");
    if std::path::Path::new("/proc/self/ns/time").exists() {
        let facts: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        for clock in ["boottime", "monotonic"] {
            let now = facts["ok"][clock].as_f64().unwrap();
            assert!((now - up).abs() < 1.0, "{clock}: {text}");
        }
    }
}

#[test]
fn privileged_run_without_limits_shows_the_memory_of_the_machine() {
    let scene = scene();
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    let text = run(&scene, &[], "cat /proc/meminfo");
    assert_eq!(
        number_after(&text, "MemTotal:"),
        number_after(&host, "MemTotal:")
    );
}

#[test]
fn privileged_run_leaves_mounts_cgroups_and_processes_as_before() {
    // Mounts that would reach the host from a namespace of its own are seen here.
    let scene = Scene::with_shared_mounts(env!("CARGO_BIN_EXE_eci-fs"));
    let before = mounts_of("thread-self");
    let pending = scene.start(&[&["run"], &LIMITS[..], &["--", "cat", "/proc/meminfo"]].concat());
    let pid = pending.pid();
    pending.wait().ok();
    assert_eq!(mounts_of("thread-self"), before);
    assert_eq!(cgroups_of(pid), Vec::<PathBuf>::new());
    // It had a daemon of its own, which made no runtime directory. Processes are looked for by the scene.
    assert!(!scene.runtime_dir().exists());
}

#[test]
fn privileged_run_that_fails_leaves_mounts_cgroups_and_processes_as_before() {
    let scene = scene();
    let before = mounts_of("thread-self");
    for options in [
        &["--cpuset", "4000"][..],
        &["--id", "a/b"],
        &["--memory", "1"],
    ] {
        let pending = scene.start(&[&["run"], options, &["--", "true"]].concat());
        let pid = pending.pid();
        let ran = pending.wait();
        assert_eq!(ran.code, Some(125), "{ran:?}");
        ran.refused(&["eci-fs: "]);
        assert_eq!(cgroups_of(pid), Vec::<PathBuf>::new());
    }
    assert_eq!(mounts_of("thread-self"), before);
}

#[test]
fn privileged_two_runs_side_by_side_see_their_own_limits() {
    let scene = scene();
    let start =
        |size: &str| scene.start(&["run", "--memory", size, "--", "head", "-1", "/proc/meminfo"]);
    let (first, second) = (start("64M"), start("128M"));
    assert_eq!(number_after(&first.wait().ok(), "MemTotal:"), 64 << 10);
    assert_eq!(number_after(&second.wait().ok(), "MemTotal:"), 128 << 10);
}

#[test]
fn privileged_run_uses_a_daemon_that_is_there_and_leaves_it() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let text = run(
        &scene,
        &["--memory", "64M", "--id", "web"],
        "cat /proc/meminfo",
    );
    assert_eq!(number_after(&text, "MemTotal:"), 64 << 10);
    let line = daemon.wait_for("the container has ended");
    assert!(line.contains("web"), "{line}");
    assert!(scene.list().is_empty());
    daemon.end();
}

/// The cgroups that the `run` with this pid has left.
fn cgroups_of(pid: u32) -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    hierarchies
        .map(|entry| entry.path())
        .chain(["/sys/fs/cgroup".into()])
        .map(|top| top.join(format!("eci-fs/run-{pid}")))
        .filter(|dir| dir.exists())
        .collect()
}
