//! A server leaves the connections to another one, under load, and no request is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use eci_fs_protocol::link::{Connection, FromServer, ToServer};
use support::number_after;

use crate::rig::{Rig, SLOT};

/// Readers at a time.
const READERS: usize = 4;

/// Times that servers change.
const CHANGES: usize = 20;

#[test]
fn privileged_servers_change_under_load_and_no_read_fails() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let mut server = rig.start(true);
    rig.add(&server, SLOT, &container);
    server.serve(false);
    let (over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let views = [
        (Connection::Cached, "/proc/meminfo"),
        (Connection::Live, "/sys/devices/system/cpu/possible"),
    ];
    let grafts = views.map(|(connection, view)| rig.graft(connection, SLOT, view));
    std::thread::scope(|scope| {
        for number in 0..READERS {
            let (over, reads, path) = (&over, &reads, grafts[number % grafts.len()].path());
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let text = std::fs::read_to_string(&path).unwrap();
                    assert!(text.ends_with('\n'), "{text}");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..CHANGES {
            let next = rig.start(true);
            rig.add(&next, SLOT, &container);
            server.tell(&ToServer::Drain);
            // The readers make the requests after which its threads leave.
            while server.busy() > 0 {
                std::thread::yield_now();
            }
            next.serve(false);
            std::mem::replace(&mut server, next).kill();
        }
        over.store(true, Ordering::Relaxed);
    });
    let reads = reads.into_inner();
    assert!(reads > CHANGES as u64, "{reads}");
    server.kill();
}

#[test]
fn privileged_a_server_that_has_left_can_go_on() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let server = rig.start(true);
    rig.add(&server, SLOT, &container);
    server.serve(false);
    for _ in 0..3 {
        server.drain(&rig);
        server.serve(false);
        let meminfo = rig.read(Connection::Cached, "/proc/meminfo");
        assert!(number_after(&meminfo, "MemTotal:") > 0, "{meminfo}");
        rig.poke();
    }
    server.kill();
}

#[test]
fn privileged_two_servers_do_not_serve_at_a_time() {
    let mut rig = Rig::new(false);
    let server = rig.start(true);
    server.serve(false);
    let other = rig.start(true);
    let (answer, _) = other.call(&ToServer::Serve { resend: false }, &[]);
    assert!(
        matches!(&answer, FromServer::Failed { why, .. } if why.contains("another server")),
        "{answer:?}"
    );
    server.kill();
    other.serve(true);
    rig.poke();
    other.kill();
}
