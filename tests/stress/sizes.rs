//! Eight readers of a cached view whose size changes every 50 ms: no read(2) is cut or has two versions. What else readers
//! see is counted, and printed.
//!
//! The view is /proc/uptime of a container that sleeps, which a server with debugging aids gives a digit more in every
//! other 50 ms. There is no silence, so the size changes in steps.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use support::Scene;

use crate::shown;

/// The number of readers.
const READERS: usize = 8;

/// The time of a short run. `ECI_FS_STRESS_READS` is the number of reads of a long one.
const SHORT: Duration = Duration::from_secs(3);

/// The least number of reads of a short run.
const LEAST_READS: u64 = 20_000;

/// What a reader got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    /// The text as the kernel would write it.
    Exact,
    /// The same, and empty lines.
    Empty,
    /// The same, and zero bytes, perhaps with empty lines.
    Nul,
    /// A text, and a piece of another one.
    Piece,
    /// Anything else.
    Cut,
}

/// How often readers got what.
#[derive(Debug, Default)]
struct Counts([AtomicU64; 5]);

impl Counts {
    fn add(&self, got: Got) {
        self.0[got as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self, got: Got) -> u64 {
        self.0[got as usize].load(Ordering::Relaxed)
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|one| one.load(Ordering::Relaxed)).sum()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [exact, empty, nul, piece, cut] =
            [Got::Exact, Got::Empty, Got::Nul, Got::Piece, Got::Cut].map(|got| self.get(got));
        write!(
            f,
            "{exact} exact, {empty} with an empty line, {nul} with a NUL, {piece} with a piece of another text, {cut} cut"
        )
    }
}

/// Returns what this is of "seconds.hundredths seconds.hundredths\n".
fn got(bytes: &[u8]) -> Got {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Got::Cut;
    };
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    let is_time = |word: &[u8]| {
        let all_digits =
            |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        match word.iter().position(|byte| *byte == b'.') {
            Some(point) => {
                let (seconds, hundredths) = (&word[..point], &word[point + 1..]);
                all_digits(seconds) && all_digits(hundredths) && hundredths.len() == 2
            }
            None => false,
        }
    };
    let mut words = line.split(|byte| *byte == b' ');
    let is_line = words.next().is_some_and(is_time)
        && words.next().is_some_and(is_time)
        && words.next().is_none();
    match rest {
        _ if !is_line => Got::Cut,
        [] => Got::Exact,
        rest if rest.iter().all(|byte| *byte == b'\n') => Got::Empty,
        rest if rest.iter().all(|byte| matches!(byte, b'\n' | 0)) => Got::Nul,
        _ => Got::Piece,
    }
}

#[test]
fn each_kind_of_text_is_told_from_the_others() {
    assert_eq!(got(b"12.34 5.67\n"), Got::Exact);
    assert_eq!(got(b"12.34 5.67\n\n"), Got::Empty);
    assert_eq!(got(b"12.34 5.67\n\0"), Got::Nul);
    assert_eq!(got(b"12.34 5.67\n7\n"), Got::Piece);
    for cut in [
        &b"12.34 5.67"[..],
        b"12.34 5.6\n",
        b"12.34\n",
        b"",
        b"\n",
        b"12.34 5.67 8.90\n",
    ] {
        assert_eq!(got(cut), Got::Cut, "{cut:?}");
    }
}

/// A view that is found already, as a graft is.
struct Graft(std::os::fd::OwnedFd);

impl Graft {
    fn new(path: &Path) -> Self {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Self(rustix::fs::open(path, flags, Mode::empty()).unwrap())
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// Have all readers read the view in one way until there is enough, and count what they got.
fn stress(read: fn(&Path) -> Vec<u8>) -> Counts {
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let mut command: Command = scene.command(&["mountd"]);
    command.env("ECI_FS_FAULT", "resize@/proc/uptime:50");
    let daemon = scene.daemon_of(command);
    let container = scene.container().start();
    let dir = shown(&scene, container.pid());
    let graft = Graft::new(&dir.join("proc/uptime"));
    let counts = Counts::default();
    let most = std::env::var("ECI_FS_STRESS_READS").map(|reads| reads.parse::<u64>().unwrap());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (path, counts, most) = (graft.path(), &counts, most.clone());
            scope.spawn(move || {
                for number in 0_u64.. {
                    let is_enough = match &most {
                        Ok(most) => number >= most / READERS as u64,
                        Err(_) => began.elapsed() >= SHORT,
                    };
                    if is_enough {
                        break;
                    }
                    let bytes = read(&path);
                    let one = got(&bytes);
                    counts.add(one);
                    if one == Got::Cut {
                        println!("reader {reader}: {:?}", String::from_utf8_lossy(&bytes));
                    }
                }
            });
        }
    });
    println!(
        "{} times in {:.1?}: {counts}",
        counts.sum(),
        began.elapsed()
    );
    drop(graft);
    scene.eci_fs(&["unmount", &dir.display().to_string()]).ok();
    drop(container);
    daemon.end();
    assert!(counts.sum() >= LEAST_READS, "{counts}");
    // The size did change.
    assert!(counts.get(Got::Empty) > 0, "{counts}");
    counts
}

/// One read(2).
fn once(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    let count = File::open(path).unwrap().read(&mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

/// A pass in reads of seven bytes.
fn in_pieces(path: &Path) -> Vec<u8> {
    let mut file = File::open(path).unwrap();
    let (mut bytes, mut piece) = (Vec::with_capacity(64), [0; 7]);
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return bytes,
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

#[test]
fn privileged_no_read_of_a_view_whose_size_changes_is_cut_or_has_two_versions() {
    let counts = stress(once);
    assert_eq!(
        (counts.get(Got::Cut), counts.get(Got::Piece)),
        (0, 0),
        "{counts}"
    );
}

#[test]
fn privileged_few_passes_in_small_reads_end_with_a_piece_of_the_next_version() {
    let counts = stress(in_pieces);
    let torn = counts.get(Got::Cut) + counts.get(Got::Piece);
    assert!(torn * 100 <= counts.sum(), "{counts}");
}
