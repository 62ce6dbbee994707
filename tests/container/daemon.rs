//! The life of a daemon.

use std::time::{Duration, Instant};

use support::{PATIENCE, Ran, Scene, Signal, end_within, mounts_of, open_pidfd, wait_for_end};

use crate::{limits, scene, sees, sees_the_host};

#[test]
fn privileged_a_daemon_in_the_background_ends_with_its_last_container() {
    let scene = scene();
    let mut first = scene.container().start();
    let second = scene.container().start();
    scene.attach(&first);
    scene.attach(&second);
    let daemon = open_pidfd(scene.daemon_pid().unwrap());
    first.kill();
    scene.detach(&second);
    wait_for_end(&daemon);
    assert_eq!(scene.daemon_pid(), None);
    assert!(!scene.runtime_dir().join("control.sock").exists());
    assert!(scene.list().is_empty());
}

#[test]
fn privileged_a_container_that_is_attached_while_the_last_one_ends_keeps_its_views() {
    // On a busy host the attach may come too late: then the daemon has ended before, or goes on.
    for _ in 0..4 {
        attach_while_the_last_one_ends(&scene());
    }
}

fn attach_while_the_last_one_ends(scene: &Scene) {
    let last = scene.container().start();
    let mut next = scene.container().limits(limits(128, 1.0)).start();
    let mut command = scene.command(&["attach", &last.pid().to_string()]);
    // The loop hears late that the last one is gone, and finds the daemon idle while the next attach has begun.
    command.env("ECI_FS_DAEMON_FAULT", "removed:1,attach-begun:2");
    Ran::run(&mut command).ok();
    scene.note_background();
    let first = open_pidfd(scene.daemon_pid().unwrap());
    let name = format!("pid-{}", last.pid());
    drop(last);
    // No command may ask: the loop looks after each of them whether the daemon is idle.
    let list = scene.runtime_dir().join("containers.json");
    while std::fs::read_to_string(&list).is_ok_and(|list| list.contains(&name)) {
        std::thread::yield_now();
    }
    scene.attach(&next);
    end_within(&first, Duration::from_secs(1));
    sees(&mut next, 128, 1);
    assert_eq!(scene.list().len(), 1);
}

#[test]
fn privileged_two_commands_at_once_start_one_daemon() {
    let scene = scene();
    let mut containers: Vec<_> = (0..4)
        .map(|number| {
            scene
                .container()
                .limits(limits(64 + 32 * number, 1.0))
                .start()
        })
        .collect();
    let attach =
        |container: &support::Container| scene.start(&["attach", &container.pid().to_string()]);
    let pending: Vec<_> = containers.iter().map(attach).collect();
    for pending in pending {
        pending.wait().ok();
    }
    assert_eq!(scene.list().len(), 4);
    for (number, container) in containers.iter_mut().enumerate() {
        sees(container, 64 + 32 * number as u64, 1);
    }
}

#[test]
fn privileged_a_container_that_dies_leaves_the_list() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut first = scene.container().start();
    let mut second = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&first);
    scene.attach(&second);
    first.kill();
    let line = daemon.wait_for("the container has ended");
    assert!(line.contains(&format!("pid-{}", first.pid())), "{line}");
    let listed = scene.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["pid"], second.pid());
    sees(&mut second, 128, 1);
    drop(second);
    daemon.wait_for("the container has ended");
    daemon.end();
}

#[test]
fn privileged_a_daemon_that_is_told_to_end_gives_all_files_back() {
    let scene = scene();
    let before = mounts_of("thread-self");
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mounts = container.mounts();
    scene.attach(&container);
    let dir = scene.dir().join("views");
    let pid = container.pid().to_string();
    scene.eci_fs(&["mount", &pid, dir.to_str().unwrap()]).ok();
    daemon.end();
    assert_eq!(container.mounts(), mounts);
    sees_the_host(&mut container);
    assert_eq!(mounts_of("thread-self"), before);
}

#[test]
fn privileged_a_daemon_gives_all_files_back_though_its_server_dies_meanwhile() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let containers: Vec<_> = (0..8)
        .map(|_| {
            let container = scene.container().start();
            scene.attach(&container);
            container
        })
        .collect();
    let server = daemon.server();
    support::signal(daemon.pid(), Signal::TERM);
    let end = Instant::now() + PATIENCE;
    while containers.iter().all(|one| !one.grafts().is_empty()) {
        assert!(Instant::now() < end, "nothing is undone");
    }
    support::signal(server, Signal::KILL);
    daemon.end();
    for container in &containers {
        assert_eq!(container.grafts(), Vec::<String>::new());
    }
}

#[test]
fn privileged_a_runtime_directory_that_another_daemon_holds_is_refused_with_its_pid() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let ran = scene.eci_fs(&["mountd"]);
    let (pid, dir) = (daemon.pid().to_string(), scene.runtime_dir());
    ran.refused(&[
        "another eci-mountd",
        &pid,
        dir.to_str().unwrap(),
        "--runtime-dir",
    ]);
    assert!(scene.list().is_empty(), "the first one goes on");
    daemon.end();
}

#[test]
fn privileged_daemons_of_several_runtime_directories_do_not_disturb_each_other() {
    let scene = scene();
    let other = scene.dir().join("other");
    let other = other.to_str().unwrap();
    let mut first = scene.container().limits(limits(64, 1.0)).start();
    let mut second = scene.container().limits(limits(96, 1.0)).start();
    scene.attach(&first);
    let pid = second.pid().to_string();
    scene.eci_fs(&["attach", &pid, "--runtime-dir", other]).ok();
    sees(&mut first, 64, 1);
    sees(&mut second, 96, 1);
    assert_eq!(scene.list().len(), 1);
    scene.eci_fs(&["detach", &pid, "--runtime-dir", other]).ok();
    sees(&mut first, 64, 1);
}
