//! Every way in which a program reads a file. Each way opens the file anew.

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Seek, Write};
use std::os::fd::AsFd;

use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;
use nix::sys::uio::pread;
use serde_json::{Map, Value, json};

use crate::answer::{self, Answer, text};
use crate::mapped;

/// A size in bytes that no view reaches.
const PLENTY: usize = 64 * 1024;

/// A function that reads a file in one way.
pub(crate) type Way = fn(&File) -> io::Result<Vec<u8>>;

/// All ways, by name.
pub(crate) const WAYS: &[(&str, Way)] = &[
    ("whole", |file| in_pieces(file, PLENTY)),
    ("read 1", |file| in_pieces(file, 1)),
    ("read 2", |file| in_pieces(file, 2)),
    ("read 3", |file| in_pieces(file, 3)),
    ("read 7", |file| in_pieces(file, 7)),
    ("read 100", |file| in_pieces(file, 100)),
    ("pread 1", pread_bytes),
    ("pread rest", pread_rests),
    ("pread backwards", pread_backwards),
    ("readv", readv),
    ("sendfile to a file", sendfile_to_a_file),
    ("sendfile to a pipe", sendfile_to_a_pipe),
    ("splice", splice_to_a_pipe),
    ("mmap", mapped::read),
    ("rewind", rewind),
];

/// Returns {way: {"text", "size" (of fstat after open)}}, and the results of pread(2) at and past the end.
pub(crate) fn ways(path: &str) -> Answer {
    let mut ways = Map::new();
    for (name, way) in WAYS {
        let outcome = File::open(path).and_then(|file| {
            let size = file.metadata()?.len();
            Ok(json!({ "text": text(&way(&file)?), "size": size }))
        });
        let outcome = outcome.unwrap_or_else(|error| json!({ "error": answer::name(&error) }));
        ways.insert((*name).to_owned(), outcome);
    }
    Ok(json!({ "ways": Value::Object(ways), "past_the_end": past_the_end(path)? }))
}

/// Returns the numbers of bytes that pread(2) returns at the end and at distances behind it.
fn past_the_end(path: &str) -> Answer {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let end = bytes.len() as i64;
    let mut buffer = [0; 16];
    let counts = [0, 1, 4096, 1 << 20, 1 << 40].map(|beyond| {
        match pread(&file, &mut buffer, end + beyond) {
            Ok(count) => json!(count),
            Err(error) => json!(format!("{error:?}")),
        }
    });
    Ok(json!(counts))
}

fn in_pieces(mut file: &File, size: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; size]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Reads one byte from every offset.
fn pread_bytes(file: &File) -> io::Result<Vec<u8>> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while pread(file, &mut byte, bytes.len() as i64)? == 1 {
        bytes.push(byte[0]);
    }
    Ok(bytes)
}

/// Reads the rest of the file from every offset, and keeps the first byte of each. Fails where a rest is too short.
fn pread_rests(file: &File) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; PLENTY]);
    let mut expected = None;
    loop {
        let count = pread(file, &mut buffer, bytes.len() as i64)?;
        let missing = expected.is_some_and(|expected: usize| expected != count);
        if missing {
            let offset = bytes.len();
            return Err(io::Error::other(format!(
                "pread at {offset} returned {count} bytes, and not {expected:?}"
            )));
        }
        if count == 0 {
            return Ok(bytes);
        }
        expected = Some(count - 1);
        bytes.push(buffer[0]);
    }
}

/// Reads seven bytes at a time, from the end to the beginning.
fn pread_backwards(file: &File) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 7];
    let mut offset = i64::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut pieces = Vec::new();
    while offset > 0 {
        let size = offset.min(7) as usize;
        offset -= size as i64;
        let count = pread(file, &mut buffer[..size], offset)?;
        pieces.push(buffer[..count].to_vec());
    }
    pieces.reverse();
    Ok(pieces.concat())
}

fn readv(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let (mut small, mut middle, mut large) = ([0; 1], [0; 10], [0; PLENTY]);
        let mut buffers = [
            IoSliceMut::new(&mut small),
            IoSliceMut::new(&mut middle),
            IoSliceMut::new(&mut large),
        ];
        let mut count = file.read_vectored(&mut buffers)?;
        if count == 0 {
            return Ok(bytes);
        }
        for buffer in [&small[..], &middle, &large] {
            let size = count.min(buffer.len());
            bytes.extend_from_slice(&buffer[..size]);
            count -= size;
        }
    }
}

/// Copies sixteen megabytes at a time, as busybox does.
pub(crate) fn sendfile_to_a_file(file: &File) -> io::Result<Vec<u8>> {
    let mut copy = File::from(memfd_create("copy", MFdFlags::MFD_CLOEXEC)?);
    while sendfile(copy.as_fd(), file.as_fd(), None, 16 << 20)? > 0 {}
    let mut bytes = Vec::new();
    copy.rewind()?;
    copy.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sendfile_to_a_pipe(file: &File) -> io::Result<Vec<u8>> {
    through_a_pipe(|pipe| sendfile(pipe, file.as_fd(), None, 4096))
}

fn splice_to_a_pipe(file: &File) -> io::Result<Vec<u8>> {
    through_a_pipe(|pipe| splice(file, None, pipe, None, 4096, SpliceFFlags::empty()))
}

/// Collects the bytes that `fill` puts into a pipe, one portion at a time, until it puts none.
fn through_a_pipe(fill: impl Fn(&io::PipeWriter) -> nix::Result<usize>) -> io::Result<Vec<u8>> {
    let (mut reader, writer) = io::pipe()?;
    let mut bytes = Vec::new();
    loop {
        let count = fill(&writer)?;
        if count == 0 {
            return Ok(bytes);
        }
        let start = bytes.len();
        bytes.resize(start + count, 0);
        reader.read_exact(&mut bytes[start..])?;
    }
}

/// Reads a file to its end, rewinds it, and returns the second pass.
fn rewind(mut file: &File) -> io::Result<Vec<u8>> {
    in_pieces(file, PLENTY)?;
    file.rewind()?;
    in_pieces(file, PLENTY)
}

/// Flushes standard output before the process goes on.
pub(crate) fn flush() {
    // Without a reader the process is about to end.
    let _ = io::stdout().flush();
}
