//! The memory file that outlives a server, spoiled: the server that reads it goes on, and loses at most what it says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use arbitrary::Arbitrary;
use eci_fs::server::ids::{Handle, NodeId};
use eci_fs::server::state::{Begin, NO_SLOT, Record, Remembered, State};
use eci_fs_emulators::EMULATORS;
use eci_fs_protocol::link::Connection;
use siphasher::sip::SipHasher13;

use crate::made_up;
use crate::recorded::{FIXTURES, Recorded};
use crate::served::{Served, attach, state_file};

/// The layout of the file, as src/server/state/file.rs has it.
const BLOCK: u64 = 256;
const KEY: u64 = 16;
const RECORD_MAGIC: &[u8; 4] = b"eciR";

/// The slots that are served.
const SERVED: std::ops::Range<u64> = 1..3;

#[derive(Debug, Arbitrary)]
struct Input {
    /// Bytes of the header that are changed.
    header: Option<(u8, u8)>,
    forged: Vec<Forged>,
    /// Bytes anywhere that are changed after that.
    spoiled: Vec<(u32, u8)>,
    /// The records that are forgotten at once, by their order.
    forgotten: Vec<u8>,
}

/// A record with a checksum that is right.
#[derive(Debug, Arbitrary)]
struct Forged {
    block: u32,
    sequence: u64,
    body: Vec<u8>,
}

thread_local! {
    static RECORDED: RefCell<Option<Recorded>> = const { RefCell::new(None) };
}

/// Takes the bytes for the content of the file.
pub fn run(bytes: &[u8]) {
    let Some(input) = made_up::decode::<Input>(bytes) else {
        return;
    };
    let file = state_file();
    begin(&file);
    let mut key = [0; 16];
    rustix::io::pread(&file, &mut key, KEY).unwrap();
    let blocks = u32::try_from(eci_fs_mountd::state_file::SIZE / BLOCK).unwrap();
    for forged in &input.forged {
        forge(&file, &key, forged.block % blocks, forged);
    }
    if let Some((at, bits)) = input.header {
        change(&file, u64::from(at) % 64, bits);
    }
    for (at, bits) in &input.spoiled {
        change(
            &file,
            u64::from(*at) % eci_fs_mountd::state_file::SIZE,
            *bits,
        );
    }
    write_again(&file, &input.forgotten);
    RECORDED.with_borrow_mut(|recorded| {
        serve(
            recorded.get_or_insert_with(|| Recorded::unpack(FIXTURES[0])),
            file,
        );
    });
}

fn change(file: impl AsFd, at: u64, bits: u8) {
    let mut byte = [0];
    rustix::io::pread(&file, &mut byte, at).unwrap();
    rustix::io::pwrite(&file, &[byte[0] ^ bits], at).unwrap();
}

/// Writes a record as a server does.
fn forge(file: impl AsFd, key: &[u8; 16], block: u32, forged: &Forged) {
    let Forged { sequence, body, .. } = forged;
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(&block.to_le_bytes());
    hasher.write(&sequence.to_le_bytes());
    hasher.write(&(body.len() as u64).to_le_bytes());
    hasher.write(body);
    let mut bytes = RECORD_MAGIC.to_vec();
    bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(hasher.finish().to_le_bytes());
    bytes.extend(body);
    let at = u64::from(block) * BLOCK;
    let room = usize::try_from(eci_fs_mountd::state_file::SIZE - at).unwrap();
    bytes.truncate(room);
    rustix::io::pwrite(file, &bytes, at).unwrap();
}

/// Begins with the file, and returns what it has.
fn begin(file: &OwnedFd) -> Option<(State, Vec<Remembered>)> {
    let state = State::open(file.try_clone().unwrap()).ok()?;
    match state
        .begin(|slot| slot == NO_SLOT || SERVED.contains(&slot))
        .unwrap()
    {
        Begin::Read(remembered) => Some((state, remembered)),
        Begin::Another | Begin::Already => panic!("nobody else serves"),
    }
}

/// Writes each record again, which must be what the next server reads.
fn write_again(file: &OwnedFd, forgotten: &[u8]) {
    let Some((state, mut remembered)) = begin(file) else {
        return;
    };
    for index in forgotten {
        if !remembered.is_empty() {
            let index = usize::from(*index) % remembered.len();
            state.forget(remembered.swap_remove(index).record.key());
        }
    }
    for Remembered { record, text } in &remembered {
        assert!(record.slot() == NO_SLOT || SERVED.contains(&record.slot()));
        state.put(record, text);
    }
    state.end().unwrap();
    let (_, again) = begin(file).unwrap();
    assert_eq!(sorted(again), sorted(remembered));
}

fn sorted(remembered: Vec<Remembered>) -> BTreeMap<String, (Record, Vec<u8>)> {
    let records = remembered.into_iter();
    let records = records.map(|one| (format!("{:?}", one.record.key()), (one.record, one.text)));
    records.collect()
}

/// Serves containers with what the file says about them.
fn serve(recorded: &Recorded, file: OwnedFd) {
    let Some(served) = Served::new(
        recorded,
        Duration::from_millis(10),
        file.try_clone().unwrap(),
    ) else {
        return;
    };
    let fs = &served.fs;
    for slot in SERVED {
        attach(fs, recorded, slot);
    }
    assert!(fs.begin().unwrap());
    let slot = SERVED.start;
    for emulator in EMULATORS {
        let id = NodeId::from_raw((slot << 40) | u64::from(emulator.facts().id));
        for connection in Connection::ALL {
            if let Ok((attr, _)) = fs.attr(connection, id, None) {
                assert_eq!(attr.id, id);
            }
            let _ = fs.read(connection, id, Handle(slot), 0);
        }
    }
    fs.end();
    for slot in SERVED {
        fs.remove(slot);
    }
}
