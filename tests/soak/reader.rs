//! One reader: goes from container to container, and reads there.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use support::let_time_pass;

use crate::crowd::{Kind, Member, TUNABLE, list};
use crate::seen::Seen;
use crate::ways;

/// Steps that are done in one container before the next.
const STEPS: usize = 16;

/// Files that one reader holds open at most.
const HELD: usize = 64;

/// How long a reader stays in the middle of a view, at most.
const PAUSE: Duration = Duration::from_millis(300);

/// From then on a read at the beginning of an open file is a rewind for every server (READ_WITHIN of src/server/fs, and the
/// time that an open may take while servers change).
const REWOUND_AFTER: Duration = Duration::from_secs(10);

/// Any stall of 1 ms in 2 s, the shortest window for whoever may not have others.
const TRIGGER: &[u8] = b"some 1000 2000000\0";

/// A reader, and what it is at.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    number: usize,
    crowd: &'a [Member],
    seen: &'a Seen,
    at: &'a At,
    random: fastrand::Rng,
    held: HashMap<(usize, usize), Held>,
}

/// A file that is held open, since when, and the counters at that time.
#[derive(Debug)]
struct Held {
    file: File,
    opened: Instant,
    floors: BTreeMap<String, u64>,
}

/// What a reader is at, for whoever asks why it does not come to an end.
#[derive(Debug, Default)]
pub(crate) struct At(Mutex<Option<(Instant, String)>>);

impl At {
    /// What takes longer than `limit`.
    pub(crate) fn stuck(&self, limit: Duration) -> Option<String> {
        let at = self.0.lock();
        let (since, what) = at.as_ref()?;
        let time = since.elapsed();
        (time > limit).then(|| format!("{what} takes {time:?}"))
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        number: usize,
        crowd: &'a [Member],
        seen: &'a Seen,
        at: &'a At,
        seed: u64,
    ) -> Self {
        Self {
            number,
            crowd,
            seen,
            at,
            random: fastrand::Rng::with_seed(seed.wrapping_add(number as u64)),
            held: HashMap::new(),
        }
    }

    /// Read until told to stop.
    pub(crate) fn run(mut self, stop: &AtomicBool) {
        // The root directory changes with the namespace: it is this thread's alone.
        unshare(CloneFlags::CLONE_FS).unwrap();
        while !stop.load(Ordering::Relaxed) {
            let member = self.random.choice(self.crowd).unwrap();
            member.enter().unwrap();
            for _ in 0..STEPS {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                self.step(member);
            }
        }
        *self.at.0.lock() = None;
    }

    fn step(&mut self, member: &'a Member) {
        let (what, result) = match self.random.u8(0..16) {
            0..2 => self.list(member),
            2 => self.trigger(member),
            3 => self.write(member),
            4 => self.read_halves(member),
            5..7 => self.read(member, "whole"),
            7..9 => self.read(member, "byte-wise"),
            9..12 => self.read(member, "by sendfile"),
            _ => self.hold(member),
        };
        if let Err(why) = result {
            let reader = self.number;
            self.seen.fail(format!("reader {reader}, {what}: {why}"));
        }
    }

