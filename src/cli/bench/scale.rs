//! One daemon with more and more containers: attaching, memory, reading, and waking up.

use std::time::{Duration, Instant};

use eci_fs_protocol::error::Result;

use super::super::run::cgroup::Cgroups;
use super::contained::{Crowd, Daemon, Reader};
use super::histogram::median;
use super::reader::{Timer, Way};
use super::report::{AllRead, Scale, Step};
use super::views::{Subjects, job};
use super::{Effort, Stop, process};

/// What is read with many containers attached. It counts no threads, so that no sampler begins to run.
const PATH: &str = "/proc/meminfo";

/// How long after the last read nothing is counted: twice what the daemon's watchdog waits.
const SETTLING: Duration = Duration::from_secs(2);

/// Measure with each number of containers, from the smallest to the largest.
pub(super) fn measure(
    counts: &[usize],
    cgroups: &Cgroups,
    effort: Effort,
    stop: &Stop,
) -> Result<Option<Scale>> {
    let mut counts = counts.to_vec();
    counts.sort_unstable();
    if counts.is_empty() {
        return Ok(None);
    }
    let daemon = Daemon::start()?;
    let kernel = Reader::start(cgroups, false)?;
    let ours = Reader::start(cgroups, false)?;
    let mut crowd = Crowd::new()?;
    // The one whose attaching is timed, again and again. The reader is the first container.
    let newcomer = crowd.grow(cgroups)?;
    daemon.attach(ours.pid)?;
    let mut attached = vec![ours.pid];
    let subjects = Subjects {
        kernel: &kernel,
        ours: &ours,
        lxcfs: None,
    };
    let mut steps = Vec::new();
    for count in counts {
        while attached.len() < count {
            stop.check()?;
            let pid = crowd.grow(cgroups)?;
            daemon.attach(pid)?;
            attached.push(pid);
        }
        let (took, grafts) = attachments(&daemon, newcomer, effort, stop)?;
        let open = subjects.compare(&job(PATH, Way::Open, effort), effort.rounds, stop)?;
        let quiet = subjects.compare(&job(PATH, Way::Quiet, effort), effort.rounds, stop)?;
        steps.push(Step {
            containers: attached.len(),
            grafts,
            attach_p50_usec: median(took.iter().copied()),
            attach_p99_usec: highest(&took),
            daemon_kib: process::resident_kib(daemon.pid)?,
            server_kib: process::resident_kib(daemon.server)?,
            server_descriptors: process::descriptors(daemon.server)?,
            open,
            quiet,
        });
    }
    stop.check()?;
    let woken = || -> Result<u64> {
        Ok(process::wake_ups(daemon.pid)? + process::wake_ups(daemon.server)?)
    };
    // After the last read the daemon asks once more whether the server answers.
    let timer = Timer::new()?;
    timer.wait(SETTLING)?;
    let (before, started) = (woken()?, Instant::now());
    timer.wait(effort.idle)?;
    let idle_sec = started.elapsed().as_secs_f64();
    let wake_ups = woken()?.saturating_sub(before);
    let views = read_all(&attached, &ours, stop)?;
    let all_read = AllRead {
        containers: attached.len(),
        views,
        daemon_kib: process::resident_kib(daemon.pid)?,
        server_kib: process::resident_kib(daemon.server)?,
        server_descriptors: process::descriptors(daemon.server)?,
    };
    Ok(Some(Scale {
        all_read,
        path: PATH.to_owned(),
        steps,
        idle_wake_ups_per_sec: wake_ups as f64 / idle_sec,
        idle_sec,
    }))
}

/// Read each view of each container once; how many views one has.
fn read_all(pids: &[i32], ours: &Reader, stop: &Stop) -> Result<usize> {
    let mut views = 0;
    let grafts = ours.grafts()?;
    for pid in pids {
        stop.check()?;
        views = 0;
        for graft in &grafts {
            // A file that the kernel has, but reads to nobody, is none that could take memory.
            if std::fs::read(format!("/proc/{pid}/root{}", graft.path)).is_ok() {
                views += 1;
            }
        }
    }
    Ok(views)
}

/// Attach and detach one container; how long each attaching took, in microseconds, and how many grafts it made.
fn attachments(
    daemon: &Daemon,
    pid: i32,
    effort: Effort,
    stop: &Stop,
) -> Result<(Vec<f64>, usize)> {
    let (mut took, mut grafts) = (Vec::new(), 0);
    for _ in 0..effort.attachments {
        stop.check()?;
        let (time, count) = daemon.attach(pid)?;
        daemon.detach(pid)?;
        took.push(time.as_secs_f64() * 1e6);
        grafts = count;
    }
    Ok((took, grafts))
}

/// The 99th percentile.
fn highest(took: &[f64]) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * 0.99).ceil() as usize;
    sorted
        .get(index.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}
