//! The server is killed, or the daemon, or both.

use rustix::process::{Pid, Signal, kill_process};
use support::{mounts_of, open_pidfd, wait_for_end};

use crate::dead_daemon::list_of_the_dead;
use crate::{limits, scene, sees, sees_the_host};

#[test]
fn privileged_reads_go_on_when_the_server_is_killed() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    container.ask(&["hold", "meminfo", "/proc/meminfo"]);
    for _ in 0..5 {
        let server = daemon.server();
        daemon.kill_server();
        // Reads wait for the next server: no request is lost, none fails.
        sees(&mut container, 128, 1);
        let text = container.ask(&["again", "meminfo"]);
        assert_eq!(
            support::number_after(text.as_str().unwrap(), "MemTotal:"),
            128 << 10
        );
        daemon.wait_for("the server died");
        scene.list();
        assert_ne!(daemon.server(), server);
    }
    scene.detach(&container);
    sees_the_host(&mut container);
    daemon.end();
}

#[test]
fn privileged_uptime_does_not_fall_when_the_server_is_killed() {
    let scene = scene();
    let mut daemon = scene.daemon(&["--freshness", "0"]);
    let mut container = scene.container().start();
    scene.attach(&container);
    let mut last = support::uptime(&container.read("/proc/uptime"));
    for _ in 0..3 {
        daemon.kill_server();
        let next = support::uptime(&container.read("/proc/uptime"));
        assert!(next >= last, "{last} {next}");
        last = next;
        daemon.wait_for("the server died");
    }
    drop(container);
    daemon.end();
}

#[test]
fn privileged_reads_go_on_when_the_daemon_is_killed() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let server = daemon.server();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mounts = container.mounts();
    scene.attach(&container);
    let boot_id = container.read("/proc/sys/kernel/random/boot_id");
    container.ask(&["hold", "meminfo", "/proc/meminfo"]);
    for _ in 0..3 {
        daemon.die();
        sees(&mut container, 128, 1);
        assert_eq!(list_of_the_dead(&scene).len(), 1);
        daemon = scene.daemon(&[]);
        sees(&mut container, 128, 1);
        assert_eq!(scene.list().len(), 1);
        assert_eq!(daemon.server(), server, "the same goes on");
        container.ask(&["again", "meminfo"]);
    }
    // All else works as before: another container, a death of the server, a detach.
    let mut another = scene.container().limits(limits(96, 1.0)).start();
    scene.attach(&another);
    sees(&mut another, 96, 1);
    daemon.kill_server();
    sees(&mut container, 128, 1);
    sees(&mut another, 96, 1);
    daemon.wait_for("the server died");
    assert_eq!(container.read("/proc/sys/kernel/random/boot_id"), boot_id);
    scene.detach(&container);
    assert_eq!(container.mounts(), mounts);
    sees_the_host(&mut container);
    drop(another);
    daemon.wait_for("the container has ended");
    daemon.end();
}

#[test]
fn privileged_a_server_without_a_daemon_ends_with_its_last_container() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let container = scene.container().start();
    let gone_first = scene.container().start();
    scene.attach(&container);
    scene.attach(&gone_first);
    let server = open_pidfd(daemon.server());
    daemon.die();
    drop(gone_first);
    drop(container);
    wait_for_end(&server);
}

#[test]
fn privileged_a_container_that_ended_without_a_daemon_is_not_on_the_list_of_the_next() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let gone = scene.container().start();
    scene.attach(&container);
    scene.attach(&gone);
    daemon.die();
    drop(gone);
    let daemon = scene.daemon(&[]);
    assert_eq!(scene.list().len(), 1);
    sees(&mut container, 128, 1);
    drop(container);
    daemon.end();
}

#[test]
fn privileged_directories_of_a_daemon_that_was_killed_are_shown_and_removed_by_the_next() {
    let scene = scene();
    let before = mounts_of("thread-self");
    let daemon = scene.daemon(&[]);
    let container = scene.container().limits(limits(128, 1.0)).start();
    let dir = scene.dir().join("views");
    let pid = container.pid().to_string();
    scene.eci_fs(&["mount", &pid, dir.to_str().unwrap()]).ok();
    daemon.die();
    let daemon = scene.daemon(&[]);
    let meminfo = std::fs::read_to_string(dir.join("proc/meminfo")).unwrap();
    assert_eq!(support::number_after(&meminfo, "MemTotal:"), 128 << 10);
    scene.eci_fs(&["unmount", dir.to_str().unwrap()]).ok();
    assert_eq!(mounts_of("thread-self"), before);
    assert!(!dir.exists());
    drop(container);
    daemon.end();
}

