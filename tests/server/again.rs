//! A server dies after it has handled a request and before it answers: the kernel sends the request to the next
//! server.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread::spawn;

use eci_fs::server::state::Record;
use eci_fs_protocol::link::{Connection, ToServer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::rig::{Rig, SLOT};

const TRIGGER: &[u8] = b"some 150000 2000000";

/// What stands for the pressure file of a cgroup: it has an event when the other end says so.
fn pressure_file() -> (OwnedFd, OwnedFd) {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

fn fire(other: &OwnedFd) {
    rustix::net::send(other, b"!", SendFlags::OOB).unwrap();
}

fn open(path: &PathBuf) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// Wait until poll(2) says that a trigger has fired.
fn wait_for_event(file: &File) {
    let mut fds = [PollFd::new(file, PollFlags::PRI)];
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "no event in 20 s");
    assert_eq!(fds[0].revents(), PollFlags::PRI);
}

#[test]
fn privileged_an_open_that_is_asked_again_opens_the_same_file() {
    let mut rig = Rig::new(true);
    let container = rig.scene.container().start();
    rig.fault = Some("panic@open:1");
    let server = rig.serve(&container);
    let graft = rig.graft(Connection::Live, SLOT, "/proc/uptime");
    let path = graft.path();
    let opening = spawn(move || std::fs::read_to_string(path).unwrap());
    assert!(!server.wait());
    let server = rig.serve(&container);
    assert!(opening.join().unwrap().ends_with('\n'));
    // Of the file that nobody has open any more, nothing is left. That it was closed is asked before this.
    rig.poke();
    server.drain(&rig);
    server.kill();
    let snapshots = rig.remembered(|record| matches!(record, Record::Snapshot(_)));
    assert_eq!(snapshots, 0);
}

#[test]
fn privileged_a_write_that_is_asked_again_is_done_once() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    rig.fault = Some("panic@write:1");
    let server = rig.serve(&container);
    let path = rig.path(Connection::Live, SLOT, "/proc/pressure/cpu");
    let file = open(&path);
    let writing = spawn(move || {
        let mut file = file;
        let written = file.write(TRIGGER);
        (file, written)
    });
    let (pressure, _other) = pressure_file();
    assert_eq!(server.open_trigger(pressure.as_fd()), TRIGGER);
    assert!(!server.wait());
    let server = rig.serve(&container);
    let (pressure, other) = pressure_file();
    assert_eq!(server.open_trigger(pressure.as_fd()), TRIGGER);
    let (mut file, written) = writing.join().unwrap();
    assert_eq!(written.unwrap(), TRIGGER.len());
    let again = file.write(TRIGGER).unwrap_err();
    assert_eq!(
        again.raw_os_error(),
        Some(rustix::io::Errno::BUSY.raw_os_error())
    );
    fire(&other);
    wait_for_event(&file);
    server.kill();
}

#[test]
fn privileged_a_tunable_that_is_written_again_is_what_was_written() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    rig.fault = Some("panic@write:1");
    let server = rig.serve(&container);
    let path = rig.path(Connection::Live, SLOT, "/proc/sys/vm/swappiness");
    let to = path.clone();
    let writing = spawn(move || std::fs::write(to, "9").unwrap());
    assert!(!server.wait());
    let server = rig.serve(&container);
    writing.join().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "9\n");
    server.kill();
}

#[test]
fn privileged_who_polls_a_trigger_hears_of_it_from_the_next_server() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let mut server = rig.serve(&container);
    let path = rig.path(Connection::Live, SLOT, "/proc/pressure/cpu");
    let mut file = open(&path);
    let writing = spawn(move || {
        file.write_all(TRIGGER).unwrap();
        file
    });
    let (pressure, other) = pressure_file();
    server.open_trigger(pressure.as_fd());
    let file = writing.join().unwrap();
    let mut ends = vec![(pressure, other)];
    let polling = spawn(move || {
        wait_for_event(&file);
        file
    });
    // In whichever moment of the poll they die.
    for _ in 0..3 {
        server.kill();
        server = rig.serve(&container);
        let (pressure, other) = pressure_file();
        assert_eq!(server.open_trigger(pressure.as_fd()), TRIGGER);
        ends.push((pressure, other));
    }
    let (pressure, other) = ends.last().unwrap();
    fire(other);
    let file = polling.join().unwrap();
    // Unlike the kernel's file, the socket goes on saying so until that is read.
    rustix::net::recv(pressure, &mut [0], RecvFlags::OOB).unwrap();
    let mut fds = [PollFd::new(&file, PollFlags::PRI)];
    while poll(&mut fds, Some(&Timespec::default())).unwrap() > 0 {}
    // It is told again by a server that knows it from the dead one only.
    server.kill();
    let server = rig.serve(&container);
    let (pressure, other) = pressure_file();
    server.open_trigger(pressure.as_fd());
    fire(&other);
    wait_for_event(&file);
    server.kill();
}

#[test]
fn privileged_a_read_is_answered_by_the_next_server_when_the_first_one_hangs() {
    let mut rig = Rig::new(true);
    let container = rig.scene.container().start();
    let server = rig.serve(&container);
    let graft = rig.graft(Connection::Live, SLOT, "/proc/stat");
    server.kill();
    rig.fault = Some("hang@request:1");
    let server = rig.serve(&container);
    let path = graft.path();
    let reading = spawn(move || std::fs::read_to_string(path).unwrap());
    // It says that it is there, and answers nobody.
    server.tell(&ToServer::Ping);
    server.kill();
    let server = rig.serve(&container);
    assert!(reading.join().unwrap().ends_with('\n'));
    server.kill();
}

#[test]
fn privileged_a_read_is_answered_by_the_next_server_wherever_the_first_one_panics() {
    for (number, fault) in ["panic@request:1", "panic@request:3", "panic@render:1"]
        .into_iter()
        .enumerate()
    {
        let mut rig = Rig::new(number % 2 == 1);
        let container = rig.scene.container().start();
        let server = rig.serve(&container);
        let connection = Connection::ALL[number % 2];
        let path = rig.graft(connection, SLOT, "/proc/stat");
        server.kill();
        rig.fault = Some(fault);
        let server = rig.serve(&container);
        let reading = {
            let path = path.path();
            spawn(move || std::fs::read_to_string(path).unwrap())
        };
        assert!(!server.wait(), "{fault}");
        let server = rig.serve(&container);
        let text = reading.join().unwrap();
        assert!(text.starts_with("cpu ") && text.ends_with('\n'), "{text}");
        server.kill();
    }
}
