//! The ways in which readers read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use crate::seen::Seen;

/// More than any view has.
const PLENTY: usize = 256 * 1024;

/// To the end, all that there is at once.
pub(crate) fn whole(file: &File, seen: &Seen) -> io::Result<Vec<u8>> {
    in_pieces(file, PLENTY, seen)
}

/// In pieces of a few bytes.
pub(crate) fn in_pieces(mut file: &File, size: usize, seen: &Seen) -> io::Result<Vec<u8>> {
    let (mut bytes, mut piece, mut reads) = (Vec::new(), vec![0; size], 0);
    loop {
        let count = file.read(&mut piece)?;
        reads += 1;
        if count == 0 {
            seen.reads.fetch_add(reads, Ordering::Relaxed);
            return Ok(bytes);
        }
        bytes.extend_from_slice(&piece[..count]);
    }
}

/// All at once from the beginning, of a file that may have been open for long.
pub(crate) fn held(file: &File, seen: &Seen) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PLENTY];
    let count = file.read_at(&mut bytes, 0)?;
    seen.reads.fetch_add(1, Ordering::Relaxed);
    bytes.truncate(count);
    Ok(bytes)
}

/// What follows the first `from` bytes.
pub(crate) fn rest(file: &File, from: usize, seen: &Seen) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PLENTY];
    let count = file.read_at(&mut bytes, from as u64)?;
    seen.reads.fetch_add(1, Ordering::Relaxed);
    bytes.truncate(count);
    Ok(bytes)
}

/// As busybox copies a file.
pub(crate) fn sendfile(file: &File, seen: &Seen) -> io::Result<Vec<u8>> {
    let copy = rustix::fs::memfd_create("soak", rustix::fs::MemfdFlags::CLOEXEC)?;
    while rustix::fs::sendfile(&copy, file, None, 16 << 20)? > 0 {
        seen.reads.fetch_add(1, Ordering::Relaxed);
    }
    let copy = File::from(copy);
    let mut bytes = vec![0; usize::try_from(copy.metadata()?.len()).unwrap_or(0)];
    copy.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
