//! Eight readers of a view that changes at every refresh, in four ways at once, for twenty seconds: no read(2) may
//! give a text that mixes two versions, is cut short, holds a NUL, or is older than its bound.
//!
//! The view is /proc/stat. Its first row is the sum of the others, column by column, and all of them grow with
//! the time: a text with bytes of two versions does not add up. The ticks of a row are the age of its container, which
//! tells when the text was computed. While a number gets a digit more, a text may end with an empty line.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it has measured"
)]

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use support::{Scene, form, let_time_pass};

#[cfg(debug_assertions)]
mod sizes;

/// How long the readers read.
const SPAN: Duration = Duration::from_secs(20);

/// The least that they must have read by then, all together.
const LEAST_READS: u64 = 1_000_000;

/// How old a text may be that somebody holds open: ten times the freshness; and what is added to that: the
/// timeout of its attributes, a tick of USER_HZ in which it says the same, and a jiffy.
const BOUND: Duration = Duration::from_millis(100 + 10 + 10 + 10);

/// How long an answer may wait for a CPU: there are more readers than CPUs, and perhaps other tests.
const SCHEDULING: Duration = Duration::from_millis(150);

const TICK_NSEC: i64 = 10_000_000;

/// What all readers have seen.
#[derive(Default)]
struct Seen {
    reads: AtomicU64,
    passes: AtomicU64,
    /// Byte-wise passes that saw two versions: allowed, and printed.
    mixed: AtomicU64,
    /// Texts with an empty line at their end: allowed, and printed.
    empty_lines: AtomicU64,
    /// The form that all texts have.
    form: String,
    /// The most that the view's time has been ahead of the clock: the start of the container, negative.
    offset: AtomicI64,
    /// (when the read began, the time that it gave), of those that seem the oldest; in nanoseconds.
    oldest: parking_lot::Mutex<Vec<(i64, i64)>>,
}

impl Seen {
    fn new(text: &str) -> Self {
        Self {
            form: form(text),
            offset: AtomicI64::new(i64::MIN),
            ..Self::default()
        }
    }

    /// A text that one reader got at once, beginning at `began`.
    fn text(&self, bytes: &[u8], began: i64) {
        let whole = self.whole(bytes);
        let whole = whole.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(bytes)));
        let ticks = match added_up(whole) {
            Ok(ticks) => ticks,
            Err(why) => panic!("{why}: {}", String::from_utf8_lossy(bytes)),
        };
        let said = ticks * TICK_NSEC;
        self.offset.fetch_max(said - now(), Ordering::Relaxed);
        let mut oldest = self.oldest.lock();
        oldest.push((began, said));
        if oldest.len() > 4096 {
            // The difference is the age but for a constant.
            oldest.sort_by_key(|(began, said)| said - began);
            oldest.truncate(64);
        }
        self.passes.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a text without empty lines at its end; none if anything else is missing or too much.
    fn whole<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let end = bytes.iter().rposition(|byte| *byte != b'\n');
        let whole = &bytes[..bytes.len().min(end.map_or(0, |end| end + 2))];
        if whole.len() < bytes.len() {
            self.empty_lines.fetch_add(1, Ordering::Relaxed);
        }
        (form(&String::from_utf8_lossy(whole)) == self.form).then_some(whole)
    }

    /// The greatest age that a text had when its read began.
    fn greatest_age(&self) -> Duration {
        let offset = self.offset.load(Ordering::Relaxed);
        let age = |(began, said): &(i64, i64)| began + offset - said;
        let most = self.oldest.lock().iter().map(age).max().unwrap();
        Duration::from_nanos(u64::try_from(most).unwrap_or(0))
    }
}

fn now() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Whether the rows add up; the ticks that the first CPU has been there for.
fn added_up(bytes: &[u8]) -> Result<i64, String> {
    if bytes.contains(&0) {
        return Err("there is a NUL".to_owned());
    }
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    if !text.ends_with('\n') {
        return Err("the end is missing".to_owned());
    }
    let row = |line: &str| -> Vec<i64> {
        line.split_ascii_whitespace()
            .skip(1)
            .map(|number| number.parse().unwrap_or(-1))
            .collect()
    };
    let mut rows = text.lines().take_while(|line| line.starts_with("cpu"));
    let total = row(rows.next().ok_or("there is no row")?);
    let rows: Vec<Vec<i64>> = rows.map(row).collect();
    let first = rows.first().ok_or("there is no CPU")?;
    for (column, total) in total.iter().enumerate() {
        let sum: i64 = rows.iter().filter_map(|row| row.get(column)).sum();
        if sum != *total {
            return Err(format!("column {column} is {total} and adds up to {sum}"));
        }
    }
    Ok(first.iter().sum())
}

