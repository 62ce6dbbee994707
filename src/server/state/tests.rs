//! States as servers leave them to each other, whole and spoiled.

use std::os::fd::OwnedFd;

use eci_fs_emulators::Load;
use eci_fs_protocol::link::Resource;
use proptest::prelude::*;

use super::*;
use crate::server::ids::NodeId;

/// As the daemon makes it.
const SIZE: u64 = 64 << 20;

/// A container.
const SLOT: u64 = 7;

fn file() -> OwnedFd {
    let file = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&file, SIZE).unwrap();
    file
}

/// The next server. Its descriptor is another one of the same file, as it would be in another process; the locks
/// of one process do not shut each other out.
fn next(file: &OwnedFd) -> State {
    State::open(file.try_clone().unwrap()).unwrap()
}

/// What a server that begins finds.
#[track_caller]
fn begin(state: &State, is_served: impl Fn(u64) -> bool) -> Vec<Remembered> {
    match state.begin(is_served).unwrap() {
        Begin::Read(mut remembered) => {
            remembered.sort_by_key(|one| format!("{:?}", one.record.key()));
            remembered
        }
        other => panic!("{other:?}"),
    }
}

fn all(file: &OwnedFd) -> Vec<Remembered> {
    begin(&next(file), |_| true)
}

fn snapshot(slot: u64, handle: u64) -> Record {
    Record::Snapshot(Snapshot {
        handle,
        node: NodeId::view(slot, 16).raw(),
        request: handle * 2,
        taken_nsec: 5,
    })
}

fn trigger(slot: u64, handle: u64, poll: Option<u64>) -> Record {
    Record::Trigger(Trigger {
        slot,
        handle,
        resource: Resource::Cpu,
        trigger: b"some 1 2".to_vec(),
        poll,
        fired: false,
    })
}

fn load(slot: u64, value: u64) -> Record {
    Record::Load {
        slot,
        load: Load {
            avenrun: [value; 3],
            ..Load::default()
        },
        counted_nsec: value,
    }
}

fn remembered(record: Record, text: &[u8]) -> Remembered {
    let text = text.to_vec();
    Remembered { record, text }
}

#[test]
fn what_one_server_puts_the_next_finds_and_what_is_forgotten_it_does_not() {
    let file = file();
    let state = next(&file);
    assert_eq!(begin(&state, |_| true), []);
    state.put(&snapshot(SLOT, 1), b"one");
    state.put(&snapshot(SLOT, 2), b"two");
    state.put(&trigger(SLOT, 3, None), b"");
    state.put(&load(SLOT, 4), b"");
    state.forget(Key::Snapshot(1));
    let left = [
        remembered(load(SLOT, 4), b""),
        remembered(snapshot(SLOT, 2), b"two"),
        remembered(trigger(SLOT, 3, None), b""),
    ];
    assert_eq!(all(&file), left);
    assert_eq!(all(&file), left, "reading changes nothing");
}

#[test]
fn the_last_of_a_key_counts_at_any_length() {
    let file = file();
    let mut state = next(&file);
    begin(&state, |_| true);
    for round in 0..20u8 {
        let text = vec![round; usize::from(round) * 997 % 5000];
        state.put(&snapshot(SLOT, 1), &text);
        state.put(&trigger(SLOT, 2, Some(round.into())), b"");
        if round % 7 == 0 {
            state = next(&file);
            begin(&state, |_| true);
        }
        let expected = [
            remembered(snapshot(SLOT, 1), &text),
            remembered(trigger(SLOT, 2, Some(round.into())), b""),
        ];
        assert_eq!(all(&file), expected);
    }
}

#[test]
fn containers_that_are_gone_are_forgotten_for_good() {
    let file = file();
    let state = next(&file);
    begin(&state, |_| true);
    for slot in [SLOT, SLOT + 1] {
        state.put(&snapshot(slot, slot), b"text");
        state.put(&load(slot, 1), b"");
    }
    state.forget_slot(SLOT);
    assert_eq!(all(&file).len(), 2);
    assert_eq!(begin(&next(&file), |slot| slot == SLOT), []);
    assert_eq!(all(&file), []);
}

#[test]
fn a_history_is_written_when_it_has_changed() {
    let file = file();
    let state = next(&file);
    begin(&state, |_| true);
    let history = History::new();
    state.put_history(SLOT, &history);
    assert_eq!(all(&file), [], "nothing was shown");
    let former = Record::History {
        slot: SLOT,
        shown: history.snapshot().1,
    };
    history.restore(history.snapshot().1);
    state.put_history(SLOT, &history);
    assert_eq!(all(&file), [remembered(former, b"")]);
}

#[test]
fn a_server_that_has_ended_writes_no_more_and_finds_what_the_next_one_wrote() {
    let file = file();
    let state = next(&file);
    begin(&state, |_| true);
    state.put(&snapshot(SLOT, 1), b"one");
    state.end().unwrap();
    state.put(&snapshot(SLOT, 2), b"two");
    let other = next(&file);
    begin(&other, |_| true);
    other.forget(Key::Snapshot(1));
    other.put(&snapshot(SLOT, 3), b"three");
    other.end().unwrap();
    let left = [remembered(snapshot(SLOT, 3), b"three")];
    assert_eq!(begin(&state, |_| true), left);
    assert_eq!(state.begin(|_| true).unwrap(), Begin::Already);
}

