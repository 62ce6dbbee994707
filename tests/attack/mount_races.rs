//! A container that mounts, moves and unmounts below its /proc and /sys while it is attached and detached.

use support::{Scene, mounts_of, number_after};

use crate::attacker::{Attacker, Needs};
use crate::scene;

/// The number of times that it is attached and detached.
const TIMES: usize = 40;

/// Returns the mounts of this mount namespace, which is the daemon's too.
#[track_caller]
fn mounts() -> Vec<String> {
    mounts_of("thread-self")
}

/// Attaches and detaches a container that races. Returns how often it was attached; each time it may be refused.
#[track_caller]
fn race(scene: &Scene, attacker: &Attacker) -> usize {
    let pid = attacker.container().pid().to_string();
    let mut attached = 0;
    for _ in 0..TIMES {
        for command in ["detach", "attach"] {
            let ran = scene.eci_fs(&[command, &pid]);
            match ran.code {
                Some(0) => attached += usize::from(command == "attach"),
                _ => assert!(ran.stderr.starts_with("eci-fs: "), "{ran:?}"),
            }
        }
    }
    attached
}

#[test]
fn privileged_a_container_that_changes_its_mounts_meanwhile_gets_no_graft_onto_the_host() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let server = daemon.server();
    let before = mounts();
    let mut attacker = Attacker::start(&scene, "change-mounts", 5, Needs::Nothing);
    attacker.begin("attack");
    let attached = race(&scene, &attacker);
    let done = attacker.rest();
    println!(
        "attached {attached} of {TIMES} times beside {} changes of mounts",
        done.number
    );
    assert!(done.number > 0, "{done:?}");
    assert_eq!(mounts(), before);
    drop(attacker);
    assert_eq!(mounts(), before);
    // Both programs are the same as before, and serve the next container.
    assert_eq!(daemon.server(), server);
    let panics = |line: &&String| line.contains("panicked");
    assert_eq!(daemon.log_lines().iter().find(panics), None);
    let mut next = scene.container().start();
    scene.attach(&next);
    assert!(number_after(&next.read("/proc/meminfo"), "MemTotal:") > 0);
    assert_eq!(scene.list().len(), 1);
    drop(next);
    daemon.end();
}
