//! The state that outlives a server: a memory file that the daemon made. It holds what the next server must know so that
//! no reader notices the change.
//!
//! A server writes to the state before it answers a container. The file has a fixed size, and the open files of one
//! container can fill a share of it. A record that does not fit is not written.
//!
//! A server reads the state when it begins to serve, and only the server that has the lock writes.

mod file;
mod lock;
mod memory;
mod record;
mod space;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::DashMap;
use eci_fs_emulators::History;
use parking_lot::{Mutex, RwLock};

use file::{BLOCK, Format, Found, HEADER_BLOCKS, Header};
use lock::Lock;
use memory::Memory;
pub use record::{Key, NO_SLOT, Record, Snapshot, Trigger};
use space::{MAX_ORDER, Place, Space};

/// One in this many blocks is reserved for the records of containers. Open snapshots, paths
/// and versions of views may not fill these.
const RESERVED: u32 = 4;

/// One container may fill one in this many of the blocks for open snapshots, names and versions of views, and so may all paths
/// of the host.
const SHARE: u32 = 8;

/// The number of blocks of the smallest usable file: the longest record fits.
const MIN_BLOCKS: u32 = (RESERVED * 2) << MAX_ORDER;

/// The state.
#[derive(Debug)]
pub struct State {
    lock: Lock,
    blocks: u32,
    /// The file as this server writes to it while it serves. The lock is held for reading during a write.
    begun: RwLock<Option<Begun>>,
    /// True after the warning that a record could not be written. The warning is logged once.
    said: AtomicBool,
}

/// A state that was read.
#[derive(Debug)]
struct Begun {
    memory: Memory,
    format: Format,
    entries: DashMap<Key, Entry>,
    /// The blocks for the records of containers, and those for what containers have open.
    spaces: [Mutex<Space>; 2],
    /// The number of blocks that the snapshots of each container take, by slot.
    shares: DashMap<u64, u32>,
    share: u32,
}

/// The places of a record. A record is written to two places in turn, so that one of them is whole at any time.
#[derive(Debug, Default)]
struct Entry {
    slot: u64,
    sequence: u64,
    /// The version of a history.
    generation: u64,
    /// The second place holds the present record, the first one the record before.
    places: [Option<Place>; 2],
}

/// The result of [`State::begin`].
#[derive(Debug, PartialEq, Eq)]
pub enum Begin {
    /// Another server serves.
    Another,
    /// This server has begun already.
    Already,
    /// This server begins, with the present records.
    Read(Vec<Remembered>),
}

/// A record of the server before this one, and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The record.
    pub record: Record,
    /// The text of a snapshot or of a version; empty for other records.
    pub text: Vec<u8>,
}

