//! `eci-fs run`: exit codes, and signals that are passed on.

use std::io::{BufRead, BufReader};

use support::{Pending, Scene, Signal};

use crate::scene;

fn code(scene: &Scene, command: &[&str]) -> Option<i32> {
    scene.eci_fs(&[&["run", "--"], command].concat()).code
}

#[test]
fn privileged_run_ends_with_the_exit_code_of_its_command() {
    let scene = scene();
    assert_eq!(code(&scene, &["true"]), Some(0));
    assert_eq!(code(&scene, &["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&scene, &["sh", "-c", "exit 255"]), Some(255));
}

#[test]
fn privileged_run_ends_with_128_and_the_signal_that_ended_its_command() {
    let scene = scene();
    for (signal, expected) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        let script = format!("kill -{signal} $$");
        assert_eq!(
            code(&scene, &["sh", "-c", &script]),
            Some(expected),
            "{signal}"
        );
    }
}

#[test]
fn privileged_run_ends_with_127_or_126_when_there_is_no_such_command_or_it_cannot_run() {
    let scene = scene();
    for (command, expected) in [("no-such-command", 127), ("/etc/hostname", 126), ("/", 126)] {
        let ran = scene.eci_fs(&["run", "--", command]);
        assert_eq!(ran.code, Some(expected), "{ran:?}");
        ran.refused(&["eci-fs: ", command]);
    }
}

/// A shell that says "ready", and ends with 9 when it gets `signal`.
fn waiting(scene: &Scene, signal: &str) -> Pending {
    let script = format!("trap 'exit 9' {signal}; echo ready; sleep 100 & wait $!");
    let mut pending = scene.start(&["run", "--", "sh", "-c", &script]);
    let stdout = pending.child().stdout.take().unwrap();
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    if line != "ready\n" {
        panic!("it said {line:?}, and ended: {:?}", pending.wait());
    }
    pending
}

#[test]
fn privileged_run_passes_signals_on_to_its_command() {
    let scene = scene();
    for (name, signal) in [
        ("TERM", Signal::TERM),
        ("INT", Signal::INT),
        ("HUP", Signal::HUP),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("QUIT", Signal::QUIT),
    ] {
        let mut pending = waiting(&scene, name);
        pending.signal(signal);
        assert_eq!(pending.wait().code, Some(9), "{name}");
    }
}

#[test]
fn privileged_a_run_that_is_killed_takes_its_container_with_it() {
    let scene = scene();
    let mut pending = waiting(&scene, "TERM");
    let pid = pending.pid();
    pending.signal(Signal::KILL);
    assert_eq!(pending.wait().code, None);
    // Processes are looked for by the scene. The cgroups are left to the next run, which sweeps them.
    scene.wait_for_children();
    assert_eq!(code(&scene, &["true"]), Some(0));
    for controller in ["memory", "cpu", "pids", ""] {
        let dir = format!("/sys/fs/cgroup/{controller}/eci-fs/run-{pid}");
        assert!(!std::path::Path::new(&dir).exists(), "{dir}");
    }
}

#[test]
fn privileged_run_reaps_and_ends_with_its_command_though_others_run_on() {
    let scene = scene();
    let script = "sleep 100 & sleep 0.01 & exit 3";
    assert_eq!(code(&scene, &["sh", "-c", script]), Some(3));
}

#[test]
fn privileged_run_passes_standard_input_and_both_outputs_through() {
    use std::io::Write;
    let scene = scene();
    let mut pending = scene.start(&["run", "--", "sh", "-c", "cat; echo mistake >&2"]);
    let mut stdin = pending.child().stdin.take().unwrap();
    stdin.write_all(b"said\n").unwrap();
    drop(stdin);
    let ran = pending.wait();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("said\n", "mistake\n")
    );
}
