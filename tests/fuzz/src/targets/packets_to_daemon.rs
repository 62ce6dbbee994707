//! Packets to the daemon: from commands, from its server, from the server to the broker, and from another daemon.

use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use eci_fs_mountd::broker::Broker;
use eci_fs_mountd::supervisor::Server;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::Call;
use eci_fs_protocol::handover::{Handover, Taken};
use eci_fs_protocol::link::{BrokerReply, BrokerRequest, FromServer};

use crate::packet::{descriptors, received, send, sent, split};

/// The time in which the broker answers.
const PATIENCE: Duration = Duration::from_secs(15);

/// A process that ends at once and that nobody reaps: the daemon ends a server that it distrusts.
static SERVER: LazyLock<Child> =
    LazyLock::new(|| Command::new("true").stdin(Stdio::null()).spawn().unwrap());

/// Takes the bytes for a packet.
pub fn run(bytes: &[u8]) {
    let Some((protocol, count, packet)) = split(bytes) else {
        return;
    };
    let fds = descriptors(count);
    match protocol % 5 {
        0 => drop(received::<Call>(packet, &fds)),
        1 => {
            let _ = received::<FromServer>(packet, &fds);
            answer_as_server(count, packet);
        }
        2 => ask_broker(packet),
        3 => drop(received::<Handover>(packet, &fds)),
        _ => drop(received::<Taken>(packet, &fds)),
    }
}

/// Answers what the daemon tells its server.
fn answer_as_server(call: u8, packet: &[u8]) {
    let link = sent(packet, &descriptors(call));
    let mut server = Server::over(link, i32::try_from(SERVER.id()).unwrap(), None).unwrap();
    // Nobody reads what the daemon says: the other end is closed, after one answer.
    match call % 4 {
        0 => drop(server.catalogue(7)),
        1 => drop(server.busy()),
        2 => drop(server.ping()),
        _ => drop(server.expect(7, 8)),
    }
    server.release();
}

/// Asks the broker, which has no container. It answers what it understands, once.
fn ask_broker(packet: &[u8]) {
    let understood = serde_json::from_slice::<BrokerRequest>(packet).is_ok();
    let (daemon, server) = Channel::pair().unwrap();
    let broker = Broker::default();
    broker.set_complete();
    broker.answer(daemon).unwrap();
    server.set_timeout(Some(PATIENCE)).unwrap();
    send(&server, packet, &[]);
    match server.recv::<BrokerReply>() {
        Ok(Some((BrokerReply::Refused { .. } | BrokerReply::HostSysctlSet, fds))) => {
            assert!(fds.is_empty());
        }
        Ok(None) => assert!(!understood, "no answer"),
        other => panic!("{other:?}"),
    }
}
