//! Cached views whose size changes: what a reader sees at the moment of a change, and when servers die meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use eci_fs_protocol::link::Connection;
use support::{Limits, let_time_pass, uptime};

use crate::rig::{Rig, Server};

/// The ages in seconds of containers whose uptime gets a digit more within the next five seconds.
const AGES: [u64; 5] = [7, 97, 997, 9997, 99_997];

/// What a reader gets.
struct Seen {
    text: String,
    /// True if the text is as the kernel would write it.
    is_exact: bool,
    /// True if nothing comes after it, and stat(2) says its size.
    is_all: bool,
}

fn read_once(path: &Path) -> Seen {
    let mut file = File::open(path).unwrap();
    let mut bytes = vec![0; 128];
    let count = file.read(&mut bytes).unwrap();
    let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
    let is_time = |word: &str| {
        let digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        word.split_once('.').is_some_and(|(seconds, hundredths)| {
            let is_plain = seconds == "0" || !seconds.starts_with('0');
            is_plain && digits(seconds) && digits(hundredths) && hundredths.len() == 2
        })
    };
    let words = text
        .strip_suffix('\n')
        .and_then(|line| line.split_once(' '));
    let is_exact = words.is_some_and(|(first, second)| is_time(first) && is_time(second));
    let is_end = file.read(&mut bytes).unwrap() == 0;
    let size = file.metadata().unwrap().size();
    Seen {
        is_exact,
        is_all: is_end && size == text.len() as u64,
        text,
    }
}

#[test]
fn privileged_a_reader_a_second_sees_each_change_of_size_of_an_uptime_exactly() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let server = rig.start(true);
    // No container is older than the host.
    let host = uptime(&std::fs::read_to_string("/proc/uptime").unwrap());
    let ages: Vec<u64> = AGES
        .into_iter()
        .filter(|age| (*age as f64) < host)
        .collect();
    let slots: Vec<u64> = (1..=ages.len() as u64).collect();
    for (slot, age) in slots.iter().zip(&ages) {
        rig.add_of_age(&server, *slot, &container, Duration::from_secs(*age));
    }
    server.serve(false);
    let grafts: Vec<_> = slots
        .iter()
        .map(|slot| rig.graft(Connection::Cached, *slot, "/proc/uptime"))
        .collect();
    let mut lengths: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for _ in 0..6 {
        for (slot, graft) in slots.iter().zip(&grafts) {
            let seen = read_once(&graft.path());
            assert!(seen.is_exact && seen.is_all, "{:?}", seen.text);
            lengths.entry(*slot).or_default().push(seen.text.len());
        }
        let_time_pass(Duration::from_secs(1));
    }
    let changed = |lengths: &&Vec<usize>| lengths.first() < lengths.last();
    let changes = lengths.values().filter(changed).count();
    assert_eq!(changes, ages.len(), "{lengths:?}");
    server.kill();
}

/// A reader that never rests sees the change in two steps, and the text of the present after it.
#[test]
fn privileged_a_reader_without_rest_sees_an_empty_line_at_most_and_only_for_the_time_of_a_change() {
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    let server = rig.start(true);
    rig.add_of_age(&server, 1, &container, Duration::from_millis(98_500));
    server.serve(false);
    let graft = rig.graft(Connection::Cached, 1, "/proc/uptime");
    let (mut inexact, mut last) = (None, 0.0);
    let began = Instant::now();
    while last < 100.2 && began.elapsed() < Duration::from_secs(20) {
        let Seen { text, is_exact, .. } = read_once(&graft.path());
        let now = uptime(&text);
        assert!(now >= last, "{now} after {last}");
        last = now;
        if !is_exact {
            assert_eq!(
                text.trim_end_matches('\n').len() + 2,
                text.len(),
                "{text:?}"
            );
            let first = *inexact.get_or_insert_with(Instant::now);
            // The freshness, a timeout of the kernel, and a busy host.
            assert!(first.elapsed() < Duration::from_millis(500), "{text:?}");
        }
    }
    // On a busy host the reader may have rested by itself, and have seen nothing.
    assert!(last >= 100.2, "{last}");
    server.kill();
}

