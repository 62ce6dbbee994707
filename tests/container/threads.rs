//! Threads of the daemon that panic: that is noticed, told, and mended.

use std::time::Duration;

use support::{Daemon, Scene};

use crate::{limits, scene, sees};

/// A daemon in which a piece of work of one thread panics.
#[track_caller]
fn daemon_with_fault(scene: &Scene, fault: &str) -> Daemon {
    let mut command = scene.command(&["mountd"]);
    command.env("ECI_FS_DAEMON_FAULT", fault);
    scene.daemon_of(command)
}

/// The doctor and the list name the thread.
#[track_caller]
fn is_told(scene: &Scene, thread: &str) {
    let words = format!("the thread {thread} of eci-mountd panicked");
    let doctor = scene.eci_fs(&["doctor", "--json"]);
    assert_ne!(doctor.code, Some(0));
    assert!(doctor.stdout.contains(&words), "{doctor:?}");
    let list = scene.eci_fs(&["list"]);
    assert!(list.stderr.contains(&words), "{list:?}");
}

#[test]
fn privileged_a_thread_that_panics_is_mended_and_told() {
    let path = "/proc/sys/net/ipv4/neigh/lo/locktime";
    for thread in ["broker", "answers"] {
        let scene = scene();
        let daemon = daemon_with_fault(&scene, &format!("{thread}:1"));
        let mut container = scene.container().options(&["--network"]).start();
        scene.attach(&container);
        // The question that it panics with is lost, or answered with an error. The next is answered.
        let _ = container.try_read(path);
        container.read(path);
        is_told(&scene, thread);
        drop(container);
        daemon.end();
    }
}

#[test]
fn privileged_a_container_that_ended_is_removed_though_the_thread_for_that_panics() {
    let scene = scene();
    let mut daemon = daemon_with_fault(&scene, "ended:1");
    let container = scene.container().start();
    scene.attach(&container);
    drop(container);
    daemon.wait_for("a thread panicked");
    daemon.wait_for("the container has ended");
    is_told(&scene, "ended");
    daemon.end();
}

#[test]
fn privileged_the_next_container_is_attached_though_the_thread_that_prepares_that_panics() {
    let scene = scene();
    let mut daemon = daemon_with_fault(&scene, "preparer:1");
    let first = scene.container().start();
    scene.attach(&first);
    daemon.wait_for("a thread panicked");
    let mut second = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&second);
    sees(&mut second, 128, 1);
    assert_eq!(second.grafts(), first.grafts());
    is_told(&scene, "preparer");
    drop((first, second));
    daemon.end();
}

#[test]
fn privileged_a_command_that_comes_while_the_next_attach_is_prepared_goes_first() {
    let scene = scene();
    let mut command = scene.command(&["mountd"]);
    // The preparation takes some seconds.
    command.env("ECI_FS_FAULT", "slow@request:5");
    let mut daemon = scene.daemon_of(command);
    let first = scene.container().start();
    let second = scene.container().start();
    let third = scene.container().start();
    scene.attach(&first);
    scene.attach(&second);
    daemon.wait_for("a command waits: the rest is not prepared");
    // The third takes the clones that were made, and makes the others.
    scene.attach(&third);
    assert_eq!(first.grafts(), second.grafts());
    assert_eq!(first.grafts(), third.grafts());
    drop((first, second, third));
    daemon.end();
}

#[test]
fn privileged_an_operation_whose_thread_panics_fails_and_the_next_one_does_not() {
    for thread in ["visit", "control"] {
        let scene = scene();
        let daemon = daemon_with_fault(&scene, &format!("{thread}:1"));
        let mut container = scene.container().limits(limits(128, 1.0)).start();
        let pid = container.pid().to_string();
        let ran = scene.eci_fs(&["attach", &pid]);
        ran.refused(&["panicked", thread]);
        scene.attach(&container);
        sees(&mut container, 128, 1);
        is_told(&scene, thread);
        drop(container);
        daemon.end();
    }
}

#[test]
fn privileged_a_daemon_without_a_thread_that_it_needs_ends_and_the_next_goes_on() {
    // The grafter has had two pieces of work when the daemon is ready. The visitor prepares the next attach after its
    // second.
    for fault in ["grafter:3", "visitor:3"] {
        let scene = scene();
        let mut first = daemon_with_fault(&scene, fault);
        let server = first.server();
        let mut container = scene.container().limits(limits(128, 1.0)).start();
        let pid = container.pid().to_string();
        scene.attach(&container);
        scene.eci_fs(&["show", &pid, "/proc/meminfo"]);
        let words = "the daemon cannot go on without this thread";
        let said = |first: &mut Daemon| first.log_lines().join("\n");
        if !said(&mut first).contains(words) {
            first.wait_for(words);
        }
        // A command starts the next one, where none listens.
        scene.eci_fs(&["attach", &pid]).ok();
        assert_eq!(scene.server_pid(), Some(server), "the same goes on");
        sees(&mut container, 128, 1);
        scene.note_background();
        drop(container);
        drop(first);
    }
}

/// Waits until all threads of a process have stopped.
#[track_caller]
fn wait_until_stopped(pid: u32) {
    let process = procfs::process::Process::new(i32::try_from(pid).unwrap()).unwrap();
    let is_stopped = || {
        let mut tasks = process.tasks().unwrap();
        tasks.all(|task| task.unwrap().stat().unwrap().state == 'T')
    };
    while !is_stopped() {
        std::thread::yield_now();
    }
}

#[test]
fn privileged_a_watchdog_that_panics_still_ends_a_server_that_hangs() {
    let scene = scene();
    let mut command = scene.command(&["mountd"]);
    command.env("ECI_FS_DAEMON_FAULT", "watchdog:1");
    let mut daemon = scene.daemon_of(command);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    let server = daemon.server();
    let pid = rustix::process::Pid::from_raw(i32::try_from(server).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // A thread that has not stopped yet could take the request, which the daemon would not hear of then.
    wait_until_stopped(server);
    // The first check panics, the second finds what hangs.
    sees(&mut container, 128, 1);
    daemon.wait_for("a thread panicked");
    assert_ne!(daemon.server(), server);
    is_told(&scene, "watchdog");
    drop(container);
    daemon.end();
}

#[test]
fn privileged_a_server_that_is_slow_and_answers_readers_is_not_ended() {
    let scene = scene();
    let mut command = scene.command(&["mountd"]);
    // Each request takes so long that the daemon's own question waits behind those of the readers.
    command.env("ECI_FS_FAULT", "slow@request:20");
    let mut daemon = scene.daemon_of(command);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    let server = daemon.server();
    container.ask(&["stress", "/proc/vmstat", "400", "8000"]);
    support::let_time_pass(Duration::from_secs(1));
    assert_eq!(daemon.server(), server);
    let ended = |line: &String| line.contains("the server does not answer");
    assert!(!daemon.log_lines().iter().any(ended));
    sees(&mut container, 128, 1);
    drop(container);
    daemon.end();
}
