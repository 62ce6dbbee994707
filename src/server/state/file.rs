//! The bytes of the state: a header, and records in blocks.
//!
//! ```text
//! header   magic, version, key, checksum                         the first page
//! record   magic, length, sequence number, checksum, body       a run of blocks
//! ```
//!
//! A server that is killed during a write leaves a record with a wrong checksum, which counts as no record. The checksum
//! takes a random key, so nothing that a container makes a view say can pass for a record.

use std::hash::Hasher;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use eci_fs_protocol::link::random;
use rustix::fs::SeekFrom;
use siphasher::sip::SipHasher13;

use super::memory::Memory;
use super::space::Place;

/// The size of a block in bytes.
pub(super) const BLOCK: usize = 256;

/// The number of blocks of the header.
pub(super) const HEADER_BLOCKS: u32 = 16;

/// The version of the format. The other fields of the header mean the same in all versions.
pub(super) const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"eci-fs\0S";
const RECORD_MAGIC: &[u8; 4] = b"eciR";

/// The number of bytes of the header, and of those that its checksum covers.
const HEADER: usize = 40;
const SUMMED: usize = 32;

/// The number of bytes of a record before its body.
const RECORD_HEADER: usize = 24;

/// The number of bytes that one read takes in during the search for records.
const WINDOW: usize = 256 * 1024;

/// The format of one state: its key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    key: [u8; 16],
}

/// The meaning of the header of a file.
#[derive(Debug)]
pub(super) enum Header {
    /// The file is empty.
    Empty,
    /// The file is no state, or a damaged one.
    Foreign,
    /// The file is a state of another version.
    Version(u32),
    /// The file is a state of this version.
    Known(Format),
}

/// A record that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) sequence: u64,
    pub(super) body: Vec<u8>,
}

impl Header {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(file: &OwnedFd) -> io::Result<Self> {
        let mut header = [0; HEADER];
        let length = read_at(file, &mut header, 0)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(Self::Empty);
        }
        let (magic, version) = (&header[..8], u32_at(&header, 8));
        let mut key = [0; 16];
        key.copy_from_slice(&header[16..SUMMED]);
        let format = Format { key };
        let sum = format.sum(0, 0, &header[..SUMMED]);
        if length < HEADER || magic != MAGIC || u64_at(&header, SUMMED) != sum {
            return Ok(Self::Foreign);
        }
        Ok(if version == VERSION {
            Self::Known(format)
        } else {
            Self::Version(version)
        })
    }
}

impl Format {
    /// Begins a new state. The old content of the file has another key, so no part of it is a record any more.
    ///
    /// # Errors
    /// When the file has no room for it, or there is no randomness.
    pub(super) fn create(memory: &Memory) -> io::Result<Self> {
        let this = Self { key: random()? };
        memory.write(&[&this.header(VERSION)], 0)?;
        Ok(this)
    }

    fn header(self, version: u32) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&version.to_le_bytes());
        header[16..SUMMED].copy_from_slice(&self.key);
        let sum = self.sum(0, 0, &header[..SUMMED]);
        header[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        header
    }

    /// Returns the number of blocks of a record with a body of this length in bytes; none if the body is too long.
    pub(super) fn blocks(body: usize) -> Option<u32> {
        u32::try_from((RECORD_HEADER + body).div_ceil(BLOCK)).ok()
    }

    /// Writes a record.
    ///
    /// # Errors
    /// When the file has no room for it.
    pub(super) fn write(
        self,
        memory: &Memory,
        place: Place,
        sequence: u64,
        body: &[u8],
    ) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut header = [0; RECORD_HEADER];
        header[..4].copy_from_slice(RECORD_MAGIC);
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[8..16].copy_from_slice(&sequence.to_le_bytes());
        let sum = self.sum(place.block, sequence, body);
        header[16..].copy_from_slice(&sum.to_le_bytes());
        memory.write(&[&header, body], offset(place.block))
    }

    /// Erases a record.
    ///
    /// # Errors
    /// When its place is not in the file.
    pub(super) fn erase(memory: &Memory, place: Place) -> io::Result<()> {
        memory.write(&[&[0; RECORD_MAGIC.len()]], offset(place.block))
    }

    /// Returns all records in the first `blocks`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn scan(self, file: &OwnedFd, blocks: u32) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut window = vec![0; WINDOW];
        let mut block = HEADER_BLOCKS;
        while let Some(data) = next_data(file, block)?.filter(|data| *data < blocks) {
            block = data;
            let length = read_at(file, &mut window, offset(block))?;
            let mut next = block + u32::try_from(WINDOW / BLOCK).map_err(io::Error::other)?;
            for (at, bytes) in (block..blocks).zip(window[..length].chunks(BLOCK)) {
                // The search goes on after a record that was found.
                if at < block || !bytes.starts_with(RECORD_MAGIC) {
                    continue;
                }
                if let Some(record) = self.record(file, at, blocks)? {
                    block = record.place.end();
                    next = next.max(block);
                    found.push(record);
                }
            }
            block = next;
        }
        Ok(found)
    }

    /// Returns the record at a block, if there is one.
    fn record(self, file: &OwnedFd, block: u32, blocks: u32) -> io::Result<Option<Found>> {
        let mut header = [0; RECORD_HEADER];
        read_at(file, &mut header, offset(block))?;
        let length = u32_at(&header, 4) as usize;
        let place = Self::blocks(length)
            .and_then(|blocks| Place::at(block, blocks))
            .filter(|place| place.end() <= blocks);
        let Some(place) = place else {
            return Ok(None);
        };
        let mut body = vec![0; length];
        let whole = read_at(file, &mut body, offset(block) + RECORD_HEADER as u64)? == length;
        let sequence = u64_at(&header, 8);
        let valid = whole && u64_at(&header, 16) == self.sum(block, sequence, &body);
        Ok(valid.then_some(Found {
            place,
            sequence,
            body,
        }))
    }

    fn sum(self, block: u32, sequence: u64, body: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(&block.to_le_bytes());
        hasher.write(&sequence.to_le_bytes());
        hasher.write(&(body.len() as u64).to_le_bytes());
        hasher.write(body);
        hasher.finish()
    }
}

