//! Containers that keep whoever looks into them waiting, for ever. They get nothing, and nobody else notices.

use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use support::{Container, PATIENCE, Scene};

use crate::upgrade::end;
use crate::{limits, scene, sees};

/// The words of the refusal.
const REFUSED: &str = "does not let itself be looked into";

/// A container whose root directory never answers from now on.
#[track_caller]
fn hang(container: &mut Container) -> String {
    container.ask(&["hang-root"]);
    container.pid().to_string()
}

/// Another container starts, is attached, and sees its limits.
#[track_caller]
fn another_starts(scene: &Scene) {
    let begun = Instant::now();
    let mut another = scene.container().limits(limits(96, 1.0)).start();
    scene.attach(&another);
    sees(&mut another, 96, 1);
    scene.detach(&another);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn privileged_a_root_directory_that_never_answers_keeps_nobody_waiting() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut neighbour = scene.container().limits(limits(128, 1.0)).start();
    let mut hostile = scene.container().start();
    scene.attach(&neighbour);
    scene.attach(&hostile);
    let pid = hang(&mut hostile);
    let ran = scene.eci_fs(&["detach", &pid]);
    ran.refused(&[REFUSED, &pid]);
    // Only the first time takes long.
    let begun = Instant::now();
    scene.eci_fs(&["detach", &pid]).refused(&[REFUSED]);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(scene.list().len(), 2);
    another_starts(&scene);
    sees(&mut neighbour, 128, 1);
    let doctor = scene.eci_fs(&["doctor", "--json"]);
    assert!(doctor.stdout.contains(REFUSED), "{doctor:?}");
    scene.eci_fs(&["upgrade"]).ok();
    sees(&mut neighbour, 128, 1);
    another_starts(&scene);
    // The thread of the daemon before ends with the container.
    drop(hostile);
    drop(daemon);
    scene.detach(&neighbour);
    assert_eq!(scene.list().len(), 0);
    drop(neighbour);
    end(&scene, Signal::TERM);
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn privileged_a_container_whose_root_directory_never_answers_is_not_attached() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut hostile = scene.container().start();
    let pid = hang(&mut hostile);
    // Others go on at the same time.
    let pending = scene.start(&["attach", &pid]);
    another_starts(&scene);
    pending.wait().refused(&[REFUSED, &pid]);
    assert_eq!(scene.list().len(), 0);
    drop(hostile);
    daemon.end();
}

/// Waits until no process holds the lock of the runtime directory.
#[track_caller]
fn wait_for_the_lock(scene: &Scene) {
    let lock = std::fs::File::open(scene.runtime_dir().join("lock")).unwrap();
    let end = Instant::now() + PATIENCE;
    while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        assert!(Instant::now() < end, "the lock is held");
        support::let_time_pass(Duration::from_millis(10));
    }
}

#[test]
fn privileged_a_daemon_that_is_killed_while_a_container_holds_a_thread_of_it_has_a_successor() {
    let scene = scene();
    let first = scene.daemon(&[]);
    let server = first.server();
    let mut neighbour = scene.container().limits(limits(128, 1.0)).start();
    let mut hostile = scene.container().start();
    scene.attach(&neighbour);
    scene.attach(&hostile);
    let pid = hang(&mut hostile);
    scene.eci_fs(&["detach", &pid]).refused(&[REFUSED]);
    signal(first.pid(), Signal::KILL);
    wait_for_the_lock(&scene);
    let second = scene.daemon(&[]);
    assert_eq!(second.server(), server, "the same goes on");
    assert_eq!(scene.list().len(), 2);
    sees(&mut neighbour, 128, 1);
    another_starts(&scene);
    drop(hostile);
    drop(first);
    scene.detach(&neighbour);
    second.end();
}

#[test]
fn privileged_a_daemon_ends_and_undoes_the_rest_though_a_container_never_answers() {
    let scene = scene();
    let mut first = scene.daemon(&[]);
    let neighbour = scene.container().limits(limits(128, 1.0)).start();
    let mounts = neighbour.mounts();
    let mut hostile = scene.container().start();
    scene.attach(&hostile);
    scene.attach(&neighbour);
    hang(&mut hostile);
    signal(first.pid(), Signal::TERM);
    first.wait_for(REFUSED);
    wait_for_the_lock(&scene);
    assert_ne!(neighbour.mounts().len(), 0);
    assert_eq!(neighbour.mounts(), mounts);
    let second = scene.daemon(&[]);
    another_starts(&scene);
    drop(hostile);
    second.end();
}

#[test]
fn privileged_a_container_that_writes_in_its_network_namespace_keeps_no_other_from_it() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let network = || scene.container().options(&["--network"]).start();
    let (mut neighbour, mut hostile) = (network(), network());
    scene.attach(&neighbour);
    scene.attach(&hostile);
    let path = "/proc/sys/net/ipv4/neigh/lo/locktime";
    let before = neighbour.read(path);
    // A process of it keeps the root directory that it had.
    let program = hostile.program("probe");
    hostile.ask(&["start", "writer", &program, "agent"]);
    hang(&mut hostile);
    let write = format!(r#"["write", "{path}", "7"]"#);
    let refused = hostile.ask(&["tell", "writer", &write]).to_string();
    assert!(refused.contains("EROFS"), "{refused}");
    let begun = Instant::now();
    assert_eq!(neighbour.read(path), before);
    neighbour.ask(&["write", path, "8"]);
    assert_eq!(neighbour.read(path), "8\n");
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop((neighbour, hostile));
    daemon.end();
}
