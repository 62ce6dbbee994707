//! What happens when nobody reads what a command prints, and when it cannot be written.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use support::Scene;

use crate::{limits, scene, sees};

/// A pipe whose reader has gone.
fn closed_pipe() -> OwnedFd {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full_disk() -> OwnedFd {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

#[track_caller]
fn run(mut command: Command, stdout: OwnedFd) -> (Option<i32>, String) {
    let child = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped());
    let Output { status, stderr, .. } = child.spawn().unwrap().wait_with_output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// That a command ends without a word when its reader has gone, and with one line when the disk is full.
#[track_caller]
fn is_quiet(command: impl Fn() -> Command, what: &str) {
    let (code, said) = run(command(), closed_pipe());
    assert_eq!((code, said.as_str()), (Some(141), ""), "{what}");
    let (code, said) = run(command(), full_disk());
    assert_eq!(code, Some(1), "{what}: {said}");
    let words = "cannot write to standard output: No space left on device";
    assert!(
        said.lines().count() == 1 && said.contains(words),
        "{what}: {said}"
    );
}

#[test]
fn help_and_version_of_every_command_need_no_reader() {
    let eci_fs = env!("CARGO_BIN_EXE_eci-fs");
    let output = Command::new(eci_fs).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let commands = help.split("Commands:").nth(1).unwrap();
    let names = commands.split("Options:").next().unwrap().lines();
    let names: Vec<&str> = names
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        // What follows `runtime` is for the runtime.
        .filter(|name| !name.is_empty() && !["help", "runtime"].contains(name))
        .collect();
    assert!(names.contains(&"list") && names.len() > 10, "{names:?}");
    for name in names {
        let command = || {
            let mut command = Command::new(eci_fs);
            command.args([name, "--help"]);
            command
        };
        is_quiet(command, name);
    }
    for option in ["--help", "--version"] {
        let command = || {
            let mut command = Command::new(eci_fs);
            command.arg(option);
            command
        };
        is_quiet(command, option);
    }
}

#[test]
fn privileged_no_answer_of_a_command_needs_a_reader() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let container = scene.container().start();
    let pid = container.pid().to_string();
    let root = scene.dir().join("machine");
    std::fs::create_dir(&root).unwrap();
    let root = root.to_str().unwrap();
    scene.eci_fs(&["attach", "--id", "web", &pid]).ok();
    for command in [
        &["list"][..],
        &["list", "--json"],
        &["attach", &pid],
        &["show", &pid],
        &["show", "web", "/proc/meminfo"],
        &["show", "web", "/proc/stat", "--diff"],
        &["show", "web", "/sys/devices/system/cpu"],
        &["install", "--engine", "podman", "--root", root, "--dry-run"],
        &["uninstall", "--engine", "podman", "--root", root],
    ] {
        is_quiet(|| scene.command(command), &format!("{command:?}"));
    }
    drop(container);
    daemon.end();
}

#[test]
fn privileged_what_a_command_changes_is_done_even_if_its_answer_cannot_be_printed() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mounts = container.mounts();
    let pid = container.pid().to_string();
    let of = |scene: &Scene, command: &str| scene.command(&[command, &pid]);
    for (stdout, code) in [
        (closed_pipe as fn() -> OwnedFd, Some(141)),
        (full_disk, Some(1)),
    ] {
        assert_eq!(run(of(&scene, "attach"), stdout()).0, code);
        sees(&mut container, 128, 1);
        assert_eq!(run(of(&scene, "detach"), stdout()).0, code);
        assert_eq!(container.mounts(), mounts);
    }
    let upgrade = scene.command(&["upgrade"]);
    let before = (daemon.pid(), daemon.server());
    assert_eq!(run(upgrade, closed_pipe()).0, Some(141));
    // Both programs were replaced, although the first line could not be printed.
    let after = (scene.daemon_pid().unwrap(), scene.server_pid().unwrap());
    assert!(
        after.0 != before.0 && after.1 != before.1,
        "{before:?} {after:?}"
    );
    drop(container);
    support::signal(after.0, support::Signal::TERM);
    support::wait_for_end(&support::open_pidfd(after.0));
}

#[test]
fn privileged_an_error_that_cannot_be_printed_has_its_exit_code_all_the_same() {
    let scene = scene();
    for stderr in [closed_pipe(), full_disk()] {
        let mut command = scene.command(&["attach", "4194305"]);
        let again = stderr.try_clone().unwrap();
        let status = command.stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(1));
        let mut command = Command::new(env!("CARGO_BIN_EXE_eci-runc"));
        command.args(["list"]).env("ECI_FS_RUNTIME", "/nonexistent");
        let status = command.stderr(again).status().unwrap();
        // It has given SIGPIPE its default for the runtime that it could not execute.
        let by_pipe = status.signal() == Some(support::Signal::PIPE.as_raw());
        assert!(by_pipe || status.code() == Some(1), "{status:?}");
    }
}

#[test]
fn privileged_a_daemon_whose_log_cannot_be_written_serves_on() {
    let scene = scene();
    for stderr in [closed_pipe as fn() -> OwnedFd, full_disk] {
        let mut command = scene.command(&["mountd"]);
        command.env("ECI_FS_LOG", "debug");
        let mut daemon = command
            .stdin(Stdio::null())
            .stderr(stderr())
            .spawn()
            .unwrap();
        let pidfd = support::open_pidfd(daemon.id());
        // The socket is there before the daemon is ready, and a command waits for it.
        let end = std::time::Instant::now() + support::PATIENCE;
        while !scene.runtime_dir().join("control.sock").exists() {
            assert!(std::time::Instant::now() < end, "no socket");
        }
        let mut container = scene.container().limits(limits(128, 1.0)).start();
        scene.attach(&container);
        sees(&mut container, 128, 1);
        drop(container);
        support::signal(daemon.id(), support::Signal::TERM);
        support::wait_for_end(&pidfd);
        assert!(daemon.wait().unwrap().success());
    }
}
