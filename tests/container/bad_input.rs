//! Invalid pids, names and limits.

use std::process::{Command, Stdio};

use crate::scene;

#[test]
fn privileged_a_pid_that_is_not_there_is_named() {
    let scene = scene();
    // More than the kernel gives.
    let pid = "4194305";
    for command in ["attach", "mount", "show"] {
        scene
            .eci_fs(&[command, pid])
            .refused(&["eci-fs: ", "no process", pid, "ps -e"]);
    }
    for command in ["attach", "mount"] {
        let ran = scene.eci_fs(&[command, "0"]);
        ran.refused(&["no process 0"]);
    }
    scene
        .eci_fs(&["detach", pid])
        .refused(&["nothing is attached", "eci-fs attach"]);
    assert_eq!(scene.daemon_pid(), None);
}

#[test]
fn privileged_a_process_that_has_ended_and_was_not_waited_for_is_refused() {
    let scene = scene();
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    support::wait_for_end(&support::open_pidfd(child.id()));
    let pid = child.id().to_string();
    scene.eci_fs(&["attach", &pid]).refused(&[&pid]);
    assert!(scene.list().is_empty());
    child.wait().unwrap();
}

#[test]
fn privileged_a_container_that_dies_while_it_is_attached_leaves_nothing() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    for _ in 0..10 {
        let mut container = scene.container().start();
        let pending = scene.start(&["attach", &container.pid().to_string()]);
        container.kill();
        let ran = pending.wait();
        if ran.code != Some(0) {
            ran.refused(&["eci-fs: "]);
        }
    }
    // All of them have ended, and the daemon answers and hears of their ends in one loop.
    let mut last = scene.container().start();
    scene.attach(&last);
    last.kill();
    drop(last);
    daemon.end();
    assert!(scene.list().is_empty());
}

#[test]
fn privileged_names_that_read_like_paths_or_pids_are_refused() {
    let scene = scene();
    let container = scene.container().start();
    let mounts = container.mounts();
    let pid = container.pid().to_string();
    let long = "x".repeat(129);
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a b",
        "a\nb",
        "-x",
        "123",
        "\u{1b}[2J",
        &long,
    ] {
        let name = format!("--id={name}");
        let ran = scene.eci_fs(&["attach", &name, &pid]);
        ran.refused(&["eci-fs: ", "cannot be the name of a container"]);
        assert!(!ran.stderr.contains('\u{1b}'), "{ran:?}");
    }
    assert_eq!(container.mounts(), mounts);
    assert!(scene.list().is_empty());
}

#[test]
fn privileged_a_name_is_given_once() {
    let scene = scene();
    let first = scene.container().start();
    let second = scene.container().start();
    let pids = [first.pid().to_string(), second.pid().to_string()];
    scene.eci_fs(&["attach", "--id", "web", &pids[0]]).ok();
    let ran = scene.eci_fs(&["attach", "--id", "web", &pids[1]]);
    ran.refused(&["another container is named web", "--id"]);
    let ran = scene.eci_fs(&["attach", "--id", "db", &pids[0]]);
    ran.refused(&["attached already, as web"]);
    assert_eq!(second.grafts().len(), 0);
}

#[test]
fn limits_that_are_none_are_refused_by_name() {
    let program = env!("CARGO_BIN_EXE_eci-fs");
    for (option, value) in [
        ("--memory", "lots"),
        ("--memory", "-1"),
        ("--memory", "99999999999T"),
        ("--swap", "x"),
        ("--cpus", "0"),
        ("--cpus", "-1"),
        ("--cpus", "nan"),
        ("--cpuset", "3-1"),
        ("--cpuset", "a"),
        ("--pids", "0"),
    ] {
        let option_value = format!("{option}={value}");
        let mut command = Command::new(program);
        let ran = support::Ran::run(command.args(["run", &option_value, "--", "true"]));
        assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
        assert!(
            ran.stderr.contains(value) && ran.stderr.contains(option),
            "{ran:?}"
        );
    }
}

#[test]
fn what_cannot_be_parsed_is_told_in_words_about_it() {
    let program = env!("CARGO_BIN_EXE_eci-fs");
    let dir = "/nonexistent";
    for (words, said) in [
        (&["attach", "abc"][..], "\"abc\" is no process id"),
        (&["mount", "abc"], "\"abc\" is no process id"),
        (
            &["run", "--pids", "x", "true"],
            "\"x\" is no number of processes",
        ),
        (&["run", "--pids", "2", "true"], "at least 3"),
        (&["run", "--memory", "0", "true"], "leave the option out"),
        (&["run", "--cpus", "1000000", "true"], "at most 65536"),
        (&["list", "--timeout", "abc"], "\"abc\" is no time"),
        (&["list", "--timeout", "0"], "\"0\" is no time"),
        (&["hook", "--timeout", "abc"], "\"abc\" is no time"),
        (&["mountd", "--freshness", "-1"], "\"-1\" is no age"),
        (&["mountd", "--freshness", "x"], "\"x\" is no age"),
    ] {
        let mut command = Command::new(program);
        let ran = support::Ran::run(command.args(words).env("ECI_FS_RUNTIME_DIR", dir));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(said), "{said}: {ran:?}");
        assert!(!ran.stderr.contains("invalid digit"), "{ran:?}");
    }
    // The usage has what is missing, and not what the environment sets.
    let mut command = Command::new(program);
    let ran = support::Ran::run(command.arg("attach").env("ECI_FS_RUNTIME_DIR", dir));
    assert!(ran.stderr.contains("Usage: eci-fs attach <PID>"), "{ran:?}");
    // There is no advice to pass an option as a path.
    let mut command = Command::new(program);
    let ran = support::Ran::run(command.args(["show", "1", "--json"]));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(!ran.stderr.contains("as a value"), "{ran:?}");
}

#[test]
fn privileged_the_runtime_directory_may_be_named_before_the_command() {
    let scene = scene();
    let container = scene.container().start();
    let pid = container.pid().to_string();
    let other = scene.dir().join("other");
    let other = other.to_str().unwrap();
    let before = ["--runtime-dir", other];
    scene
        .eci_fs(&[&before[..], &["attach", &pid]].concat())
        .ok();
    assert!(!scene.runtime_dir().exists());
    let listed = scene
        .eci_fs(&[&before[..], &["list", "--json"]].concat())
        .ok();
    assert!(listed.contains(&pid), "{listed}");
    // What the command itself is told is nearer.
    let words = ["--runtime-dir", "/nonexistent", "detach", &pid];
    scene.eci_fs(&[&words[..], &before].concat()).ok();
    let ran = scene.eci_fs(&[&before[..], &["install", "--engine", "docker"]].concat());
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr.contains("`eci-fs install` has no option"),
        "{ran:?}"
    );
}

#[test]
fn privileged_a_view_that_is_none_is_not_measured() {
    let scene = scene();
    let ran = scene.eci_fs(&["bench", "--quick", "--views", "/proc/meminfo,/proc/nosuch"]);
    ran.refused(&["no view of /proc/nosuch", "eci-fs show"]);
}

#[test]
fn privileged_limits_that_this_machine_cannot_give_are_refused_with_a_remedy() {
    let scene = scene();
    let ran = scene.eci_fs(&["run", "--swap", "1M", "--", "true"]);
    ran.refused(&["--swap without --memory", "give both"]);
    let ran = scene.eci_fs(&["run", "--cpuset", "4000", "--", "true"]);
    ran.refused(&["cpuset.cpus", "4000", "this machine has CPUs"]);
}
