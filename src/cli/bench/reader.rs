//! The reader: pid 1 of a container, which reads or writes what it is told and says how long that took.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use eci_fs_mountd::container::mountinfo::parse_mountinfo;
use eci_fs_protocol::error::{Error, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use serde::{Deserialize, Serialize};

use super::harmless::{self, Contained};
use super::histogram::Histogram;
use super::{Inside, peer};

/// How long nobody reads before a first read.
const SILENCE: Duration = Duration::from_millis(20);

/// What a reader is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToReader {
    /// Say what is grafted.
    Grafts,
    /// Read.
    Measure(Job),
}

/// What a reader says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromReader {
    /// It is there, with this pid outside.
    Started(i32),
    /// It has its namespaces.
    Ready,
    /// The mounts over its files.
    Grafts(Vec<Graft>),
    /// How long it took.
    Measured(Sample),
    /// It could not.
    Failed(Error),
}

/// A mount over a file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Graft {
    pub(super) path: String,
    /// Whether the page cache holds it.
    pub(super) cached: bool,
}

/// What to read, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) path: String,
    pub(super) way: Way,
    pub(super) threads: usize,
    pub(super) limit: Limit,
}

/// How to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// Open, read to the end, close.
    Open,
    /// pread(2) of all of it on a descriptor that is held open.
    Held,
    /// As `Open`, after a time in which nobody read.
    Quiet,
    /// Open, write a number, close.
    Write,
}

/// When to stop.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Limit {
    /// After this time.
    Span(Duration),
    /// After so many reads in each thread.
    Count(u64),
}

/// Times of reads, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) count: u64,
    /// From the first to the last, silences included.
    pub(super) elapsed: f64,
}

/// The whole process. Its channel is standard input.
pub(in super::super) fn read(inside: &Inside) -> ExitCode {
    let Ok(channel) = super::contained::channel_of_stdin() else {
        return ExitCode::FAILURE;
    };
    let contained = match prepare(inside) {
        Ok(contained) => contained,
        Err(error) => {
            // If nobody listens there is nobody to tell.
            let _ = channel.send(&FromReader::Failed(error), &[]);
            return ExitCode::FAILURE;
        }
    };
    if channel.send(&FromReader::Ready, &[]).is_err() {
        return ExitCode::FAILURE;
    }
    // The bench closes its end when it is done, or is no more.
    while let Ok(Some((told, _))) = channel.recv::<ToReader>() {
        let result = match told {
            ToReader::Grafts => grafts().map(FromReader::Grafts),
            ToReader::Measure(job) => measure(&job, &contained).map(FromReader::Measured),
        };
        let said = result.unwrap_or_else(FromReader::Failed);
        if channel.send(&said, &[]).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn prepare(inside: &Inside) -> Result<Contained> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Error::io("make", "a mount namespace", e))?;
    private()?;
    let contained = Contained::begin()?;
    if inside.lxcfs {
        peer::bind()?;
    }
    Ok(contained)
}

/// No mount of ours shall be seen elsewhere.
pub(super) fn private() -> Result<()> {
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", flags).map_err(|e| Error::io("make private", "/", e))
}

fn grafts() -> Result<Vec<Graft>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|e| Error::io("read", "/proc/self/mountinfo", e))?;
    let below = |point: &str| point.starts_with("/proc/") || point.starts_with("/sys/");
    Ok(parse_mountinfo(&text)
        .into_iter()
        .filter(|mount| mount.fstype.starts_with("fuse") && below(&mount.point))
        .filter(|mount| Path::new(&mount.point).is_file())
        .map(|mount| Graft {
            // The cached connection is mounted read-only as a whole; of the live one, only some mounts are.
            cached: mount.super_options.split(',').any(|option| option == "ro"),
            path: mount.point,
        })
        .collect())
}

fn measure(job: &Job, contained: &Contained) -> Result<Sample> {
    if job.way == Way::Write {
        contained.check(&job.path)?;
    }
    let started = Instant::now();
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..job.threads.max(1))
            .map(|_| scope.spawn(|| one(job)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(died())))
            .collect::<Result<Vec<_>>>()
    })?;
    let elapsed = started.elapsed();
    let mut all = Histogram::new();
    results.iter().for_each(|times| all.merge(times));
    Ok(Sample {
        p50: all.quantile(0.5) as f64,
        p99: all.quantile(0.99) as f64,
        count: all.total(),
        elapsed: elapsed.as_nanos() as f64,
    })
}

fn died() -> Error {
    Error::refused("a reading thread ended")
}

fn one(job: &Job) -> Result<Histogram> {
    let mut times = Histogram::new();
    let mut buffer = vec![0; room(&job.path)];
    let timer = Timer::new()?;
    // Only for those who read it: who writes to a tunable that somebody holds open waits until that one is told.
    let held = (job.way == Way::Held)
        .then(|| open(&job.path))
        .transpose()?;
    timer.wait(SILENCE)?;
    let started = Instant::now();
    let mut before = started;
    loop {
        match job.way {
            Way::Held => {
                let held = held.as_ref().ok_or_else(died)?;
                rustix::io::pread(held, &mut buffer, 0)
                    .map_err(|e| Error::io("read", &job.path, e))?;
            }
            Way::Open => whole(&job.path, &mut buffer)?,
            Way::Write => harmless::write(&job.path, times.total())?,
            Way::Quiet => {
                timer.wait(SILENCE)?;
                before = Instant::now();
                whole(&job.path, &mut buffer)?;
            }
        }
        let now = Instant::now();
        times.add(u64::try_from((now - before).as_nanos()).unwrap_or(u64::MAX));
        before = now;
        let done = match job.limit {
            Limit::Span(span) => now - started >= span,
            Limit::Count(count) => times.total() >= count,
        };
        if done {
            return Ok(times);
        }
    }
}

/// Bytes of the buffer: more than any view has. The kernel clears as much for each read of a tunable
/// (proc_sys_call_handler), so that a longer one than programs have would measure that.
fn room(path: &str) -> usize {
    if path.starts_with("/proc/sys/") {
        1 << 12
    } else {
        1 << 18
    }
}

fn open(path: &str) -> Result<std::os::fd::OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("open", path, e))
}

/// As cat(1) does: to the end, which is a read of nothing.
fn whole(path: &str, buffer: &mut [u8]) -> Result<()> {
    let file = open(path)?;
    while rustix::io::read(&file, &mut *buffer).map_err(|e| Error::io("read", path, e))? > 0 {}
    Ok(())
}

/// Lets time pass.
#[derive(Debug)]
pub(super) struct Timer(OwnedFd);

impl Timer {
    pub(super) fn new() -> Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC);
        timer.map(Self).map_err(|e| Error::io("make", "a timer", e))
    }

    /// Waits for `time`, which must not be zero.
    pub(super) fn wait(&self, time: Duration) -> Result<()> {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(time.subsec_nanos()),
            },
        };
        let mut expirations = [0; size_of::<u64>()];
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)
            .and_then(|_| retry_on_intr(|| rustix::io::read(&self.0, &mut expirations)))
            .map(drop)
            .map_err(|e| Error::io("wait for", "a timer", e))
    }
}
