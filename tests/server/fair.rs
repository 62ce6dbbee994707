//! No container makes another one wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eci_fs_protocol::link::{BrokerReply, BrokerRequest, Connection, FromServer, ToServer, Usage};
use support::let_time_pass;

use crate::rig::{Rig, SLOT, Server};

/// Threads of the container that does what it can.
const THREADS: usize = 32;

/// Threads of a container whose requests sleep.
const SLEEPERS: usize = 4;

/// The CPU time that a container has before its share counts.
const BURST_USEC: u64 = eci_fs::server::account::BURST.as_micros() as u64;

/// What the server has done for the container in `slot`.
fn usage(server: &Server, slot: u64) -> Usage {
    let asked = ToServer::Usage { slots: vec![slot] };
    match server.call(&asked, &[]).0 {
        FromServer::Usage { containers } => {
            assert_eq!(containers.len(), 1);
            assert_eq!(containers[0].0, slot);
            containers[0].1
        }
        other => panic!("{other:?}"),
    }
}

/// Wait until the first container has used up its burst of CPU time, and its requests wait for its share.
fn use_up(server: &Server) {
    let waits = |usage: Usage| usage.cpu_usec >= BURST_USEC && usage.waiting > 0;
    while !waits(usage(server, SLOT)) {
        std::thread::yield_now();
    }
}

#[test]
fn privileged_a_container_that_has_used_up_its_share_waits_while_one_is_served_and_one_comes() {
    let mut rig = Rig::new(false);
    // Enough for the other one, whose requests a build for tests answers slowly.
    rig.settings.cpu_share = 10;
    let [greedy, other, third] = [(); 3].map(|()| rig.scene.container().start());
    let server = rig.start(true);
    rig.add(&server, SLOT, &greedy);
    rig.add(&server, SLOT + 1, &other);
    server.serve(false);
    let directory = rig.path(Connection::Live, SLOT, "/sys/devices/system/cpu");
    let view = rig.graft(Connection::Live, SLOT, "/proc/vmstat");
    let all = std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (directory, view) = (&directory, view.path());
            scope.spawn(move || {
                // It fails when the container is removed, and not before.
                let list = || std::fs::read_dir(directory).map(|entries| entries.count());
                let read = || std::fs::read(&view).map(|text| text.len());
                while match number % 2 {
                    0 => list(),
                    _ => read(),
                }
                .is_ok_and(|length| length > 0)
                {}
            });
        }
        use_up(&server);
        for _ in 0..50 {
            let views = [
                (Connection::Cached, "/proc/meminfo"),
                (Connection::Live, "/proc/vmstat"),
                (Connection::Live, "/sys/devices/system/cpu/cpu0/uevent"),
            ];
            for (connection, view) in views {
                let text = std::fs::read_to_string(rig.path(connection, SLOT + 1, view));
                assert!(text.is_ok(), "{view}: {text:?}");
            }
            rig.poke();
        }
        let slot = SLOT + 2;
        let rows = rig.add(&server, slot, &third);
        for row in &rows {
            assert!(
                rig.path(row.connection, slot, &row.path).exists(),
                "{row:?}"
            );
        }
        let all = [SLOT, SLOT + 1, slot].map(|slot| usage(&server, slot));
        // What still waits is answered at once when the container is gone.
        server.tell(&ToServer::Remove { slot: SLOT });
        all
    });
    server.kill();
    assert!(all.iter().all(|usage| usage.refused == 0), "{all:?}");
    assert!(all[1..].iter().all(|usage| usage.waiting == 0), "{all:?}");
    assert!(
        all[0].cpu_usec > all[1].cpu_usec + all[2].cpu_usec,
        "{all:?}"
    );
}

#[test]
fn privileged_a_server_that_leaves_answers_what_waits_for_a_share() {
    let mut rig = Rig::new(false);
    rig.settings.cpu_share = 1;
    let container = rig.scene.container().start();
    let server = rig.start(true);
    rig.add(&server, SLOT, &container);
    server.serve(false);
    let directory = rig.path(Connection::Live, SLOT, "/sys/devices/system/cpu");
    let over = AtomicUsize::new(0);
    let next = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (directory, over) = (&directory, &over);
            scope.spawn(move || {
                while over.load(Ordering::Relaxed) == 0 {
                    assert!(std::fs::read_dir(directory).unwrap().count() > 0);
                }
            });
        }
        use_up(&server);
        server.tell(&ToServer::Drain);
        over.store(1, Ordering::Relaxed);
        while server.busy() > 0 {
            rig.call_away();
        }
        // What comes meanwhile is answered by the next one.
        let next = rig.start(true);
        rig.add(&next, SLOT, &container);
        next.serve(false);
        next
    });
    server.kill();
    next.kill();
}

#[test]
fn privileged_two_containers_whose_requests_sleep_do_not_keep_a_third_waiting() {
    let mut rig = Rig::new(false);
    let containers = [(); 3].map(|()| rig.scene.container().options(&["--network"]).start());
    let server = rig.start(true);
    for (slot, container) in (SLOT..).zip(&containers) {
        rig.add(&server, slot, container);
    }
    server.serve(false);
    let ended = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for slot in [SLOT, SLOT + 1] {
            for number in 0..SLEEPERS {
                let name = format!("/proc/sys/net/core/unknown-{number}");
                let path = rig.path(Connection::Live, slot, &name);
                let ended = &ended;
                scope.spawn(move || {
                    // The daemon is asked, and does not answer.
                    assert!(std::fs::symlink_metadata(path).is_err());
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            }
        }
        let (asked, _) = server.asks.recv::<BrokerRequest>().unwrap().unwrap();
        assert!(matches!(asked, BrokerRequest::Network { .. }), "{asked:?}");
        let_time_pass(Duration::from_millis(200));
        let view = "/sys/devices/system/cpu/cpu0/uevent";
        let text = std::fs::read_to_string(rig.path(Connection::Live, SLOT + 2, view));
        assert!(text.is_ok(), "{text:?}");
        assert_eq!(ended.load(Ordering::Relaxed), 0);
        for _ in 1..2 * SLEEPERS {
            server.asks.send(&refused(), &[]).unwrap();
            server.asks.recv::<BrokerRequest>().unwrap().unwrap();
        }
        server.asks.send(&refused(), &[]).unwrap();
    });
    server.kill();
}

fn refused() -> BrokerReply {
    BrokerReply::Refused { errno: 2 }
}
