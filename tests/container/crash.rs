//! The server is killed, or the daemon, or both.

use std::path::Path;

use support::mounts_of;

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
fn privileged_a_container_is_attached_again_after_a_crash_of_daemon_and_server() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mounts = container.mounts();
    scene.attach(&container);
    daemon.crash();
    let dead = container.try_read("/proc/meminfo");
    assert!(dead.is_err(), "never the host's file: {dead:?}");
    assert!(
        Path::new(&scene.runtime_dir())
            .join("control.sock")
            .exists()
    );
    assert!(scene.list().is_empty(), "a stale socket is no daemon");
    scene.attach(&container);
    sees(&mut container, 128, 1);
    assert_eq!(scene.list().len(), 1);
    scene.detach(&container);
    assert_eq!(
        container.mounts(),
        mounts,
        "none of the dead grafts is left"
    );
    sees_the_host(&mut container);
}

#[test]
fn privileged_what_a_crash_left_is_removed_at_the_next_start() {
    let scene = scene();
    let before = mounts_of("thread-self");
    let mut first = scene.container().limits(limits(128, 1.0)).start();
    let mut second = scene.container().start();
    let mounts = (first.mounts(), second.mounts());
    let daemon = scene.daemon(&[]);
    scene.attach(&first);
    scene.attach(&second);
    let dir = scene.dir().join("views");
    let pid = first.pid().to_string();
    scene.eci_fs(&["mount", &pid, dir.to_str().unwrap()]).ok();
    daemon.crash();
    let daemon = scene.daemon(&[]);
    assert!(scene.list().is_empty());
    assert_eq!((first.mounts(), second.mounts()), mounts);
    sees_the_host(&mut first);
    sees_the_host(&mut second);
    assert_eq!(mounts_of("thread-self"), before);
    assert!(!dir.exists());
    daemon.end();
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