/// A server dies, and both numbers get a digit more before the next one serves.
#[test]
fn privileged_a_pass_that_began_at_a_dead_server_does_not_end_with_a_piece_of_a_text_of_the_next() {
    let mut rig = Rig::new(false);
    let limits = Limits {
        cpus: Some(1.0),
        ..Limits::default()
    };
    let container = rig.scene.container().limits(limits).start();
    let began = Instant::now();
    let add = |rig: &Rig, server: &Server| {
        let age = Duration::from_millis(9000) + began.elapsed();
        rig.add_of_age(server, 1, &container, age);
    };
    let server = rig.start(true);
    add(&rig, &server);
    server.serve(false);
    let graft = rig.graft(Connection::Cached, 1, "/proc/uptime");
    // After the first close the kernel asks for none any more, so nothing waits for a server that is dead.
    read_once(&graft.path());
    let mut file = File::open(graft.path()).unwrap();
    let mut bytes = [0; 128];
    let count = file.read(&mut bytes).unwrap();
    let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
    assert_eq!(
        text.len(),
        "9.00 9.00\n".len(),
        "the host is too busy: {text:?}"
    );
    server.kill();
    let_time_pass(Duration::from_secs(3));
    let server = rig.start(true);
    add(&rig, &server);
    server.serve(true);
    let count = file.read(&mut bytes).unwrap();
    let rest = &bytes[..count];
    assert!(
        rest.iter().all(|byte| *byte == b'\n'),
        "{text:?} and {rest:?}"
    );
    // Who opens it a few times sees the present: two steps may have to be taken.
    let mut present = String::new();
    for _ in 0..4 {
        let_time_pass(Duration::from_millis(50));
        present = read_once(&graft.path()).text;
    }
    assert!(
        uptime(&present) >= 12.0 && present.len() == text.len() + 2,
        "{present:?}"
    );
    server.kill();
}

/// The next server goes on with the step that the one before had come to.
#[cfg(debug_assertions)]
#[test]
fn privileged_no_read_is_cut_when_servers_die_while_a_size_changes() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use crate::rig::SLOT;

    const RESIZED: &str = "resize@/proc/uptime:25";
    let mut rig = Rig::new(false);
    let container = rig.scene.container().start();
    rig.fault = Some(RESIZED);
    let mut server = Some(rig.serve(&container));
    let graft = rig.graft(Connection::Cached, SLOT, "/proc/uptime");
    let over = AtomicBool::new(false);
    let [reads, empty, zeros] = [const { AtomicU64::new(0) }; 3];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let path = graft.path();
            let (over, reads, empty, zeros) = (&over, &reads, &empty, &zeros);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut bytes = vec![0; 128];
                    let count = File::open(&path).unwrap().read(&mut bytes).unwrap();
                    let read = String::from_utf8_lossy(&bytes[..count]).into_owned();
                    // In one moment there are zero bytes behind the whole text (docs/architecture.md, "How the size of a
                    // cached view changes").
                    let text = read.trim_end_matches('\0');
                    zeros.fetch_add(u64::from(text.len() < read.len()), Ordering::Relaxed);
                    let line = text.trim_end_matches('\n');
                    let is_whole = line.len() < text.len()
                        && line.split_once(' ').is_some_and(|(first, second)| {
                            let is_time = |word: &str| {
                                word.split_once('.').is_some_and(|(seconds, hundredths)| {
                                    seconds.parse::<u64>().is_ok() && hundredths.len() == 2
                                })
                            };
                            is_time(first) && is_time(second)
                        });
                    if !is_whole {
                        over.store(true, Ordering::Relaxed);
                        panic!("{read:?}");
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                    if line.len() + 1 < text.len() {
                        empty.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for round in 0..40 {
            if over.load(Ordering::Relaxed) {
                break;
            }
            // At other moments of the change each time.
            let_time_pass(Duration::from_millis(40 + round));
            server.take().unwrap().kill();
            rig.fault = Some(RESIZED);
            server = Some(rig.serve(&container));
        }
        over.store(true, Ordering::Relaxed);
    });
    server.unwrap().kill();
    let [reads, empty, zeros] = [reads, empty, zeros].map(AtomicU64::into_inner);
    assert!(
        reads > 1000 && empty > 0 && zeros * 1000 <= reads,
        "{reads} reads, {empty} with an empty line, {zeros} with a zero byte"
    );
}