fn offset(block: u32) -> u64 {
    u64::from(block) * BLOCK as u64
}

/// Returns the next block at or after `block` that is not in a hole of the file.
fn next_data(file: &OwnedFd, block: u32) -> io::Result<Option<u32>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset(block))) {
        Ok(data) => Ok(u32::try_from(data / BLOCK as u64).ok()),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads until the buffer is full or the file ends. Returns the number of bytes.
fn read_at(file: impl AsFd, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(&file, &mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (OwnedFd, Memory) {
        const LENGTH: usize = 64 << 20;
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = rustix::fs::memfd_create("state", flags).unwrap();
        rustix::fs::ftruncate(&file, LENGTH as u64).unwrap();
        let memory = Memory::of(&file, LENGTH).unwrap();
        (file, memory)
    }

    fn write_at(file: &OwnedFd, bytes: &[u8], at: u64) {
        assert_eq!(rustix::io::pwrite(file, bytes, at), Ok(bytes.len()));
    }

    /// Every later version must know a state of this one, as its own or as another's.
    #[test]
    fn the_header_of_version_1_is_kept() {
        let format = Format { key: [7; 16] };
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        assert!(matches!(Header::read(&file).unwrap(), Header::Empty));
        write_at(&file, &format.header(1), 0);
        assert!(matches!(Header::read(&file).unwrap(), Header::Known(_)));
        write_at(&file, &format.header(2), 0);
        assert!(matches!(Header::read(&file).unwrap(), Header::Version(2)));
        let error = super::super::State::open(file).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
        let sum = u64_at(&format.header(1), SUMMED);
        assert_eq!(sum, 14_716_739_993_329_726_416);
    }

    #[test]
    fn a_spoiled_header_is_foreign() {
        let format = Format { key: [7; 16] };
        for byte in 0..HEADER {
            let mut header = format.header(1);
            header[byte] ^= 1;
            let file: OwnedFd = tempfile::tempfile().unwrap().into();
            write_at(&file, &header, 0);
            let read = Header::read(&file).unwrap();
            assert!(matches!(read, Header::Foreign), "{byte}: {read:?}");
        }
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        write_at(&file, &format.header(1)[..HEADER - 1], 0);
        assert!(matches!(Header::read(&file).unwrap(), Header::Foreign));
    }

    #[test]
    fn a_record_that_was_moved_cut_or_spoiled_is_none() {
        let (file, memory) = file();
        let format = Format::create(&memory).unwrap();
        let place = Place::at(32, 2).unwrap();
        let body = [9; 300];
        format.write(&memory, place, 5, &body).unwrap();
        let all = |file: &OwnedFd| format.scan(file, 1024).unwrap();
        let found = all(&file);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].place, found[0].sequence), (place, 5));
        assert_eq!(found[0].body, body);
        let mut bytes = vec![0; RECORD_HEADER + body.len()];
        read_at(&file, &mut bytes, offset(32)).unwrap();
        // Moved.
        write_at(&file, &bytes, offset(64));
        assert_eq!(all(&file).len(), 1);
        // Spoiled at any byte.
        for byte in 0..bytes.len() {
            let mut spoiled = bytes.clone();
            spoiled[byte] ^= 0x80;
            write_at(&file, &spoiled, offset(32));
            assert!(all(&file).is_empty(), "{byte}");
        }
        write_at(&file, &bytes, offset(32));
        assert_eq!(all(&file).len(), 1);
        assert!(format.scan(&file, 33).unwrap().is_empty(), "it ends behind");
        Format::erase(&memory, place).unwrap();
        assert!(all(&file).is_empty());
        // Under another key.
        write_at(&file, &bytes, offset(32));
        let other = Format::create(&memory).unwrap();
        assert!(other.scan(&file, 1024).unwrap().is_empty());
    }

    #[test]
    fn a_body_that_looks_like_a_record_is_none() {
        let (file, memory) = file();
        let format = Format::create(&memory).unwrap();
        let inner = Place::at(33, 1).unwrap();
        format.write(&memory, inner, 1, b"inner").unwrap();
        let mut bytes = vec![0; BLOCK];
        read_at(&file, &mut bytes, offset(33)).unwrap();
        let body = [vec![0; BLOCK - RECORD_HEADER], bytes].concat();
        format
            .write(&memory, Place::at(32, 2).unwrap(), 2, &body)
            .unwrap();
        let found = format.scan(&file, 1024).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].sequence, 2);
    }

    #[test]
    fn records_are_found_across_windows_and_holes() {
        let (file, memory) = file();
        let format = Format::create(&memory).unwrap();
        let long = vec![1; WINDOW + 5000];
        let blocks = Format::blocks(long.len()).unwrap();
        let places = [
            Place::at(2048, blocks).unwrap(),
            Place::at(1022, 2).unwrap(),
            Place::at(100_000, 2).unwrap(),
        ];
        for (place, body) in places.iter().zip([&long[..], b"short", b"far"]) {
            format.write(&memory, *place, 1, body).unwrap();
        }
        let mut found = format.scan(&file, 200_000).unwrap();
        found.sort_by_key(|found| found.body.len());
        let lengths: Vec<_> = found.iter().map(|found| found.body.len()).collect();
        assert_eq!(lengths, [3, 5, long.len()]);
    }
}