    /// Note what is begun, and how long it took.
    fn timed<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        *self.at.0.lock() = Some((began, what.to_owned()));
        let result = work();
        self.seen.took(began.elapsed());
        result
    }

    fn read(&mut self, member: &'a Member, way: &str) -> (String, Result<(), String>) {
        let file = self.random.choice(&member.files).unwrap();
        let what = format!("container {}, {} {way}", member.number, file.path);
        let floors = member.floors(file);
        let bytes = self.timed(&what, || -> io::Result<Vec<u8>> {
            let opened = File::open(&file.path)?;
            match way {
                "whole" => ways::whole(&opened, self.seen),
                "byte-wise" => ways::in_pieces(&opened, file.piece(), self.seen),
                _ => ways::sendfile(&opened, self.seen),
            }
        });
        self.seen.count(match way {
            "whole" => &self.seen.whole,
            "byte-wise" => &self.seen.byte_wise,
            _ => &self.seen.sendfile,
        });
        let judged = Self::judge(bytes, |text| {
            let judged = member.judge(file, text, &floors);
            if judged.is_err() && way == "byte-wise" && file.kind == Kind::Cached {
                self.seen.count(&self.seen.mixed);
                return member.judge_mixed(file, text);
            }
            judged
        });
        (what, judged)
    }

    /// Read from a descriptor that was opened before, or open one.
    fn hold(&mut self, member: &'a Member) -> (String, Result<(), String>) {
        let index = self.random.usize(..member.files.len());
        let file = &member.files[index];
        let what = format!("container {}, {} held", member.number, file.path);
        let key = (member.number, index);
        if !self.held.contains_key(&key) {
            if self.held.len() >= HELD
                && let Some(other) = self.held.keys().next().copied()
            {
                self.held.remove(&other);
            }
            let (began, floors) = (Instant::now(), member.floors(file));
            let opened = self.timed(&what, || File::open(&file.path));
            match opened {
                Ok(file) => self.held.insert(
                    key,
                    Held {
                        file,
                        opened: began,
                        floors,
                    },
                ),
                Err(error) => return (what, Err(error.to_string())),
            };
        }
        let held = &self.held[&key];
        // A server after one that was killed does not know whether a file was read that was opened just before.
        let is_new = file.kind == Kind::Live && held.opened.elapsed() < REWOUND_AFTER;
        let floors = match is_new {
            true => held.floors.clone(),
            false => member.floors(file),
        };
        let bytes = self.timed(&what, || ways::held(&held.file, self.seen));
        self.seen.count(&self.seen.held);
        let judged = Self::judge(bytes, |text| member.judge(file, text, &floors));
        (what, judged)
    }

    fn judge(
        bytes: io::Result<Vec<u8>>,
        judge: impl FnOnce(&str) -> Result<(), String>,
    ) -> Result<(), String> {
        let bytes = bytes.map_err(|error| error.to_string())?;
        let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
        judge(&text).map_err(|why| format!("{why}: {text:.300?}"))
    }

    fn list(&mut self, member: &'a Member) -> (String, Result<(), String>) {
        let (path, names) = self.random.choice(&member.directories).unwrap();
        let what = format!("container {}, listing {path}", member.number);
        let listed = self.timed(&what, || list(path));
        self.seen.count(&self.seen.listings);
        let judged = match listed {
            Ok(listed) if listed == *names => Ok(()),
            Ok(listed) => Err(format!("{listed:?} and not {names:?}")),
            Err(error) => Err(error.to_string()),
        };
        (what, judged)
    }

    /// How long to stay in the middle of something: mostly not at all, or nothing else would be done.
    fn pause(&mut self) -> Duration {
        let long = self.random.u8(0..8) == 0;
        PAUSE.mul_f64(if long { self.random.f64() } else { 0.0 })
    }

    /// Read the first half of a live view, and the other one a while later: they are of one version.
    fn read_halves(&mut self, member: &'a Member) -> (String, Result<(), String>) {
        let live = member.files.iter().filter(|file| file.kind == Kind::Live);
        let file = self.random.choice(live.collect::<Vec<_>>()).unwrap();
        let what = format!("container {}, {} in halves", member.number, file.path);
        let floors = member.floors(file);
        let mut first = vec![0; file.half()];
        let opened = self.timed(&what, || -> io::Result<File> {
            let opened = File::open(&file.path)?;
            opened.read_exact_at(&mut first, 0)?;
            Ok(opened)
        });
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return (what, Err(error.to_string())),
        };
        let_time_pass(self.pause());
        let rest = self.timed(&what, || ways::rest(&opened, first.len(), self.seen));
        self.seen.count(&self.seen.halves);
        let bytes = rest.map(|rest| [first, rest].concat());
        let judged = Self::judge(bytes, |text| member.judge(file, text, &floors));
        (what, judged)
    }

    /// Write what it has written before to a tunable, and read it back.
    fn write(&mut self, member: &'a Member) -> (String, Result<(), String>) {
        let what = format!("container {}, a write to {TUNABLE}", member.number);
        let tuned = member.tuned();
        let read = self.timed(&what, || {
            std::fs::write(TUNABLE, &tuned)?;
            std::fs::read(TUNABLE)
        });
        self.seen.count(&self.seen.writes);
        let judged = Self::judge(read, |text| match text == tuned {
            true => Ok(()),
            false => Err(format!("it was {tuned:?}")),
        });
        (what, judged)
    }

    /// Write a trigger, look whether it stands, and close it.
    fn trigger(&mut self, member: &'a Member) -> (String, Result<(), String>) {
        let name = *self.random.choice(&["cpu", "memory", "io"]).unwrap();
        let path = format!("/proc/pressure/{name}");
        let what = format!("container {}, a trigger in {path}", member.number);
        let pause = self.pause();
        let outcome = self.timed(&what, || -> io::Result<PollFlags> {
            let mut file = File::options().read(true).write(true).open(&path)?;
            file.write_all(TRIGGER)?;
            let_time_pass(pause);
            let mut fds = [PollFd::new(&file, PollFlags::PRI)];
            poll(&mut fds, Some(&Timespec::default()))?;
            Ok(fds[0].revents())
        });
        self.seen.count(&self.seen.triggers);
        let unsupported = rustix::io::Errno::OPNOTSUPP.raw_os_error();
        let judged = match outcome {
            Ok(events) if member.pressure && !events.contains(PollFlags::ERR) => Ok(()),
            Err(error) if !member.pressure && error.raw_os_error() == Some(unsupported) => Ok(()),
            other => Err(format!("{other:?}")),
        };
        (what, judged)
    }
}
