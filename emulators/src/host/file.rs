//! Functions that read whole files of the kernel.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, pread, read};

use crate::buffer::{Buffer, CHUNK};

/// Reads from the descriptor's offset to the end of the file.
pub(crate) fn read_whole(fd: &OwnedFd) -> Result<Vec<u8>, Errno> {
    read_most(fd, usize::MAX)
}

/// Reads from the descriptor's offset to the end of the file, or until there are `most` bytes or more.
fn read_most(fd: &OwnedFd, most: usize) -> Result<Vec<u8>, Errno> {
    let mut out = vec![0; CHUNK];
    let mut filled = 0usize;
    loop {
        if filled >= most {
            out.truncate(filled);
            return Ok(out);
        }
        if filled == out.len() {
            out.resize(filled.saturating_mul(2), 0);
        }
        match read(fd, out.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => {
                out.truncate(filled);
                return Ok(out);
            }
            Ok(count) => filled = filled.saturating_add(count),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads the whole file. The descriptor may have any offset.
pub(crate) fn pread_whole(fd: &OwnedFd, into: &mut Buffer) -> Result<(), Errno> {
    let mut filled = 0usize;
    loop {
        make_room(into, filled);
        let room = into.bytes.get_mut(filled..).unwrap_or_default();
        match pread_at(fd, room, filled)? {
            0 => {
                into.len = filled;
                return Ok(());
            }
            count => filled = filled.saturating_add(count),
        }
    }
}

/// Reads a file that the kernel writes in one piece (single_open, fs/seq_file.c), as all files of a cgroup that hold
/// values. A read that does not fill its buffer has reached the end. A read that fills its buffer is repeated with a
/// larger one, so the whole text is of the same moment.
pub(crate) fn pread_piece(fd: &OwnedFd, into: &mut Buffer) -> Result<(), Errno> {
    loop {
        make_room(into, 0);
        let count = pread_at(fd, &mut into.bytes, 0)?;
        if count < into.bytes.len() {
            into.len = count;
            return Ok(());
        }
        make_room(into, count);
    }
}

/// Lengthens a buffer if all of it is in use; `filled` bytes are.
fn make_room(buffer: &mut Buffer, filled: usize) {
    let length = buffer.bytes.len();
    if filled >= length {
        buffer.bytes.resize(length.saturating_mul(2).max(CHUNK), 0);
    }
}

fn pread_at(fd: &OwnedFd, buffer: &mut [u8], offset: usize) -> Result<usize, Errno> {
    let offset = u64::try_from(offset).map_err(|_| Errno::FBIG)?;
    loop {
        match pread(fd, &mut *buffer, offset) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Reads a file relative to a directory. Returns `None` if it does not exist.
pub(crate) fn read_at(dir: impl AsFd, name: &str) -> Result<Option<Vec<u8>>, Errno> {
    read_at_most(dir, name, usize::MAX)
}

/// Reads a file relative to a directory, until there are `most` bytes or more. Returns `None` if it does not exist.
pub(crate) fn read_at_most(
    dir: impl AsFd,
    name: &str,
    most: usize,
) -> Result<Option<Vec<u8>>, Errno> {
    match openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => read_most(&fd, most).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn files_of_any_length_are_read_whole() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let mut file = tempfile::tempfile().unwrap();
            let text: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            file.write_all(&text).unwrap();
            let rewound = |file: File| {
                (&file).rewind().unwrap();
                OwnedFd::from(file)
            };
            let fd = rewound(file.try_clone().unwrap());
            assert_eq!(read_whole(&fd).unwrap(), text);
            rewound(file);
            let part = read_most(&fd, 10).unwrap();
            assert!(part.len() >= 10.min(length), "{} of {length}", part.len());
            assert_eq!(part, text[..part.len()]);
            let mut buffer = Buffer::default();
            for read in [pread_whole, pread_piece] {
                read(&fd, &mut buffer).unwrap();
                assert_eq!(buffer.bytes[..buffer.len], text);
            }
        }
    }
}
