//! Measurements of one daemon with more and more containers: attaching, memory, reading, and wake-ups.

use std::time::{Duration, Instant};

use eci_fs_protocol::error::Result;

use super::super::run::cgroup::Cgroups;
use super::containers::{Daemon, IdleContainers, Reader};
use super::histogram::median;
use super::reader::{Timer, Way};
use super::report::{AllRead, Scale, Step};
use super::subjects::{Subjects, job};
use super::{Effort, Stop, process};

/// The view that is read with many containers attached. It counts no threads, so that no sampler starts.
const PATH: &str = "/proc/meminfo";

/// The time after the last read before wake-ups are counted: twice the interval of the daemon's watchdog.
const SETTLING: Duration = Duration::from_secs(2);

/// Measures with each number of containers, from the smallest to the largest.
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
    let mut idle = IdleContainers::new()?;
    // This container is attached and timed, again and again. The reader is the first container.
    let timed = idle.add(cgroups)?;
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
            let pid = idle.add(cgroups)?;
            daemon.attach(pid)?;
            attached.push(pid);
        }
        let (took, grafts) = attachments(&daemon, timed, effort, stop)?;
        let open = subjects.compare(&job(PATH, Way::Open, effort), effort.rounds, stop)?;
        let quiet = subjects.compare(&job(PATH, Way::Quiet, effort), effort.rounds, stop)?;
        steps.push(Step {
            containers: attached.len(),
            grafts,
            attach_p50_usec: median(took.iter().copied()),
            attach_p99_usec: percentile_99(&took),
            daemon_kib: process::resident_kib(daemon.pid)?,
            server_kib: process::resident_kib(daemon.server)?,
            server_descriptors: process::descriptors(daemon.server)?,
            open,
            quiet,
        });
    }
    stop.check()?;
    let wake_ups = || -> Result<u64> {
        Ok(process::wake_ups(daemon.pid)? + process::wake_ups(daemon.server)?)
    };
    // After the last read the daemon checks the server once more.
    let timer = Timer::new()?;
    timer.wait(SETTLING)?;
    let (before, started) = (wake_ups()?, Instant::now());
    timer.wait(effort.idle)?;
    let idle_sec = started.elapsed().as_secs_f64();
    let wake_ups = wake_ups()?.saturating_sub(before);
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

/// Reads each view of each container once. Returns the number of views of one container.
fn read_all(pids: &[i32], ours: &Reader, stop: &Stop) -> Result<usize> {
    let mut views = 0;
    let grafts = ours.grafts()?;
    for pid in pids {
        stop.check()?;
        views = 0;
        for graft in &grafts {
            // A file that the kernel refuses to read takes no memory of the server.
            if std::fs::read(format!("/proc/{pid}/root{}", graft.path)).is_ok() {
                views += 1;
            }
        }
    }
    Ok(views)
}

/// Attaches and detaches one container several times. Returns the time of each attachment in microseconds, and the
/// number of grafts.
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

/// Returns the 99th percentile.
fn percentile_99(took: &[f64]) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * 0.99).ceil() as usize;
    sorted
        .get(index.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}