impl State {
    /// Opens the file that the daemon handed over. It is not read yet, because another server may still write to it.
    ///
    /// # Errors
    /// When the file is a state of a version that this server does not know, or cannot be read.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        if let Header::Version(version) = Header::read(&file)? {
            return Err(io::Error::other(format!(
                "the state is of version {version}, and this eci-fs knows version {}: go on with the one that wrote it",
                file::VERSION
            )));
        }
        let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        let blocks = u32::try_from(size / BLOCK as u64).unwrap_or(u32::MAX);
        Ok(Self {
            lock: Lock::new(file),
            blocks,
            begun: RwLock::new(None),
            said: AtomicBool::new(false),
        })
    }

    /// Returns the file.
    pub fn file(&self) -> &OwnedFd {
        self.lock.file()
    }

    /// Takes the lock, so that this server serves. Reads the records of slots that `is_served`, and erases the others.
    ///
    /// # Errors
    /// When the file has no locks. A file that cannot be read or written is no error: then no record is written.
    pub fn begin(&self, is_served: impl Fn(u64) -> bool) -> io::Result<Begin> {
        if !self.lock.take()? {
            return Ok(Begin::Another);
        }
        let mut begun = self.begun.write();
        if begun.is_some() {
            return Ok(Begin::Already);
        }
        let remembered = match Begun::read(self.file(), self.blocks, is_served) {
            Ok((read, remembered)) => {
                *begun = Some(read);
                remembered
            }
            Err(error) => {
                tracing::error!(%error, "the state cannot be used; the next server will not know what this one showed");
                Vec::new()
            }
        };
        Ok(Begin::Read(remembered))
    }

    /// Stops writing and releases the lock, so that another server can begin.
    ///
    /// # Errors
    /// When the file has no locks.
    pub fn end(&self) -> io::Result<()> {
        *self.begun.write() = None;
        self.lock.release()
    }

    /// Writes a record and its text in the place of the record with the same key.
    pub fn put(&self, record: &Record, text: &[u8]) {
        self.with(|begun| {
            let mut entry = begun.entries.entry(record.key()).or_default();
            entry.slot = record.slot();
            let body = record.encode(text);
            self.report(begun.write(record.key(), &mut entry, &body));
        });
    }

    /// Writes the counters that a container was shown, unless they are written already.
    pub fn put_history(&self, slot: u64, history: &History) {
        let (key, generation) = (Key::History(slot), history.generation());
        self.with(|begun| {
            let known = begun.entries.get(&key).map_or(0, |entry| entry.generation);
            if known >= generation {
                return;
            }
            let mut entry = begun.entries.entry(key).or_default();
            // Another thread may have written these counters meanwhile, or later ones.
            if entry.generation >= generation {
                return;
            }
            let (generation, shown) = history.snapshot();
            (entry.slot, entry.generation) = (slot, generation);
            let body = Record::History { slot, shown }.encode(&[]);
            self.report(begun.write(key, &mut entry, &body));
        });
    }

    /// Erases the record with a key.
    pub fn forget(&self, key: Key) {
        self.with(|begun| {
            if let Some((key, entry)) = begun.entries.remove(&key) {
                self.report(begun.clear(key, &entry));
            }
        });
    }

    /// Erases all records of a container.
    pub fn forget_slot(&self, slot: u64) {
        self.with(|begun| {
            begun.entries.retain(|key, entry| {
                if entry.slot == slot {
                    self.report(begun.clear(*key, entry));
                }
                entry.slot != slot
            });
            begun.shares.remove(&slot);
        });
    }

    fn with(&self, work: impl FnOnce(&Begun)) {
        if let Some(begun) = &*self.begun.read() {
            work(begun);
        }
    }

    fn report(&self, written: io::Result<()>) {
        if let Err(error) = written
            && !self.said.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "the next server will not know all that this one showed");
        }
    }
}

impl Begun {
    fn read(
        file: &OwnedFd,
        blocks: u32,
        is_served: impl Fn(u64) -> bool,
    ) -> io::Result<(Self, Vec<Remembered>)> {
        if blocks < MIN_BLOCKS {
            return Err(io::Error::other(format!("it has {blocks} blocks only")));
        }
        let memory = Memory::of(file, blocks as usize * BLOCK)?;
        let mut found = Vec::new();
        let format = match Header::read(file)? {
            Header::Known(format) => {
                found = format.scan(file, blocks)?;
                format
            }
            Header::Empty => Format::create(&memory)?,
            Header::Foreign | Header::Version(_) => {
                tracing::error!(
                    "the state of the server before this one is spoiled: starting with an empty one"
                );
                Format::create(&memory)?
            }
        };
        let reserved = blocks / RESERVED;
        let this = Self {
            memory,
            format,
            entries: DashMap::new(),
            spaces: [HEADER_BLOCKS..reserved, reserved..blocks]
                .map(|blocks| Mutex::new(Space::new(blocks))),
            shares: DashMap::new(),
            share: (blocks - reserved) / SHARE,
        };
        let mut remembered = HashMap::new();
        // The latest of each key comes last.
        found.sort_by_key(|found| found.sequence);
        for found in found {
            let known = Record::decode(&found.body)
                .filter(|(record, _)| is_served(record.slot()))
                .filter(|(record, _)| this.enter(record, &found));
            let Some((record, text)) = known else {
                Format::erase(&this.memory, found.place)?;
                continue;
            };
            let text = text.to_vec();
            remembered.insert(record.key(), Remembered { record, text });
        }
        Ok((this, remembered.into_values().collect()))
    }

