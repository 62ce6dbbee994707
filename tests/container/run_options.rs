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

/// With a daemon, and without one: then one is started, and ends with its last container.
#[test]
fn privileged_isolated_runs_have_ids_that_nobody_else_has() {
    let scene = scene();
    let script = "id -u; cat /proc/self/uid_map /proc/self/gid_map; head -1 /proc/meminfo; \
                  touch /etc/of-the-hosts-root 2>/dev/null || echo refused";
    let options = ["--isolate", "--memory", "128M"];
    let first_id = |text: &str| -> u32 {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[4]), ("0", "refused"), "{text}");
        assert_eq!(lines[1], lines[2]);
        assert_eq!(number_after(text, "MemTotal:"), 128 << 10);
        let words: Vec<u32> = lines[1]
            .split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect();
        assert_eq!((words[0], words[2]), (0, 65_536), "{text}");
        assert!(words[1] >= 65_536, "{text}");
        words[1]
    };
    first_id(&run(&scene, &options, script));
    let daemon = scene.daemon_pid();
    if let Some(daemon) = daemon {
        assert!(support::end_within(
            &support::open_pidfd(daemon),
            support::PATIENCE
        ));
    }
    let daemon = scene.daemon(&[]);
    let mut outer = scene.command(&[
        "run",
        "--isolate",
        "--",
        "sh",
        "-c",
        "cat /proc/self/uid_map; exec cat",
    ]);
    let mut outer = outer
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(outer.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    let its: u32 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let other = first_id(&run(&scene, &options, script));
    assert!(its.abs_diff(other) >= 65_536, "{its} {other}");
    drop(outer.stdin.take());
    assert!(outer.wait().unwrap().success());
    daemon.end();
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
fn an_option_that_is_none_is_no_command() {
    let program = env!("CARGO_BIN_EXE_eci-fs");
    for (words, said) in [
        (&["--memroy", "64M", "--", "free"][..], "'--memory'"),
        (&["--cpu", "1", "--", "true"], "'--cpus'"),
        (&["-m", "64M", "true"], "'-m'"),
        (&["--freshness", "0", "true"], "'--freshness'"),
        (&["--memory", "64M"], "COMMAND"),
    ] {
        let mut command = std::process::Command::new(program);
        let ran = support::Ran::run(command.arg("run").args(words));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert_eq!(ran.stdout, "");
        let usage = "Usage: eci-fs run [OPTIONS] [--] COMMAND [ARGS...]";
        for words in ["error: ", said, usage] {
            assert!(ran.stderr.contains(words), "{words}: {ran:?}");
        }
    }
}

#[test]
fn privileged_what_follows_the_command_is_the_commands_byte_for_byte() {
    use std::os::unix::ffi::OsStrExt;
    let scene = scene();
    let run = |words: &[&str]| scene.eci_fs(&[&["run"], words].concat());
    let words = ["echo", "--memory", "1", "--help", "-x", "--", "--userns"];
    let said = "--memory 1 --help -x -- --userns\n";
    assert_eq!(run(&words).ok(), said);
    assert_eq!(run(&[&["--"], &words[..]].concat()).ok(), said);
    assert_eq!(run(&[&["--memory", "64M"], &words[..]].concat()).ok(), said);
    // After the two dashes everything is a command.
    let ran = run(&["--", "--weird"]);
    assert_eq!(ran.code, Some(127), "{ran:?}");
    ran.refused(&["cannot execute --weird"]);
    let mut command = scene.command(&["run", "printf"]);
    command.arg(std::ffi::OsStr::from_bytes(b"a\xff\n"));
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"a\xff\n");
}

#[test]
fn privileged_the_command_of_run_ends_by_a_closed_pipe_like_any_other() {
    let scene = scene();
    let text = run(&scene, &[], "grep SigIgn /proc/self/status; yes | head -1");
    let mask = text.lines().next().unwrap().split_whitespace().nth(1);
    let mask = u64::from_str_radix(mask.unwrap(), 16).unwrap();
    assert_eq!(mask & (1 << (13 - 1)), 0, "SIGPIPE is ignored: {text}");
    let ran = scene.eci_fs(&["run", "--", "sh", "-c", "yes | head -1"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("y\n", ""));
}

#[test]
fn privileged_a_container_that_is_killed_before_it_begins_names_its_limit() {
    let scene = scene();
    for size in ["1", "1k", "100K"] {
        for more in [&[][..], &["--userns"]] {
            let options = [&["run", "--memory", size], more, &["--", "true"]].concat();
            let ran = scene.eci_fs(&options);
            assert_eq!(ran.code, Some(125), "{ran:?}");
            ran.refused(&["ended before it began", "memory limit"]);
        }
    }
}

#[test]
fn privileged_run_says_why_its_daemon_ended() {
    let scene = scene();
    let line = format!(
        "ulimit -n 20; exec {} run -- true",
        scene.program().display()
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line]);
    command.env("ECI_FS_RUNTIME_DIR", scene.runtime_dir());
    let ran = support::Ran::run(&mut command);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    ran.refused(&["eci-fs: ", "Too many open files"]);
    assert!(!ran.stderr.contains("try again"), "{ran:?}");
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
