//! Containers that are frozen, or killed, in the middle of their requests.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use support::{Cgroup, number_after};

use crate::attacker::{Attacker, Needs};
use crate::neighbour::Neighbour;
use crate::scene;
use crate::starts::Starts;

/// The number of requests that the container has under way.
const THREADS: usize = 600;

/// Returns the file that freezes the processes of a cgroup, and what is written to it to freeze and to thaw them.
#[track_caller]
fn freezer(cgroup: &Cgroup) -> (PathBuf, [&'static str; 2]) {
    let files = [
        ("cgroup.freeze", ["1", "0"]),
        ("freezer.state", ["FROZEN", "THAWED"]),
    ];
    let dirs = cgroup.dirs();
    let found = files.into_iter().find_map(|(file, words)| {
        let dir = dirs.iter().find(|dir| dir.join(file).exists())?;
        Some((dir.join(file), words))
    });
    found.expect("a cgroup that can be frozen: v2, or the freezer of v1")
}

#[test]
fn privileged_a_container_that_is_frozen_in_the_middle_of_600_requests_stops_nobody() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let server = daemon.server();
    let mut neighbour = Neighbour::start(&scene);
    for attack in ["open-live", "list-cpus", "open-node", "force-attributes"] {
        let mut attacker = Attacker::start(&scene, attack, THREADS, Needs::Nothing);
        let (file, [freeze, thaw]) = freezer(attacker.container().cgroup());
        attacker.begin("attack");
        for _ in 0..5 {
            fs::write(&file, freeze).unwrap();
            let measured = neighbour.measure(Duration::from_millis(50));
            assert!(
                measured.passes > 0 && measured.failures.is_empty(),
                "{measured:?}"
            );
            fs::write(&file, thaw).unwrap();
        }
        fs::write(&file, freeze).unwrap();
        let mut measured = neighbour.measure(Duration::from_millis(50));
        Starts::new(&scene).measure(1, &mut measured);
        assert!(measured.failures.is_empty(), "{measured:?}");
        // It is killed while it is frozen.
        drop(attacker);
        let measured = neighbour.measure(Duration::from_millis(50));
        assert!(
            measured.passes > 0 && measured.failures.is_empty(),
            "{measured:?}"
        );
    }
    assert_eq!(daemon.server(), server);
    drop(neighbour);
    daemon.end();
}

#[test]
fn privileged_readers_that_are_killed_in_the_middle_of_600_requests_leave_nothing_behind() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let server = daemon.server();
    let mut neighbour = Neighbour::start(&scene);
    let mut threads = Vec::new();
    for _ in 0..3 {
        for attack in ["open-live", "list-nodes", "make-triggers"] {
            let mut attacker = Attacker::start(&scene, attack, THREADS, Needs::Nothing);
            attacker.begin("attack");
            let measured = neighbour.measure(Duration::from_millis(50));
            assert!(measured.failures.is_empty(), "{measured:?}");
            drop(attacker);
        }
        let status = fs::read_to_string(format!("/proc/{server}/status")).unwrap();
        threads.push(number_after(&status, "Threads:"));
    }
    assert_eq!(daemon.server(), server);
    assert_eq!(scene.list().len(), 1);
    // The server has no thread for each of them.
    assert!(threads.iter().all(|count| *count < 64), "{threads:?}");
    drop(neighbour);
    daemon.end();
}
