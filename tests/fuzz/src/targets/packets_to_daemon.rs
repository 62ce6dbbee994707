//! Packets to the daemon: from commands, from its server, from the server to the broker, and from another daemon.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use eci_fs_mountd::broker::Broker;
use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::container::{describe, open_pidfd};
use eci_fs_mountd::supervisor::Server;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{Call, CgroupChoice};
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
        2 => ask_broker(packet, &fds),
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

/// The slots of the containers that the broker has, if the process may make some. The corpus asks about the first.
const CONTAINERS: [u64; 2] = [7, 8];

/// The broker. Its threads never end, so all inputs have the same one.
static BROKER: LazyLock<Broker> = LazyLock::new(|| {
    let broker = Broker::default();
    for slot in CONTAINERS {
        // Without privilege there is none, and questions about it are refused.
        let _ = enter(&broker, slot);
    }
    broker.set_complete();
    broker
});

/// Enters a container with a network namespace of its own. It ends with the thread that is fed.
fn enter(broker: &Broker, slot: u64) -> Option<()> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount"]);
    command.args(["sleep", "infinity"]).stdin(Stdio::null());
    let child = command.stderr(Stdio::null()).spawn().ok()?;
    let pid = i32::try_from(child.id()).ok()?;
    let proc = Arc::new(Proc::open().ok()?);
    let until = std::time::Instant::now() + PATIENCE;
    let own = proc.namespace("self", "net").ok()?;
    while proc.namespace(pid, "net").ok()? == own {
        if std::time::Instant::now() > until {
            return None;
        }
        std::thread::yield_now();
    }
    let pidfd = open_pidfd(pid).ok()?;
    let described = describe(&proc, pidfd.as_fd(), None, CgroupChoice::Own, None).ok()?;
    broker.enter(slot, &proc, &described).ok()
}

/// Asks the broker. It answers what it understands, once, and opens nothing but what a server may have opened.
fn ask_broker(packet: &[u8], fds: &[OwnedFd]) {
    let question = serde_json::from_slice::<BrokerRequest>(packet).ok();
    let (daemon, server) = Channel::pair().unwrap();
    BROKER.answer(daemon).unwrap();
    server.set_timeout(Some(PATIENCE)).unwrap();
    send(&server, packet, fds);
    let number = question.as_ref().and_then(BrokerRequest::number);
    let (reply, fds) = match server.recv::<BrokerReply>() {
        Ok(Some(answer)) => answer,
        Ok(None) => return assert!(question.is_none(), "no answer"),
        Err(error) => panic!("{error}"),
    };
    let reply = match reply {
        BrokerReply::Numbered { number: its, reply } => {
            assert_eq!(Some(its), number);
            *reply
        }
        reply => reply,
    };
    match (question, reply) {
        (_, BrokerReply::Refused { errno }) => {
            assert!((1..4096).contains(&errno) && fds.is_empty(), "{errno}");
        }
        (Some(BrokerRequest::SetHostSysctl { .. }), BrokerReply::HostSysctlSet) => {}
        (Some(BrokerRequest::UserNamespace { .. }), BrokerReply::UserNamespace { .. }) => {}
        (Some(BrokerRequest::WriteNetwork { bytes, .. }), BrokerReply::Written { count }) => {
            assert!(count <= bytes.len() as u64);
        }
        (Some(BrokerRequest::Watch { files, .. }), BrokerReply::Watched { watches }) => {
            assert_eq!(watches.len(), files.len());
        }
        (Some(BrokerRequest::Network { .. }), BrokerReply::Listed { entries }) => {
            let odd = |name: &str| matches!(name, "" | "." | "..") || name.contains('/');
            assert!(!entries.iter().any(|(name, _)| odd(name)), "{entries:?}");
        }
        (Some(question), BrokerReply::Opened) => {
            assert_eq!(fds.len(), 1);
            check_opened(&question, &fds[0]);
        }
        other => panic!("{other:?}"),
    }
}

/// Checks that a question has opened a file that a server may have.
fn check_opened(question: &BrokerRequest, fd: &OwnedFd) {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    let link = link.to_str().unwrap();
    let is_copy = link.starts_with("/memfd:");
    let in_network = ["core", "ipv4/neigh", "ipv4/vs", "ipv4/ping_group_range"]
        .iter()
        .any(|path| link.contains(&format!("/sys/net/{path}")));
    let is_right = match question {
        BrokerRequest::Trigger { .. } => link.ends_with(".pressure"),
        BrokerRequest::Host { .. } => is_copy,
        BrokerRequest::Network { .. } => is_copy || in_network,
        _ => false,
    };
    assert!(is_right, "{question:?} opens {link}");
}
