//! System calls that no program makes on files of /proc and /sys, or makes only once. They are refused as the kernel refuses
//! them, and another container reads on.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Container, Daemon, Scene};

use crate::scene;

/// More descriptors than a container can have snapshots.
const MANY: usize = 17_000;

/// The most snapshots of one container.
const SNAPSHOTS: usize = 16_384;

/// Two containers: of the first this process uses the files.
#[track_caller]
fn two(scene: &Scene) -> (Daemon, Container, Container) {
    let daemon = scene.daemon(&[]);
    let containers = [(); 2].map(|()| {
        let container = scene.container().start();
        scene.attach(&container);
        container
    });
    let [first, second] = containers;
    (daemon, first, second)
}

fn path(container: &Container, path: &str) -> String {
    format!("/proc/{}/root{path}", container.pid())
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result
        .err()
        .map(|error| Errno::from_io_error(&error).unwrap())
}

/// Checks that the container reads all kinds of files.
#[track_caller]
fn reads(container: &mut Container) {
    for path in [
        "/proc/meminfo",
        "/proc/vmstat",
        "/proc/sys/vm/swappiness",
        "/sys/devices/system/cpu/cpu0/topology/core_id",
    ] {
        assert!(container.read(path).ends_with('\n'), "{path}");
    }
}

#[test]
fn privileged_huge_writes_and_writes_at_odd_places_are_refused() {
    let scene = scene();
    let (daemon, attacker, mut neighbour) = two(&scene);
    let server = daemon.server();
    let tunable = path(&attacker, "/proc/sys/vm/swappiness");
    let before = fs::read_to_string(&tunable).unwrap();
    let file = File::options().write(true).open(&tunable).unwrap();
    for size in [4096, 128 << 10, 1 << 20, 16 << 20] {
        for byte in [b'1', b' ', 0, b'\n', 0xff] {
            let written = errno(file.write_at(&vec![byte; size], 0));
            assert!(written.is_some(), "{size} times {byte}: {written:?}");
        }
    }
    // The kernel takes no write beyond the beginning, and says so by ignoring or refusing it.
    for offset in [1, 1 << 20, i64::MAX as u64 - 1, i64::MAX as u64] {
        let _ = file.write_at(b"7\n", offset);
    }
    assert_eq!(fs::read_to_string(&tunable).unwrap(), before);
    reads(&mut neighbour);
    assert_eq!(daemon.server(), server);
    drop((attacker, neighbour));
    daemon.end();
}

#[test]
fn privileged_names_of_any_length_and_any_bytes_are_not_there() {
    let scene = scene();
    let (daemon, attacker, mut neighbour) = two(&scene);
    let server = daemon.server();
    let odd = ["\u{1}", "\n", "%n%s", "..\\..", "\u{1b}[2J", "-", "~", "*"];
    // These file systems of the kernel have no bound of their own.
    let long = [254, 255, 256, 1023].map(|length| "x".repeat(length));
    let names = odd.iter().copied().chain(long.iter().map(String::as_str));
    for dir in [
        "/sys/devices/system/cpu",
        "/sys/devices/system/cpu/cpu0",
        "/sys/devices/system/node",
        "/proc/sys/net/core",
    ] {
        let dir = path(&attacker, dir);
        for name in names.clone() {
            let found = errno(fs::symlink_metadata(format!("{dir}/{name}")));
            assert_eq!(found, Some(Errno::NOENT), "{dir}/{name}");
        }
    }
    reads(&mut neighbour);
    assert_eq!(daemon.server(), server);
    drop((attacker, neighbour));
    daemon.end();
}

#[test]
fn privileged_calls_that_change_a_file_or_make_one_change_and_make_none() {
    let scene = scene();
    let (daemon, attacker, mut neighbour) = two(&scene);
    let server = daemon.server();
    for view in ["/proc/meminfo", "/proc/vmstat", "/proc/sys/vm/swappiness"] {
        let view = path(&attacker, view);
        let before = fs::metadata(&view).unwrap().len();
        let _ = rustix::fs::setxattr(&view, "user.x", b"1", XattrFlags::empty()).unwrap_err();
        let _ = rustix::fs::unlink(&view).unwrap_err();
        let _ = rustix::fs::rename(&view, path(&attacker, "/proc/x")).unwrap_err();
        let _ = rustix::fs::link(&view, path(&attacker, "/proc/x")).unwrap_err();
        let file = File::open(&view).unwrap();
        let _ = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 4096).unwrap_err();
        let _ = file.set_len(1 << 40).unwrap_err();
        assert_eq!(fs::metadata(&view).unwrap().len(), before, "{view}");
        // Beyond the end there is nothing.
        for offset in [1 << 20, 1 << 40, i64::MAX as u64 - 4096] {
            assert_eq!(file.read_at(&mut [0; 100], offset).unwrap(), 0, "{view}");
        }
    }
    for dir in ["/sys/devices/system/cpu", "/sys/devices/system/node"] {
        let dir = path(&attacker, dir);
        let temporary = OFlags::TMPFILE.bits() as i32;
        let mut options = File::options();
        let made = options.write(true).custom_flags(temporary).open(&dir);
        assert!(errno(made).is_some(), "{dir}");
        assert!(errno(File::create(format!("{dir}/x"))).is_some(), "{dir}");
        let node = format!("{dir}/d");
        let _ = rustix::fs::mkdir(&node, Mode::RWXU).unwrap_err();
        let _ = rustix::fs::symlink("x", &node).unwrap_err();
        let absent = rustix::fs::accessat(CWD, &node, rustix::fs::Access::EXISTS, AtFlags::empty());
        assert_eq!(absent, Err(Errno::NOENT));
    }
    reads(&mut neighbour);
    assert_eq!(daemon.server(), server);
    drop((attacker, neighbour));
    daemon.end();
}

#[test]
fn privileged_a_container_that_opens_17_000_files_takes_none_from_another() {
    let scene = scene();
    let (daemon, attacker, mut neighbour) = two(&scene);
    let server = daemon.server();
    let limit = getrlimit(Resource::Nofile);
    let own = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, own).unwrap();
    let live = path(&attacker, "/proc/vmstat");
    let (mut files, mut last) = (Vec::new(), None);
    while files.len() < MANY && last.is_none() {
        match File::open(&live) {
            Ok(file) => files.push(file),
            Err(error) => last = Errno::from_io_error(&error),
        }
    }
    assert!(files.len() <= SNAPSHOTS, "{}", files.len());
    assert_eq!(last, Some(Errno::NFILE), "after {} files", files.len());
    reads(&mut neighbour);
    // All texts are still there.
    for file in files.iter().step_by(1000) {
        assert!(file.read_at(&mut [0; 100], 0).unwrap() > 0);
    }
    drop(files);
    File::open(&live).unwrap();
    assert_eq!(daemon.server(), server);
    drop((attacker, neighbour));
    daemon.end();
}
