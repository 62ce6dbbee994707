//! Writing to tunables.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::fcntl::OFlag;
use serde_json::json;

use crate::answer::{Answer, text, wrong};
use crate::ways::sendfile_to_a_file;

/// Makes one write(2), as `printf TEXT > PATH` does. Returns the number of bytes that were taken.
pub(crate) fn write(path: &str, what: &str) -> Answer {
    let mut file = File::options()
        .write(true)
        .custom_flags(OFlag::O_TRUNC.bits())
        .open(path)?;
    Ok(json!(file.write(what.as_bytes())?))
}

/// Makes one write at the end of the file, as `printf TEXT >> PATH` does.
pub(crate) fn append(path: &str, what: &str) -> Answer {
    let mut file = File::options().append(true).open(path)?;
    Ok(json!(file.write(what.as_bytes())?))
}

/// Makes one write in the middle of the file.
pub(crate) fn write_at(path: &str, offset: u64, what: &str) -> Answer {
    let file = File::options().write(true).open(path)?;
    Ok(json!(file.write_at(what.as_bytes(), offset)?))
}

/// Writes each of `all`, and after each write has the kernel copy the file.
pub(crate) fn write_and_copy(path: &str, all: &[&str]) -> Answer {
    let mut copies = Vec::new();
    for what in all {
        let mut file = File::options().write(true).open(path)?;
        file.write_all(what.as_bytes())?;
        copies.push(text(&sendfile_to_a_file(&File::open(path)?)?));
    }
    Ok(json!(copies))
}

/// Opens a file, writes to it, and reads it from its beginning by the same descriptor.
pub(crate) fn write_and_read(path: &str, what: &str) -> Answer {
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut before = String::new();
    file.read_to_string(&mut before)?;
    file.write_all_at(what.as_bytes(), 0)?;
    let mut after = [0; 256];
    let length = file.read_at(&mut after, 0)?;
    Ok(json!([
        before,
        text(after.get(..length).unwrap_or_default())
    ]))
}

/// Starts a thread for each path, which writes numbers from `first` on and reads each back. Returns how often another
/// number was read.
pub(crate) fn compete(first: u64, times: u64, paths: &[&str]) -> Answer {
    let mixed = std::thread::scope(|scope| {
        let threads: Vec<_> = paths
            .iter()
            .map(|path| scope.spawn(move || write_and_compare(path, first, times)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| wrong("a writer panicked"))?)
            .sum::<std::io::Result<u64>>()
    });
    Ok(json!(mixed?))
}

fn write_and_compare(path: &str, first: u64, times: u64) -> std::io::Result<u64> {
    let mut mixed = 0;
    for number in first..first + times {
        fs::write(path, format!("{number}\n"))?;
        mixed += u64::from(fs::read_to_string(path)? != format!("{number}\n"));
    }
    Ok(mixed)
}
