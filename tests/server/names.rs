//! Slots, generations and the answers to INIT, over the life of a connection.

use std::os::fd::AsFd;

use eci_fs_protocol::facts::Facts;
use eci_fs_protocol::link::{Connection, FromServer, Secrets, ToServer};

use crate::rig::{Rig, SLOT};

/// The offset of the flags in an answer to INIT, and FUSE_ASYNC_READ.
const FLAGS: usize = 28;
const ASYNC_READ: u8 = 1;

#[test]
fn privileged_connections_and_grafts_of_the_release_before_go_on() {
    let mut rig = Rig::new(false);
    // A daemon of that release: its servers read in the background, and its containers have no generation.
    rig.tells_replies = false;
    let container = rig.scene.container().start();
    let before = rig.serve(&container);
    assert_ne!(rig.replies()[0][FLAGS] & ASYNC_READ, 0);
    let grafts = [
        (Connection::Cached, "/proc/meminfo"),
        (Connection::Live, "/proc/vmstat"),
        (Connection::Live, "/sys/devices/system/cpu/possible"),
    ]
    .map(|(connection, path)| rig.graft(connection, SLOT, path));
    before.kill();
    rig.tells_replies = true;
    // The rig compares the answers.
    let after = rig.serve(&container);
    for graft in &grafts {
        assert!(!graft.read().is_empty());
    }
    assert!(!rig.read(Connection::Live, "/proc/vmstat").is_empty());
    for graft in &grafts {
        assert!(!graft.read().is_empty());
    }
    after.kill();
}

#[test]
fn privileged_a_container_keeps_its_generation_over_servers() {
    let mut rig = Rig::new(false);
    rig.generation = 0x89ab_cdef;
    let container = rig.scene.container().start();
    let before = rig.serve(&container);
    assert_eq!(rig.replies()[0][FLAGS] & ASYNC_READ, 0);
    let graft = rig.graft(Connection::Live, SLOT, "/proc/vmstat");
    before.kill();
    let after = rig.serve(&container);
    assert!(!rig.read(Connection::Live, "/proc/vmstat").is_empty());
    assert!(!graft.read().is_empty());
    // Nobody finds the directory who does not know the generation.
    let path = rig.path(Connection::Live, SLOT, "");
    let root = path.parent().unwrap();
    assert!(path.exists());
    for name in ["1", "1-", "1-0", "1-00000000", "01-89abcdef", "1-89ABCDEF"] {
        assert!(!root.join(name).exists(), "{name}");
    }
    after.kill();
}

#[test]
fn privileged_a_slot_that_a_node_id_has_no_room_for_is_refused() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let server = rig.serve(&container);
    for slot in [0, 1 << 24, (1 << 24) + 1, u64::MAX] {
        let facts = Facts {
            hierarchies: Vec::new(),
            ..rig.facts(&container)
        };
        let add = ToServer::Add {
            slot,
            secrets: Secrets::new([0; 32]).unwrap(),
            facts: Box::new(facts),
            choices: Default::default(),
            process: None,
        };
        let pidfd = support::open_pidfd(container.pid());
        let expect = ToServer::Expect {
            slot,
            generation: 1,
        };
        let answers = [
            server.call(&add, &[pidfd.as_fd()]),
            server.call(&expect, &[]),
        ];
        for (answer, _) in answers {
            let FromServer::Failed { why, .. } = answer else {
                panic!("{slot}: {answer:?}");
            };
            assert!(why.contains("is no slot"), "{why}");
        }
    }
    server.kill();
}
