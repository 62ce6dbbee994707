//! Tunables that may be raised on the host: the requests of the server to its daemon. The test is the daemon, and
//! raises nothing.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::host_sysctl::HostSysctl;
use eci_fs_protocol::link::{self, BrokerReply, BrokerRequest, Connection, FromServer, ToServer};

use crate::rig::{Rig, SLOT, Server, call};

const FILE_MAX: &str = "/proc/sys/fs/file-max";

fn wants(server: &Server, tunables: &[HostSysctl]) {
    server.tell(&ToServer::HostSysctls {
        tunables: tunables.to_vec(),
        user_namespaces: false,
    });
}

fn write(rig: &Rig, view: &str, value: u64) -> JoinHandle<()> {
    let path: PathBuf = rig.path(Connection::Live, SLOT, view);
    spawn(move || std::fs::write(path, value.to_string()).unwrap())
}

/// What the server tells.
fn told(asks: &Channel) -> (u64, HostSysctl, u64) {
    match asks.recv::<BrokerRequest>().unwrap().unwrap().0 {
        BrokerRequest::SetHostSysctl {
            slot,
            tunable,
            value,
            ..
        } => (slot, tunable, value),
        other => panic!("{other:?}"),
    }
}

fn raised(asks: &Channel) {
    asks.send(&BrokerReply::HostSysctlSet, &[]).unwrap();
}

#[test]
fn privileged_a_write_is_answered_when_the_daemon_knows_of_it() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let server = rig.serve(&container);
    // Nobody has said that it is to be raised.
    write(&rig, FILE_MAX, 5_000_000).join().unwrap();
    wants(&server, &[HostSysctl::FileMax]);
    assert_eq!(told(&server.asks), (SLOT, HostSysctl::FileMax, 5_000_000));
    raised(&server.asks);
    let writing = write(&rig, FILE_MAX, 6_000_000);
    assert_eq!(told(&server.asks), (SLOT, HostSysctl::FileMax, 6_000_000));
    // The value is there, and the writer waits: a drained server would say that it is busy.
    assert_eq!(rig.read(Connection::Live, FILE_MAX), "6000000\n");
    server.tell(&ToServer::Drain);
    assert_ne!(server.busy(), 0);
    server.serve(false);
    assert_eq!(told_after(&server), (SLOT, HostSysctl::FileMax, 6_000_000));
    writing.join().unwrap();
    // Others are nobody's to hear of, nor what the daemon refuses a reason to refuse.
    write(&rig, "/proc/sys/fs/nr_open", 2_000_000)
        .join()
        .unwrap();
    let writing = write(&rig, FILE_MAX, 7_000_000);
    told(&server.asks);
    let errno = libc::EIO;
    let refused = BrokerReply::Refused { errno };
    server.asks.send(&refused, &[]).unwrap();
    writing.join().unwrap();
    assert_eq!(rig.read(Connection::Live, FILE_MAX), "7000000\n");
    server.kill();
}

/// Answer what was asked, and what is told again after a server has begun again.
fn told_after(server: &Server) -> (u64, HostSysctl, u64) {
    raised(&server.asks);
    let told = told(&server.asks);
    raised(&server.asks);
    told
}

#[test]
fn privileged_without_a_daemon_a_write_is_answered_and_the_next_one_is_told() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let mut server = rig.serve(&container);
    wants(&server, &[HostSysctl::FileMax]);
    let (nothing, _) = Channel::pair().unwrap();
    server.link = nothing;
    let (nothing, _) = Channel::pair().unwrap();
    server.asks = nothing;
    for value in [5_000_000, 6_000_000] {
        write(&rig, FILE_MAX, value).join().unwrap();
    }
    let (asks, theirs) = Channel::pair().unwrap();
    asks.set_timeout(Some(support::PATIENCE)).unwrap();
    let version = link::VERSION;
    server.link = rig.connect();
    let adopt = ToServer::Adopt {
        version,
        generations: true,
        broker: 0,
    };
    let (held, _) = call(&server.link, &adopt, &[theirs.as_fd()]);
    assert!(matches!(held, FromServer::Held { .. }), "{held:?}");
    // A daemon that does not say that it raises is asked nothing.
    write(&rig, FILE_MAX, 7_000_000).join().unwrap();
    server.asks = asks;
    wants(&server, &[HostSysctl::FileMax]);
    assert_eq!(told(&server.asks), (SLOT, HostSysctl::FileMax, 7_000_000));
    server.kill();
}

#[test]
fn privileged_the_next_server_tells_what_was_written_before() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let server = rig.serve(&container);
    wants(&server, &[HostSysctl::FileMax]);
    let writing = write(&rig, FILE_MAX, 5_000_000);
    told(&server.asks);
    // It dies before it has answered.
    server.kill();
    let server = rig.start(true);
    rig.add(&server, SLOT, &container);
    wants(&server, &[HostSysctl::FileMax]);
    let telling = answering(&server.asks);
    server.serve(true);
    writing.join().unwrap();
    server.kill();
    // As what was written before, and as the write that the kernel sends again: at once if that comes soon enough.
    let told = telling.join().unwrap();
    assert!(matches!(told.len(), 1 | 2), "{told:?}");
    assert!(
        told.iter()
            .all(|one| *one == (SLOT, HostSysctl::FileMax, 5_000_000))
    );
}

/// Answer what the server tells until it has ended; all that it told.
fn answering(asks: &Channel) -> JoinHandle<Vec<(u64, HostSysctl, u64)>> {
    let asks = Channel::new(asks.as_fd().try_clone_to_owned().unwrap());
    spawn(move || {
        let mut all = Vec::new();
        while let Ok(Some((ask, _))) = asks.recv::<BrokerRequest>() {
            let BrokerRequest::SetHostSysctl {
                slot,
                tunable,
                value,
                ..
            } = ask
            else {
                panic!("{ask:?}");
            };
            all.push((slot, tunable, value));
            raised(&asks);
        }
        all
    })
}

#[test]
fn privileged_a_daemon_that_hangs_holds_a_write_up_once() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let server = rig.serve(&container);
    wants(&server, &[HostSysctl::FileMax]);
    write(&rig, FILE_MAX, 5_000_000).join().unwrap();
    let begun = Instant::now();
    for value in 1..=20 {
        write(&rig, FILE_MAX, 6_000_000 + value).join().unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    // When it hears again, it hears the last in the end.
    while told(&server.asks).2 != 6_000_020 {
        raised(&server.asks);
    }
    server.kill();
}
