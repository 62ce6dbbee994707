//! The control socket, to which somebody sends what no command sends. Each packet is answered in words or the connection
//! is closed, nothing of it is kept, and the next command is served.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};
use serde_json::json;
use support::{Daemon, PATIENCE, Scene, number_after, open_pidfd};

use crate::scene;

/// The size of the greatest packet.
const MAX_PACKET: usize = 128 * 1024;

/// Descriptors with one packet, of which the kernel takes 253 at most.
const DESCRIPTORS: usize = 253;

/// Connections that say nothing. The daemon serves 128 at once, and only root can connect.
const IDLE: usize = 100;

/// Connects to the daemon.
#[track_caller]
fn connection(scene: &Scene) -> OwnedFd {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    let address = SocketAddrUnix::new(scene.runtime_dir().join("control.sock")).unwrap();
    connect(&socket, &address).unwrap();
    socket
}

/// Sends one packet. The daemon may have closed the connection.
fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> bool {
    let mut space =
        vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let flags = SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags).is_ok()
}

/// Returns the answer to a packet, or an empty one if the daemon closes the connection.
#[track_caller]
fn answer(socket: &OwnedFd) -> String {
    let limit = Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    let ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit));
    assert_eq!(ready, Ok(1), "the daemon neither answers nor closes");
    let mut bytes = vec![0; MAX_PACKET + 1];
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut rustix::net::RecvAncillaryBuffer::default(),
        RecvFlags::CMSG_CLOEXEC,
    );
    // A connection that is closed with packets unread is reset.
    let length = received.map_or(0, |message| message.bytes);
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

/// The packets that are no request, or one that cannot be done.
fn packets() -> Vec<Vec<u8>> {
    let call = |request: serde_json::Value| json!({ "version": 1, "request": request }).to_string();
    let attach = |id: &str| call(json!({ "attach": { "id": id, "cgroup": "own" } }));
    let texts = [
        "{".to_owned(),
        "null".to_owned(),
        "[".repeat(100_000),
        "{\"a\":".repeat(20_000),
        "x".repeat(MAX_PACKET),
        "x".repeat(200_000),
        "{\"version\":1,\"version\":1,\"request\":{\"list\":{\"after\":null}}}".to_owned(),
        "{\"version\":1,\"request\":{\"list\":{\"after\":-1}}}".to_owned(),
        "{\"version\":99999999999,\"request\":{\"list\":{\"after\":null}}}".to_owned(),
        json!({ "version": 7, "request": { "list": { "after": null } } }).to_string(),
        call(json!({ "attach": { "id": null, "cgroup": "own" } })),
        attach("../x"),
        attach("\u{0}"),
        attach(&"x".repeat(100_000)),
        call(json!({ "detach": { "id": "nobody" } })),
        call(json!({ "detach": { "pid": -1 } })),
        call(json!({ "forget": { "id": "nobody" } })),
        call(json!({ "mount": { "dir": "/", "created": true } })),
        call(json!({ "unmount": { "dir": "/proc" } })),
        call(json!({ "upgrade": { "part": "server", "path": "/dev/null" } })),
        call(json!({ "upgrade": { "part": "daemon", "path": "/proc/self/mem" } })),
        call(json!({ "open": { "container": { "id": "nobody" }, "path": "/../../etc/shadow" } })),
    ];
    let mut packets: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    packets.push(vec![0]);
    packets.push(vec![0xff; 1000]);
    packets.push((0..=255).cycle().take(MAX_PACKET).collect());
    packets
}

/// Returns the numbers of descriptors and threads of the daemon, when it has nothing to do.
#[track_caller]
fn held(daemon: &Daemon) -> (usize, u64) {
    daemon.wait_for_rest();
    let process = format!("/proc/{}", daemon.pid());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let descriptors = fs::read_dir(format!("{process}/fd")).unwrap().count();
    (descriptors, number_after(&status, "Threads:"))
}

/// Waits until the daemon holds no more than before.
#[track_caller]
fn holds_no_more(daemon: &Daemon, before: (usize, u64)) {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = held(daemon);
        if now.0 <= before.0 && now.1 <= before.1 {
            return;
        }
        assert!(Instant::now() < end, "{before:?} became {now:?}");
    }
}

/// Starts a daemon, and has it serve a container and forget it, so that it holds all that it will hold.
#[track_caller]
fn daemon(scene: &Scene) -> (Daemon, (usize, u64)) {
    let daemon = scene.daemon(&[]);
    serves(scene);
    let held = held(&daemon);
    (daemon, held)
}

/// Checks that a container is attached and let go of.
#[track_caller]
fn serves(scene: &Scene) {
    let mut container = scene.container().start();
    scene.attach(&container);
    assert_eq!(scene.list().len(), 1);
    assert!(container.read("/proc/uptime").ends_with('\n'));
    scene.detach(&container);
    assert!(scene.list().is_empty());
}

#[test]
fn privileged_whatever_is_sent_to_the_control_socket_is_refused_in_words_and_leaves_nothing() {
    let scene = scene();
    let (daemon, before) = daemon(&scene);
    let server = daemon.server();
    let nothing = File::open("/dev/null").unwrap();
    let own = open_pidfd(std::process::id());
    let first = open_pidfd(1);
    for packet in packets() {
        for descriptor in [
            None,
            Some(nothing.as_fd()),
            Some(own.as_fd()),
            Some(first.as_fd()),
        ] {
            let socket = connection(&scene);
            let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
            send(&socket, &packet, &descriptors);
            let answer = answer(&socket);
            let harmless = ["\"failed\"", "\"containers\"", "\"forgotten\""];
            let words = answer.is_empty() || harmless.iter().any(|word| answer.contains(word));
            let start = String::from_utf8_lossy(&packet[..packet.len().min(100)]).into_owned();
            assert!(words, "{start:?} with {descriptor:?}: {answer}");
        }
    }
    holds_no_more(&daemon, before);
    serves(&scene);
    assert_eq!(daemon.server(), server);
    daemon.end();
}

#[test]
fn privileged_descriptors_that_come_with_a_packet_are_closed() {
    let scene = scene();
    let (daemon, before) = daemon(&scene);
    let nothing = File::open("/dev/null").unwrap();
    for round in 0..50 {
        let socket = connection(&scene);
        let descriptors = vec![nothing.as_fd(); [1, 3, 4, 64, DESCRIPTORS][round % 5]];
        send(&socket, b"{\"version\":1,\"request\":\"x\"}", &descriptors);
        answer(&socket);
    }
    holds_no_more(&daemon, before);
    daemon.end();
}

#[test]
fn privileged_connections_that_say_nothing_and_answers_that_nobody_reads_delay_no_command() {
    let scene = scene();
    let (daemon, before) = daemon(&scene);
    let idle: Vec<OwnedFd> = (0..IDLE).map(|_| connection(&scene)).collect();
    let deaf = connection(&scene);
    let list = json!({ "version": 1, "request": { "list": { "after": null } } }).to_string();
    let mut unread = 0;
    // The daemon stops to read from a connection whose answers nobody takes.
    while unread < 2000 && is_writable(&deaf) && send(&deaf, list.as_bytes(), &[]) {
        unread += 1;
    }
    assert!(unread > 0);
    serves(&scene);
    drop((idle, deaf));
    holds_no_more(&daemon, before);
    daemon.end();
}

fn is_writable(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec::default())) == Ok(1) && fds[0].revents().contains(PollFlags::OUT)
}