#[test]
fn privileged_after_a_crash_of_both_the_next_start_grafts_anew() {
    let scene = scene();
    let before = mounts_of("thread-self");
    let mut first = scene.container().limits(limits(128, 1.0)).start();
    let mut second = scene.container().limits(limits(96, 2.0)).start();
    let mounts = (first.mounts(), second.mounts());
    let daemon = scene.daemon(&[]);
    scene.attach(&first);
    scene.attach(&second);
    let grafted = first.mounts().len();
    let dir = scene.dir().join("views");
    let pid = first.pid().to_string();
    scene.eci_fs(&["mount", &pid, dir.to_str().unwrap()]).ok();
    let boot_id = first.read("/proc/sys/kernel/random/boot_id");
    daemon.crash();
    let dead = first.try_read("/proc/meminfo");
    assert!(dead.is_err(), "never the host's file: {dead:?}");
    assert!(scene.runtime_dir().join("control.sock").exists());
    assert_eq!(list_of_the_dead(&scene).len(), 2);
    let daemon = scene.daemon(&[]);
    sees(&mut first, 128, 1);
    sees(&mut second, 96, 2);
    assert_eq!(scene.list().len(), 2);
    assert_eq!(first.read("/proc/sys/kernel/random/boot_id"), boot_id);
    assert_eq!(first.mounts().len(), grafted, "none of the dead is left");
    let meminfo = std::fs::read_to_string(dir.join("proc/meminfo")).unwrap();
    assert_eq!(support::number_after(&meminfo, "MemTotal:"), 128 << 10);
    daemon.end();
    assert_eq!((first.mounts(), second.mounts()), mounts);
    sees_the_host(&mut first);
    sees_the_host(&mut second);
    assert_eq!(mounts_of("thread-self"), before);
    assert!(!dir.exists());
}

#[test]
fn privileged_a_command_starts_a_daemon_that_takes_over_what_a_crash_left() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mounts = container.mounts();
    scene.attach(&container);
    daemon.crash();
    scene.attach(&container);
    sees(&mut container, 128, 1);
    assert_eq!(scene.list().len(), 1);
    scene.detach(&container);
    assert_eq!(container.mounts(), mounts);
    sees_the_host(&mut container);
}

#[test]
fn privileged_a_server_that_hangs_is_replaced() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    for _ in 0..2 {
        let server = daemon.server();
        let pid = Pid::from_raw(i32::try_from(server).unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        // It waits for the next server.
        sees(&mut container, 128, 1);
        daemon.wait_for("does not answer");
        daemon.wait_for("the server died");
        scene.list();
        assert_ne!(daemon.server(), server);
    }
    // An attach that a hanging server holds up comes to its end too.
    let pid = Pid::from_raw(i32::try_from(daemon.server()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let mut another = scene.container().limits(limits(96, 1.0)).start();
    sees(&mut container, 128, 1);
    scene.attach(&another);
    sees(&mut another, 96, 1);
    drop((container, another));
    daemon.end();
}

#[test]
fn privileged_a_server_that_does_not_answer_its_daemon_is_replaced_and_no_container_is_let_go_of() {
    let scene = scene();
    let mut command = scene.command(&["mountd"]);
    // Requests are answered all the while, so that only the daemon can notice.
    command.env("ECI_FS_FAULT", "hang@add:2");
    let mut daemon = scene.daemon_of(command);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    let server = daemon.server();
    let another = scene.container().limits(limits(96, 1.0)).start();
    let mounts = another.mounts();
    let other = another.pid().to_string();
    scene
        .eci_fs(&["attach", &other])
        .refused(&["did not answer in time", "try again"]);
    assert_eq!(another.mounts(), mounts);
    daemon.wait_for("the server does not answer its daemon: ending it threads=\"");
    daemon.wait_for("the server died");
    sees(&mut container, 128, 1);
    assert_ne!(daemon.server(), server);
    assert_eq!(scene.list().len(), 1);
    drop((container, another));
    daemon.end();
}

#[test]
fn privileged_a_server_that_does_not_answer_the_next_daemon_is_replaced_with_all_containers() {
    let scene = scene();
    let mut command = scene.command(&["mountd"]);
    command.env("ECI_FS_FAULT", "hang@catalogue:1");
    let daemon = scene.daemon_of(command);
    let mut first = scene.container().limits(limits(128, 1.0)).start();
    let mut second = scene.container().limits(limits(96, 1.0)).start();
    let boot_id = "/proc/sys/kernel/random/boot_id";
    let seen = [&mut first, &mut second].map(|container| {
        scene.attach(container);
        container.read(boot_id)
    });
    let server = daemon.server();
    daemon.die();
    let mut daemon = scene.daemon(&[]);
    let said = daemon.log_lines().join("\n");
    assert!(
        said.contains("the server does not answer its daemon: ending it"),
        "{said}"
    );
    assert_ne!(daemon.server(), server);
    assert_eq!(scene.list().len(), 2);
    sees(&mut first, 128, 1);
    sees(&mut second, 96, 1);
    let now = [&mut first, &mut second].map(|container| container.read(boot_id));
    assert_eq!(now, seen);
    daemon.end();
    sees_the_host(&mut first);
    sees_the_host(&mut second);
}

#[test]
fn privileged_a_container_that_ended_during_a_crash_does_not_keep_the_next_daemon_from_starting() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut gone = scene.container().start();
    scene.attach(&gone);
    daemon.crash();
    gone.kill();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    sees(&mut container, 128, 1);
    assert_eq!(scene.list().len(), 1);
}

#[test]
fn privileged_another_runtime_directory_attaches_what_a_crash_left() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mounts = container.mounts();
    scene.attach(&container);
    daemon.crash();
    let other = scene.dir().join("other");
    let other = other.to_str().unwrap();
    let pid = container.pid().to_string();
    scene.eci_fs(&["attach", &pid, "--runtime-dir", other]).ok();
    sees(&mut container, 128, 1);
    scene.eci_fs(&["detach", &pid, "--runtime-dir", other]).ok();
    assert_eq!(container.mounts(), mounts);
}