#[test]
fn one_container_fills_its_share_and_no_more() {
    let file = file();
    let state = next(&file);
    begin(&state, |_| true);
    let text = vec![b'x'; 1 << 20];
    for handle in 0..60 {
        state.put(&snapshot(SLOT, handle), &text);
    }
    let mine = all(&file).len();
    assert!((1..10).contains(&mine), "{mine}");
    state.put(&snapshot(SLOT + 1, 100), &text);
    state.put(&load(SLOT, 1), b"");
    assert_eq!(all(&file).len(), mine + 2);
    // What was remembered and fits no more is not what the next server shows.
    state.put(&snapshot(SLOT, 0), &vec![b'y'; 5 << 20]);
    assert_eq!(all(&file).len(), mine + 1);
    // What is given back can be filled again, also by the next server.
    let state = next(&file);
    begin(&state, |_| true);
    state.put(&snapshot(SLOT, 0), &text);
    assert_eq!(all(&file).len(), mine + 2);
    state.put(&snapshot(SLOT, 200), &text);
    assert_eq!(
        all(&file).len(),
        mine + 2,
        "the share is counted over servers"
    );
    state.forget_slot(SLOT);
    for handle in 0..60 {
        state.put(&snapshot(SLOT, handle), &text);
    }
    assert_eq!(all(&file).len(), mine + 1);
}

#[test]
fn a_spoiled_or_foreign_state_is_begun_anew() {
    for spoil in [&b"\xff"[..], b"eci-fs\0S\xff\xff\xff", &[7; 4096]] {
        let file = file();
        let state = next(&file);
        begin(&state, |_| true);
        state.put(&snapshot(SLOT, 1), b"one");
        rustix::io::pwrite(&file, spoil, 0).unwrap();
        assert_eq!(all(&file), []);
        let state = next(&file);
        begin(&state, |_| true);
        state.put(&snapshot(SLOT, 2), b"two");
        assert_eq!(all(&file), [remembered(snapshot(SLOT, 2), b"two")]);
    }
}

#[test]
fn a_file_that_cannot_be_used_remembers_nothing_and_breaks_nothing() {
    let null: OwnedFd = std::fs::File::open("/dev/zero").unwrap().into();
    let small: OwnedFd = tempfile::tempfile().unwrap().into();
    let sealed = file();
    let seal = rustix::fs::SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&sealed, seal).unwrap();
    for file in [null, small, sealed] {
        let Ok(state) = State::open(file) else {
            continue;
        };
        // Some of these have no locks either.
        if let Ok(begun) = state.begin(|_| true) {
            assert_eq!(begun, Begin::Read(Vec::new()));
        }
        state.put(&snapshot(SLOT, 1), b"one");
        state.forget(Key::Snapshot(1));
        state.forget_slot(SLOT);
        state.end().ok();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u16),
    Forget(u8),
    /// Another server takes over.
    Next,
    /// The server is killed while it writes: the last record that it began is none.
    Torn(u8, u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<(u8, u16)>().prop_map(|(handle, length)| Step::Put(handle % 8, length)),
        2 => any::<u8>().prop_map(|handle| Step::Forget(handle % 8)),
        1 => Just(Step::Next),
        1 => any::<(u8, u16)>().prop_map(|(handle, length)| Step::Torn(handle % 8, length)),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever servers do, and wherever they are killed, the next one finds what the last one had put.
    #[test]
    fn a_state_is_what_was_put_into_it(steps in steps()) {
        let file = file();
        let mut state = next(&file);
        begin(&state, |_| true);
        let mut model = std::collections::BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(handle, length) => {
                    let text = vec![number as u8; length.into()];
                    state.put(&snapshot(SLOT, handle.into()), &text);
                    model.insert(handle, text);
                }
                Step::Forget(handle) => {
                    state.forget(Key::Snapshot(handle.into()));
                    model.remove(&handle);
                }
                Step::Next => {
                    state = next(&file);
                    begin(&state, |_| true);
                }
                Step::Torn(handle, length) => {
                    let text = vec![number as u8; length.into()];
                    state.put(&snapshot(SLOT, handle.into()), &text);
                    let begun = state.begun.read();
                    let entry = begun.as_ref().unwrap().entries.get(&Key::Snapshot(handle.into()));
                    let place = entry.unwrap().places[1].unwrap();
                    let at = u64::from(place.block) * BLOCK as u64 + 20;
                    rustix::io::pwrite(&file, &[0xa5; 4], at).unwrap();
                    drop(begun);
                    state = next(&file);
                    begin(&state, |_| true);
                    // What was whole before may have had to make room.
                    let left = all(&file);
                    let key = Key::Snapshot(handle.into());
                    let before = left.iter().find(|one| one.record.key() == key);
                    prop_assert!(before.is_none_or(|one| Some(&one.text) == model.get(&handle)));
                    if before.is_none() {
                        model.remove(&handle);
                    }
                }
            }
        }
        let left: std::collections::BTreeMap<u8, Vec<u8>> = all(&file)
            .into_iter()
            .map(|one| match one.record {
                Record::Snapshot(snapshot) => (snapshot.handle as u8, one.text),
                other => panic!("{other:?}"),
            })
            .collect();
        prop_assert_eq!(left, model);
    }

    /// Any bytes anywhere: no panic, and nothing is found that was not put.
    #[test]
    fn spoiled_bytes_are_nothing_that_was_put(
        spoils in proptest::collection::vec((0u64..8192, proptest::collection::vec(any::<u8>(), 1..64)), 1..8),
    ) {
        let file = file();
        let state = next(&file);
        begin(&state, |_| true);
        for handle in 0..8 {
            state.put(&snapshot(SLOT, handle), &[handle as u8; 500]);
            state.put(&load(handle, handle), b"");
        }
        let before = all(&file);
        for (at, bytes) in spoils {
            rustix::io::pwrite(&file, &bytes, at).unwrap();
        }
        if let Ok(state) = State::open(file.try_clone().unwrap()) {
            for one in begin(&state, |_| true) {
                prop_assert!(before.contains(&one), "{one:?}");
            }
        }
    }
}
