//! `eci-fs run`: its options.

use support::{Scene, number_after};

use crate::scene;

fn run(scene: &Scene, options: &[&str], script: &str) -> String {
    let command = ["--", "sh", "-c", script];
    scene.eci_fs(&[&["run"], options, &command].concat()).ok()
}

#[test]
fn privileged_run_in_a_user_namespace_shows_the_same() {
    let scene = scene();
    let script = "id -u; cat /proc/self/uid_map; head -1 /proc/meminfo; getconf _NPROCESSORS_ONLN; stat -c '%u %a' /proc/meminfo";
    let options = ["--userns", "--memory", "128M", "--cpus", "1"];
    let text = run(&scene, &options, script);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0", "{text}");
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
    assert_eq!(number_after(&text, "MemTotal:"), 128 << 10);
    assert_eq!(lines[3..], ["1", "0 444"], "{text}");
}

/// A user namespace may mount a procfs and a sysfs where its container has one of which nothing is hidden.
#[test]
fn privileged_user_namespaces_in_a_run_mount_the_same_with_a_user_namespace_around_them() {
    let scene = scene();
    let script = "unshare -Urpf --mount-proc stat -f -c %T /proc; \
                  unshare -Urnm sh -c 'mount -t sysfs sysfs /sys && stat -f -c %T /sys'";
    for options in [&["--memory", "128M"][..], &["--userns", "--memory", "128M"]] {
        let command = ["--", "sh", "-c", script];
        let ran = scene.eci_fs(&[&["run"], options, &command].concat());
        assert_eq!(ran.stderr, "", "{options:?}");
        assert_eq!(ran.stdout, "proc\nsysfs\n", "{options:?}");
    }
}

#[test]
fn privileged_run_limits_processes() {
    let scene = scene();
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 10 & done; echo all";
    let ran = scene.eci_fs(&["run", "--pids", "5", "--", "sh", "-c", script]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.stdout.contains("all"), "{ran:?}");
    assert_eq!(run(&scene, &["--pids", "20"], script), "all\n");
}

#[test]
fn privileged_run_on_one_cpu_shows_that_cpu_by_its_own_number() {
    let scene = scene();
    let all = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    for cpu in support::cpu_list(&all).into_iter().take(2) {
        let script = "nproc; cat /sys/devices/system/cpu/online; grep ^processor /proc/cpuinfo; grep ^cpu /proc/stat";
        let text = run(&scene, &["--cpuset", &cpu.to_string()], script);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            ["1", &cpu.to_string(), &format!("processor\t: {cpu}")],
            "{text}"
        );
        assert!(
            lines[4].starts_with(&format!("cpu{cpu} ")) && lines.len() == 5,
            "{text}"
        );
    }
}

#[test]
fn privileged_run_with_no_swap_shows_none() {
    let scene = scene();
    let options = ["--memory", "64M", "--swap", "0"];
    let text = run(&scene, &options, "cat /proc/meminfo /proc/swaps");
    assert_eq!(number_after(&text, "SwapTotal:"), 0, "{text}");
    assert_eq!(number_after(&text, "SwapFree:"), 0, "{text}");
    let swaps: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("Filename"))
        .collect();
    assert_eq!(swaps.len(), 1, "{text}");
}

#[test]
fn privileged_a_command_that_needs_more_than_its_memory_is_killed() {
    let scene = scene();
    let probe = scene.root().join("bin/probe").display().to_string();
    let options = ["run", "--memory", "64M", "--swap", "0", "--"];
    let allocate =
        |bytes: &str| scene.eci_fs(&[&options[..], &[&probe, "allocate", bytes]].concat());
    assert_eq!(allocate("16000000").code, Some(0));
    assert_eq!(allocate("128000000").code, Some(137));
}