    /// Takes a record that was found as the present one of its key. Returns false if it cannot be that.
    fn enter(&self, record: &Record, found: &Found) -> bool {
        let (key, slot) = (record.key(), record.slot());
        let mut entry = self.entries.entry(key).or_default();
        let newer = entry.sequence < found.sequence || entry.places == [None; 2];
        // A record lies in a place of its size, and no two records overlap.
        if !newer || !self.space(key).lock().claim(found.place) {
            return false;
        }
        self.count(key, slot, i64::from(found.place.blocks()));
        entry.places.swap(0, 1);
        if let Some(third) = entry.places[1].replace(found.place) {
            // No server writes three. A third that cannot be erased is older than the other two.
            let _ = Format::erase(&self.memory, third);
            self.give(key, slot, third);
        }
        (entry.slot, entry.sequence) = (slot, found.sequence);
        true
    }

    fn space(&self, key: Key) -> &Mutex<Space> {
        &self.spaces[usize::from(has_share(key))]
    }

    /// Writes a record to the place that does not hold the present one.
    fn write(&self, key: Key, entry: &mut Entry, body: &[u8]) -> io::Result<()> {
        let order = Format::blocks(body.len()).and_then(Place::order_for);
        entry.places.swap(0, 1);
        if entry.places[1].is_some_and(|place| Some(place.order) != order) {
            self.clear_one(key, entry.slot, &mut entry.places[1])?;
        }
        if entry.places[1].is_none() {
            entry.places[1] = order.and_then(|order| self.take(key, entry.slot, order));
        }
        entry.sequence += 1;
        let written = match entry.places[1] {
            Some(place) => self.format.write(&self.memory, place, entry.sequence, body),
            None => Err(io::ErrorKind::StorageFull.into()),
        };
        if written.is_err() {
            // The record before is out of date.
            for place in &mut entry.places {
                self.clear_one(key, entry.slot, place)?;
            }
        }
        written
    }

    fn clear(&self, key: Key, entry: &Entry) -> io::Result<()> {
        for place in entry.places {
            self.clear_one(key, entry.slot, &mut { place })?;
        }
        Ok(())
    }

    fn clear_one(&self, key: Key, slot: u64, place: &mut Option<Place>) -> io::Result<()> {
        let Some(place) = place.take() else {
            return Ok(());
        };
        // A place that cannot be erased is never used again.
        Format::erase(&self.memory, place)?;
        self.give(key, slot, place);
        Ok(())
    }

    fn take(&self, key: Key, slot: u64, order: u8) -> Option<Place> {
        if has_share(key) {
            let taken = self.shares.get(&slot).map_or(0, |taken| *taken);
            if taken.saturating_add(1 << order) > self.share {
                return None;
            }
        }
        let place = self.space(key).lock().take(order)?;
        self.count(key, slot, i64::from(place.blocks()));
        Some(place)
    }

    fn give(&self, key: Key, slot: u64, place: Place) {
        self.space(key).lock().give(place);
        self.count(key, slot, -i64::from(place.blocks()));
    }

    fn count(&self, key: Key, slot: u64, by: i64) {
        if has_share(key) {
            let mut taken = self.shares.entry(slot).or_default();
            *taken = u32::try_from(i64::from(*taken) + by).unwrap_or(0);
        }
    }
}

/// Returns whether there can be so many records of this kind that each container has a share.
fn has_share(key: Key) -> bool {
    matches!(
        key,
        Key::Snapshot(_) | Key::Path(_) | Key::OwnPath(..) | Key::Version(..)
    )
}

#[cfg(test)]
mod tests;