/// To the end, in pieces larger than the view.
fn open_and_read(path: &Path, length: usize, seen: &Seen) {
    let began = now();
    let mut bytes = Vec::with_capacity(4 * length);
    let mut file = File::open(path).unwrap();
    let mut piece = vec![0; 2 * length];
    loop {
        let count = file.read(&mut piece).unwrap();
        seen.reads.fetch_add(1, Ordering::Relaxed);
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..count]);
    }
    seen.text(&bytes, began);
}

fn pread_held(file: &File, length: usize, seen: &Seen) {
    let began = now();
    let mut bytes = vec![0; 2 * length];
    let count = file.read_at(&mut bytes, 0).unwrap();
    seen.reads.fetch_add(1, Ordering::Relaxed);
    seen.text(&bytes[..count], began);
}

/// One byte after the other: whether all were of one version.
fn byte_wise(path: &Path, length: usize, seen: &Seen) -> bool {
    let mut file = File::open(path).unwrap();
    let (mut bytes, mut byte) = (Vec::with_capacity(length), [0]);
    while file.read(&mut byte).unwrap() == 1 {
        assert_ne!(byte, [0], "there is a NUL after {} bytes", bytes.len());
        bytes.push(byte[0]);
    }
    seen.reads
        .fetch_add(bytes.len() as u64 + 1, Ordering::Relaxed);
    // One that saw two versions need not be whole: they may have different sizes.
    added_up(&bytes).is_ok() && seen.whole(&bytes).is_some()
}

fn sendfile(path: &Path, length: usize, seen: &Seen) {
    let began = now();
    let file = File::open(path).unwrap();
    let to = rustix::fs::memfd_create("stress", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    while rustix::fs::sendfile(&to, &file, None, 2 * length).unwrap() > 0 {
        seen.reads.fetch_add(1, Ordering::Relaxed);
    }
    let mut bytes = vec![0; 2 * length];
    let count = File::from(to).read_at(&mut bytes, 0).unwrap();
    seen.text(&bytes[..count], began);
}

/// A container whose views are shown to this process under a directory: those are the same files.
fn shown(scene: &Scene, pid: u32) -> PathBuf {
    let dir = scene.dir().join("views");
    let shown = dir.display().to_string();
    scene.eci_fs(&["mount", &pid.to_string(), &shown]).ok();
    dir
}

#[test]
fn privileged_no_read_sees_two_versions_or_a_part_of_one_or_one_that_is_too_old() {
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let container = scene.container().start();
    let dir = shown(&scene, container.pid());
    let path = dir.join("proc/stat");
    let text = std::fs::read_to_string(&path).unwrap();
    let (length, seen) = (text.len(), Seen::new(&text));
    let end = Instant::now() + SPAN;
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let (path, seen) = (path.as_path(), &seen);
            scope.spawn(move || {
                let held = File::open(path).unwrap();
                while Instant::now() < end {
                    match reader % 4 {
                        0 => open_and_read(path, length, seen),
                        1 => pread_held(&held, length, seen),
                        2 if byte_wise(path, length, seen) => {}
                        2 => drop(seen.mixed.fetch_add(1, Ordering::Relaxed)),
                        _ => sendfile(path, length, seen),
                    }
                }
            });
        }
    });
    let (reads, passes) = (
        seen.reads.load(Ordering::Relaxed),
        seen.passes.load(Ordering::Relaxed),
    );
    let mixed = seen.mixed.load(Ordering::Relaxed);
    let empty_lines = seen.empty_lines.load(Ordering::Relaxed);
    let age = seen.greatest_age();
    println!(
        "{reads} reads, {passes} texts at once, the oldest {age:?}; {mixed} byte-wise passes of two versions, \
         {empty_lines} texts with an empty line"
    );
    assert!(reads >= LEAST_READS, "{reads} reads");
    assert!(age <= BOUND + SCHEDULING, "a text was {age:?} old");
    scene.eci_fs(&["unmount", &dir.display().to_string()]).ok();
}

#[test]
fn privileged_a_byte_wise_pass_after_a_silence_sees_one_version() {
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let container = scene.container().start();
    let dir = shown(&scene, container.pid());
    let path = dir.join("proc/stat");
    let text = std::fs::read_to_string(&path).unwrap();
    let (length, seen) = (text.len(), Seen::new(&text));
    for pass in 0..100 {
        let_time_pass(Duration::from_millis(20));
        let began = Instant::now();
        let one = byte_wise(&path, length, &seen);
        // A pass that was itself not scheduled for longer than a held view is kept is another matter.
        assert!(
            one || began.elapsed() > Duration::from_millis(90),
            "pass {pass} saw two versions in {:?}",
            began.elapsed()
        );
    }
    scene.eci_fs(&["unmount", &dir.display().to_string()]).ok();
}
