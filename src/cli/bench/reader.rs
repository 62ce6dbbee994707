//! The reader: pid 1 of a container. It reads or writes on request and reports the times.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use eci_fs_mountd::container::mountinfo::parse_mountinfo;
use eci_fs_protocol::channel::Channel;
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

use super::histogram::Histogram;
use super::write_guard::{self, WriteGuard};
use super::{ReaderOptions, peer};

/// The time without reads before a first read.
const SILENCE: Duration = Duration::from_millis(20);

/// A request to a reader.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToReader {
    /// Report the grafts.
    Grafts,
    /// Measure.
    Measure(Job),
}

/// A message of a reader or its stage.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromReader {
    /// The reader has started, with this pid on the host.
    Started(i32),
    /// The reader has its namespaces.
    Ready,
    /// The mounts over files of /proc and /sys.
    Grafts(Vec<Graft>),
    /// The measured times.
    Measured(Sample),
    /// The request failed.
    Failed(Error),
}

/// A mount over a file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Graft {
    pub(super) path: String,
    /// True if the page cache holds it.
    pub(super) cached: bool,
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) path: String,
    pub(super) way: Way,
    pub(super) threads: usize,
    pub(super) limit: Limit,
}

/// The way to read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// Open, read to the end, close.
    Open,
    /// pread(2) of the whole file on a descriptor that is held open.
    Held,
    /// Like `Open`, after a time without reads.
    Quiet,
    /// Open, write a number, close.
    Write,
}

/// The end of a measurement.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Limit {
    /// After this time.
    Span(Duration),
    /// After this number of reads in each thread.
    Count(u64),
}

/// Times of reads, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) count: u64,
    /// The time from the first read to the last, pauses included.
    pub(super) elapsed: f64,
}

/// Returns standard input, which is a channel.
pub(super) fn channel_of_stdin() -> std::io::Result<Channel> {
    rustix::stdio::stdin()
        .try_clone_to_owned()
        .map(Channel::new)
}

/// Runs the reader process. Its channel is standard input.
pub(in super::super) fn read(options: &ReaderOptions) -> ExitCode {
    let Ok(channel) = channel_of_stdin() else {
        return ExitCode::FAILURE;
    };
    let guard = match prepare(options) {
        Ok(guard) => guard,
        Err(error) => {
            // Without the bench nobody needs the error.
            let _ = channel.send(&FromReader::Failed(error), &[]);
            return ExitCode::FAILURE;
        }
    };
    if channel.send(&FromReader::Ready, &[]).is_err() {
        return ExitCode::FAILURE;
    }
    // The channel is closed when the bench is done or has ended.
    while let Ok(Some((request, _))) = channel.recv::<ToReader>() {
        let result = match request {
            ToReader::Grafts => grafts().map(FromReader::Grafts),
            ToReader::Measure(job) => measure(&job, &guard).map(FromReader::Measured),
        };
        let message = result.unwrap_or_else(FromReader::Failed);
        if channel.send(&message, &[]).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn prepare(options: &ReaderOptions) -> Result<WriteGuard> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Error::io("make", "a mount namespace", e))?;
    make_private()?;
    let guard = WriteGuard::begin()?;
    if options.lxcfs {
        peer::bind()?;
    }
    Ok(guard)
}

/// Makes all mounts make_private, so that no mount made here appears elsewhere.
pub(super) fn make_private() -> Result<()> {
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
            // The cached connection is mounted read-only as a whole; only some mounts of the live one are.
            cached: mount.super_options.split(',').any(|option| option == "ro"),
            path: mount.point,
        })
        .collect())
}

fn measure(job: &Job, guard: &WriteGuard) -> Result<Sample> {
    if job.way == Way::Write {
        guard.check(&job.path)?;
    }
    let started = Instant::now();
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..job.threads.max(1))
            .map(|_| scope.spawn(|| run_job(job)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(thread_ended())))
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

fn thread_ended() -> Error {
    Error::refused("a reading thread ended")
}

fn run_job(job: &Job) -> Result<Histogram> {
    let mut times = Histogram::new();
    let mut buffer = vec![0; buffer_size(&job.path)];
    let timer = Timer::new()?;
    // The file is held open only in this case: a write to a tunable waits for the notification of each process that
    // holds it open.
    let held = (job.way == Way::Held)
        .then(|| open(&job.path))
        .transpose()?;
    timer.wait(SILENCE)?;
    let started = Instant::now();
    let mut before = started;
    loop {
        match job.way {
            Way::Held => {
                let held = held.as_ref().ok_or_else(thread_ended)?;
                rustix::io::pread(held, &mut buffer, 0)
                    .map_err(|e| Error::io("read", &job.path, e))?;
            }
            Way::Open => read_whole(&job.path, &mut buffer)?,
            Way::Write => write_guard::write(&job.path, times.total())?,
            Way::Quiet => {
                timer.wait(SILENCE)?;
                before = Instant::now();
                read_whole(&job.path, &mut buffer)?;
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

/// Returns the size of the buffer in bytes, which is more than any view has. The kernel clears as many bytes for each
/// read of a tunable (proc_sys_call_handler), so a buffer larger than that of usual programs would distort the times.
fn buffer_size(path: &str) -> usize {
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

/// Reads a file until a read returns nothing, as cat(1) does.
fn read_whole(path: &str, buffer: &mut [u8]) -> Result<()> {
    let file = open(path)?;
    while rustix::io::read(&file, &mut *buffer).map_err(|e| Error::io("read", path, e))? > 0 {}
    Ok(())
}

/// A timer to wait with.
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
