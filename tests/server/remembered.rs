//! A new server continues with the texts and figures that the last one showed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use eci_fs::server::state::Record;
use eci_fs_protocol::link::Connection;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::Limits;

use crate::rig::{Rig, SLOT};

/// Open files that one container may have.
const MAX_HANDLES: usize = 16_384;

const fn cpus(cpus: f64) -> Limits {
    Limits {
        memory: None,
        swap: None,
        cpus: Some(cpus),
        cpuset: None,
    }
}

/// The rest of a file, from `at` on.
fn rest(file: &File, at: usize) -> String {
    let mut rest = vec![0; 64 << 10];
    let length = file.read_at(&mut rest, at as u64).unwrap();
    String::from_utf8(rest[..length].to_vec()).unwrap()
}

/// A first read of a file that does not take all of it.
fn beginning(file: &File, length: usize) -> String {
    let mut begin = vec![0; length];
    file.read_exact_at(&mut begin, 0).unwrap();
    String::from_utf8(begin).unwrap()
}

#[test]
fn privileged_a_reader_that_has_read_half_gets_the_rest_of_the_same_text() {
    let mut rig = Rig::new(true);
    let mut container = rig.scene.container().start();
    let mut server = rig.serve(&container);
    let path = rig.path(Connection::Live, SLOT, "/proc/stat");
    let file = File::open(path).unwrap();
    let whole = rest(&file, 0);
    for _ in 0..3 {
        // Time passes for the container's counters.
        container.ask(&["burn", "50"]);
        server.kill();
        server = rig.serve(&container);
        assert_eq!(rest(&file, 10), whole[10..]);
    }
    // A rewind is another matter, and what it showed is remembered in its turn.
    container.ask(&["burn", "50"]);
    server.kill();
    let server = rig.serve(&container);
    let_a_second_pass();
    let first = beginning(&file, 20);
    assert_ne!(first, whole[..20], "it is as old as the dead server");
    let second = rest(&file, 20);
    server.kill();
    let server = rig.serve(&container);
    assert_eq!(rest(&file, 20), second);
    server.kill();
}

/// A snapshot that is younger may not have been read yet, for all that the next server knows.
fn let_a_second_pass() {
    support::let_time_pass(std::time::Duration::from_millis(1100));
}

/// The sums of the columns of each row of CPUs, in the order of the rows.
fn cpu_rows(stat: &str) -> Vec<(String, Vec<u64>)> {
    stat.lines()
        .filter(|line| line.starts_with("cpu"))
        .map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap().to_owned();
            (name, words.map(|word| word.parse().unwrap()).collect())
        })
        .collect()
}

#[test]
fn privileged_counters_do_not_fall_when_servers_and_cpus_change() {
    for live in [false, true] {
        let mut rig = Rig::new(live);
        let mut container = rig.scene.container().limits(cpus(2.0)).start();
        let connection = if live {
            Connection::Live
        } else {
            Connection::Cached
        };
        let mut server = rig.serve(&container);
        let stat = rig.graft(connection, SLOT, "/proc/stat");
        let mut last = std::collections::BTreeMap::new();
        for round in 0..8 {
            // Each limit twice, so that the server changes with the limit and without it.
            let limit = if round % 4 < 2 { 2.0 } else { 1.0 };
            container.cgroup().limit(&cpus(limit));
            container.ask(&["burn", "30"]);
            for _ in 0..2 {
                let text = std::fs::read_to_string(stat.path()).unwrap();
                for (name, columns) in cpu_rows(&text) {
                    let before = last
                        .insert(name.clone(), columns.clone())
                        .unwrap_or_else(|| vec![0; columns.len()]);
                    let falls = columns
                        .iter()
                        .zip(&before)
                        .any(|(now, before)| now < before);
                    assert!(!falls, "{name} in round {round}: {before:?} {columns:?}");
                }
                server.kill();
                server = rig.serve(&container);
            }
        }
        server.kill();
    }
}

#[test]
fn privileged_load_averages_go_on_at_the_next_server() {
    let mut rig = Rig::new(true);
    let mut container = rig.scene.container().start();
    let pid = container.pid();
    let mut server = rig.serve(&container);
    let loadavg = rig.graft(Connection::Live, SLOT, "/proc/loadavg");
    let average = || {
        let text = std::fs::read_to_string(loadavg.path()).unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let busy = std::thread::spawn(move || {
        container.ask(&["burn", "3000"]);
        container
    });
    while !support::status_field(pid, "State:").is_some_and(|state| state.starts_with('R')) {
        std::thread::yield_now();
    }
    // The average begins as one busy thread would have made it. In the first half second that is nothing.
    support::let_time_pass(Duration::from_secs(1));
    let first = average();
    assert!((0.01..1.0).contains(&first), "{first}");
    let container = busy.join().unwrap();
    for _ in 0..2 {
        server.kill();
        server = rig.serve(&container);
        // It would be none if it were counted anew.
        let next = average();
        assert!(next >= 0.01, "{next} after {first}");
    }
    server.kill();
}

#[test]
fn privileged_a_tunable_is_what_was_written_at_the_next_server() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let server = rig.serve(&container);
    let path = rig.path(Connection::Live, SLOT, "/proc/sys/vm/swappiness");
    std::fs::write(&path, "7").unwrap();
    server.kill();
    let server = rig.serve(&container);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "7\n");
    server.kill();
}

#[test]
fn privileged_paths_below_directory_grafts_are_remembered_once() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let path = "/sys/devices/system/cpu/possible";
    let mut count = 0;
    for round in 0..2 {
        let server = rig.serve(&container);
        let file = rig.graft(Connection::Live, SLOT, path);
        std::fs::read(file.path()).unwrap();
        server.kill();
        // In whatever way it came to its knowledge, what the first one has looked up is all.
        let paths = rig.remembered(|record| matches!(record, Record::Path { .. }));
        assert!(
            paths > 0 && (round == 0 || paths == count),
            "{paths} {count}"
        );
        count = paths;
    }
}

#[test]
fn privileged_what_is_open_counts_at_the_next_server() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, all).unwrap();
    let mut rig = Rig::new(true);
    let container = rig.scene.container().start();
    let server = rig.serve(&container);
    let graft = rig.graft(Connection::Live, SLOT, "/proc/uptime");
    let path = graft.path();
    let mut open: Vec<File> = (0..MAX_HANDLES)
        .map(|_| File::open(&path).unwrap())
        .collect();
    let is_full = || {
        let error = File::open(&path).unwrap_err();
        error.raw_os_error() == Some(rustix::io::Errno::NFILE.raw_os_error())
    };
    assert!(is_full());
    server.kill();
    let server = rig.serve(&container);
    assert!(is_full());
    // The kernel may tell of a close after it is done.
    open.truncate(MAX_HANDLES - 2);
    while open.len() < MAX_HANDLES {
        open.extend(File::open(&path));
    }
    assert!(is_full());
    server.kill();
}

#[test]
fn privileged_a_server_begins_with_a_spoiled_state() {
    let mut rig = Rig::new(true);
    let container = rig.scene.container().start();
    let mut server = rig.serve(&container);
    let graft = rig.graft(Connection::Live, SLOT, "/proc/uptime");
    let path = graft.path();
    for spoil in [&[0xff; 4096][..], b"x"] {
        let mut file = File::open(&path).unwrap();
        server.kill();
        rustix::io::pwrite(&rig.state, spoil, 0).unwrap();
        server = rig.serve(&container);
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert!(text.ends_with('\n'), "{text:?}");
    }
    server.kill();
}
