//! A server whose daemon is gone.

use std::os::fd::AsFd;

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::link::{self, Connection, FromServer, ToServer};
use support::number_after;

use crate::rig::{Rig, SLOT, call};

#[test]
fn privileged_a_server_serves_on_without_a_daemon_and_is_taken_over_by_the_next() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let mut server = rig.start(true);
    let catalogue = rig.add(&server, SLOT, &container);
    server.serve(false);
    for _ in 0..3 {
        let (nothing, _) = Channel::pair().unwrap();
        server.link = nothing;
        let meminfo = rig.read(Connection::Cached, "/proc/meminfo");
        assert!(number_after(&meminfo, "MemTotal:") > 0, "{meminfo}");
        // One that is no daemon is turned away, and the next is let in.
        let stranger = rig.connect();
        stranger.send(&ToServer::Ping, &[]).unwrap();
        assert!(stranger.recv::<FromServer>().unwrap().is_none());
        let link = rig.connect();
        let (_, asks) = Channel::pair().unwrap();
        let adopt = ToServer::Adopt {
            version: link::VERSION,
            generations: true,
            broker: 0,
        };
        let (held, fds) = call(&link, &adopt, &[asks.as_fd()]);
        let FromServer::Held {
            init,
            replies,
            slots,
            ..
        } = held
        else {
            panic!("{held:?}");
        };
        assert_eq!((init.len(), replies.len(), slots), (2, 2, vec![SLOT]));
        assert_eq!(fds.len(), 5);
        server.link = link;
        server.tell(&ToServer::Ping);
        let (answer, _) = server.call(&ToServer::Catalogue { slot: SLOT }, &[]);
        assert!(
            matches!(&answer, FromServer::Added { catalogue: again } if *again == catalogue),
            "{answer:?}"
        );
    }
    server.kill();
}

#[test]
fn privileged_a_server_of_another_version_says_so_and_goes_on_waiting() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let mut server = rig.start(true);
    rig.add(&server, SLOT, &container);
    server.serve(false);
    let (nothing, asks) = Channel::pair().unwrap();
    server.link = nothing;
    for version in [link::VERSION + 1, link::VERSION] {
        let link = rig.connect();
        let adopt = ToServer::Adopt {
            version,
            generations: true,
            broker: 0,
        };
        let (answer, _) = call(&link, &adopt, &[asks.as_fd()]);
        match answer {
            FromServer::Failed { why, .. } => assert!(why.contains("version"), "{why}"),
            FromServer::Held { .. } => assert_eq!(version, link::VERSION),
            other => panic!("{other:?}"),
        }
        if version == link::VERSION {
            server.link = link;
        }
    }
    server.tell(&ToServer::Ping);
    server.kill();
}

#[test]
fn privileged_a_server_without_a_daemon_ends_with_its_last_container() {
    let mut rig = Rig::new(false);
    let (mut first, mut second) = (rig.scene.container().start(), rig.scene.container().start());
    let mut server = rig.start(true);
    rig.add(&server, SLOT, &first);
    rig.add(&server, SLOT + 1, &second);
    server.serve(false);
    let (nothing, _) = Channel::pair().unwrap();
    server.link = nothing;
    first.kill();
    let stat = rig.path(Connection::Cached, SLOT + 1, "/proc/stat");
    std::fs::read(stat).unwrap();
    second.kill();
    assert!(server.wait());
}

#[test]
fn privileged_a_server_that_keeps_nothing_ends_with_its_daemon() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let mut server = rig.start(false);
    rig.add(&server, SLOT, &container);
    server.serve(false);
    let (nothing, _) = Channel::pair().unwrap();
    server.link = nothing;
    assert!(server.wait());
}

#[test]
fn privileged_of_two_servers_the_one_that_has_left_ends_and_the_other_serves_on() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let mut server = rig.start(true);
    rig.add(&server, SLOT, &container);
    server.serve(false);
    // The daemon dies before the other one has begun: the first goes on.
    let mut next = rig.start(true);
    rig.add(&next, SLOT, &container);
    server.drain(&rig);
    let (nothing, _) = Channel::pair().unwrap();
    server.link = nothing;
    let (nothing, _) = Channel::pair().unwrap();
    next.link = nothing;
    assert!(next.wait());
    rig.poke();
    let link = rig.connect();
    let (_, asks) = Channel::pair().unwrap();
    let adopt = ToServer::Adopt {
        version: link::VERSION,
        generations: true,
        broker: 0,
    };
    let (held, _) = call(&link, &adopt, &[asks.as_fd()]);
    assert!(matches!(held, FromServer::Held { .. }), "{held:?}");
    server.link = link;
    // It dies after that: the other goes on.
    let next = rig.start(true);
    rig.add(&next, SLOT, &container);
    server.drain(&rig);
    next.serve(false);
    let (nothing, _) = Channel::pair().unwrap();
    server.link = nothing;
    assert!(server.wait());
    rig.poke();
    next.kill();
}

/// The servers that such a daemon starts give no generations, and the kernel would take every node for another file.
#[test]
fn privileged_a_server_that_has_given_generations_refuses_a_daemon_that_knows_none() {
    let mut rig = Rig::new(false);
    rig.generation = 9;
    let container = rig.scene.container().start();
    let mut server = rig.serve(&container);
    let (nothing, asks) = Channel::pair().unwrap();
    server.link = nothing;
    for generations in [false, true] {
        let link = rig.connect();
        let adopt = ToServer::Adopt {
            version: link::VERSION,
            generations,
            broker: 0,
        };
        match call(&link, &adopt, &[asks.as_fd()]).0 {
            FromServer::Failed { why, .. } if !generations => {
                assert!(why.contains("generations"), "{why}");
            }
            FromServer::Held { .. } if generations => {}
            other => panic!("{generations}: {other:?}"),
        }
    }
    server.kill();
}
