//! Times what programs do with files, for the benchmark of isolated files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Access, access, stat};
use serde_json::{Map, Value, json};

use crate::answer::Answer;

/// The length of a read or a write.
const PAGE: usize = 4096;

/// The pages of the file that is read and of the one that is written.
const PAGES: u64 = 256;

/// Does each thing many times in the root directory. Returns the nanoseconds that one takes, by the name of the thing.
///
/// The image must have `srv/big` of [`PAGES`] pages, `home/u/d/f` and a directory `bin`. What is written is in `tmp`, and is
/// removed again.
pub(crate) fn time_files() -> Answer {
    let mut times = Map::new();
    let mut time = |name: &str, count: u64, one: &mut dyn FnMut(u64) -> io::Result<()>| {
        let began = Instant::now();
        for number in 0..count {
            one(number)?;
        }
        let each = began.elapsed().as_nanos() as f64 / count as f64;
        times.insert(name.to_owned(), json!(each));
        io::Result::Ok(())
    };
    let mut page = [0; PAGE];
    time("stat", 5000, &mut |_| Ok(stat("/srv/big").map(drop)?))?;
    time("stat three levels down", 5000, &mut |_| {
        Ok(stat("/home/u/d/f").map(drop)?)
    })?;
    time("access", 5000, &mut |_| {
        Ok(access("/srv/big", Access::READ_OK)?)
    })?;
    time("open, close", 3000, &mut |_| {
        File::open("/srv/big").map(drop)
    })?;
    time("open, read 4 KiB, close", 3000, &mut |_| {
        File::open("/srv/big")?.read_exact_at(&mut page, 0)
    })?;
    let big = File::open("/srv/big")?;
    time("pread 4 KiB", 5000, &mut |number| {
        big.read_exact_at(&mut page, number % PAGES * PAGE as u64)
    })?;
    fs::create_dir_all("/tmp")?;
    let (one, other) = (Path::new("/tmp/one"), Path::new("/tmp/other"));
    let mut options = OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).open(one)?;
    for number in 0..PAGES {
        written.write_all_at(&page, number * PAGE as u64)?;
    }
    time("write 4 KiB", 5000, &mut |number| {
        written.write_all_at(&page, number % PAGES * PAGE as u64)
    })?;
    time("stat of a written file", 5000, &mut |_| {
        Ok(stat(one).map(drop)?)
    })?;
    time("create, unlink", 1000, &mut |_| {
        File::create_new(other)?;
        fs::remove_file(other)
    })?;
    // To one name and back.
    time("rename", 1000, &mut |number| match number % 2 {
        0 => fs::rename(one, other),
        _ => fs::rename(other, one),
    })?;
    time("readdir", 500, &mut |_| {
        fs::read_dir("/bin")?.try_for_each(|entry| entry.map(drop))
    })?;
    fs::remove_file(one)?;
    Ok(Value::Object(times))
}
