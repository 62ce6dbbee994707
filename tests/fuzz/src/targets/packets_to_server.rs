//! Packets to the server: from the daemon, and from the broker; and the answers that commands get.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs::server::broker::BrokerClient;
use eci_fs::server::container::{Attached, view_settings};
use eci_fs::server::fs::FileSystem;
use eci_fs_emulators::{EMULATORS, Settings};
use eci_fs_protocol::control::Answer;
use eci_fs_protocol::link::{Access, BROKER, BrokerReply, BrokerRequest, ToServer};

use crate::packet::{descriptors, received, sent, split};
use crate::recorded::{FIXTURES, Recorded};

thread_local! {
    static RECORDED: RefCell<Option<Recorded>> = const { RefCell::new(None) };
}

/// Takes the bytes for a packet.
pub fn run(bytes: &[u8]) {
    let Some((protocol, count, packet)) = split(bytes) else {
        return;
    };
    match protocol % 3 {
        0 => RECORDED.with_borrow_mut(|recorded| {
            follow(
                recorded.get_or_insert_with(|| Recorded::unpack(FIXTURES[0])),
                count,
                packet,
            );
        }),
        1 => answer_as_broker(count, packet),
        _ => drop(received::<Answer>(packet, &descriptors(count))),
    }
}

/// Does what the daemon says about containers.
fn follow(recorded: &Recorded, count: u8, packet: &[u8]) {
    let dirs: Vec<_> = recorded.hierarchies().map(|(_, dir)| dir).collect();
    let fds: Vec<_> = match count {
        // As many as the facts of a container that has this cgroup.
        0 => dirs,
        count => descriptors(count),
    };
    let Some((packet, fds)) = received::<ToServer>(packet, &fds) else {
        return;
    };
    let settings = match &packet {
        ToServer::Start { settings, .. } => view_settings(settings),
        _ => Settings::default(),
    };
    let fs = FileSystem::new(recorded.host(), None, settings, Duration::from_millis(10));
    match packet {
        ToServer::Add {
            slot,
            secrets,
            facts,
            choices,
            ..
        } => {
            let Ok(mut attached) = Attached::new(&facts, &secrets, fds) else {
                return;
            };
            attached.choose(&choices, fs.settings());
            let rows = fs.add(slot, attached);
            assert_eq!(fs.catalogue_of(slot).unwrap().len(), rows.len());
            for emulator in EMULATORS {
                let _ = fs.text(slot, emulator.facts().path);
            }
            fs.remove(slot);
        }
        ToServer::Expect { slot, generation } => fs.prepare(slot, generation),
        ToServer::Remove { slot } => fs.remove(slot),
        ToServer::Catalogue { slot } => assert!(fs.catalogue_of(slot).is_err()),
        ToServer::HostSysctls {
            tunables,
            user_namespaces,
        } => {
            fs.raise(tunables);
            fs.ask_for_user_namespaces(user_namespaces);
        }
        _ => {}
    }
}

/// Answers what the server asks the broker.
fn answer_as_broker(count: u8, packet: &[u8]) {
    let _ = received::<BrokerReply>(packet, &descriptors(count));
    let client = Arc::new(BrokerClient::new(sent(packet, &descriptors(count)), BROKER));
    let ask = |access| BrokerRequest::Network {
        slot: 1,
        path: "core/somaxconn".to_owned(),
        access,
        number: None,
    };
    // The other end is closed: no second answer comes, and nobody waits for one.
    let now = Instant::now();
    let _ = match count % 2 {
        0 => client.ask(&ask(Access::Read), now).map(drop),
        _ => client.list(&ask(Access::List), now).map(drop),
    };
    let _ = client.tell(&ask(Access::Look), now);
}
