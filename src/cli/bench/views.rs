//! Measurements of each view, in each way, by each subject.

use eci_fs_protocol::error::Result;

use super::super::run::cgroup::Cgroups;
use super::containers::{Daemon, Reader};
use super::histogram::median;
use super::reader::{Job, Limit, Sample, Way};
use super::report::{Compared, Cpu, Report, Threads, Times, View};
use super::{Effort, Options, Stop, process, tunables};

/// The numbers of threads that read a view at once.
const THREADS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// The readers of the kernel's file, of the view, and of lxcfs's file.
pub(super) struct Subjects<'a> {
    pub(super) kernel: &'a Reader,
    pub(super) ours: &'a Reader,
    pub(super) lxcfs: Option<&'a Reader>,
}

impl Subjects<'_> {
    /// Measures the same job in all subjects, in turns.
    pub(super) fn compare(&self, job: &Job, rounds: usize, stop: &Stop) -> Result<Compared> {
        self.compare_with(job, job, rounds, stop)
    }

    /// Measures like [`Self::compare`], with another job for the kernel.
    pub(super) fn compare_with(
        &self,
        job: &Job,
        kernel_job: &Job,
        rounds: usize,
        stop: &Stop,
    ) -> Result<Compared> {
        let (mut kernel, mut ours, mut lxcfs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            stop.check()?;
            kernel.push(self.kernel.measure(kernel_job)?);
            ours.push(self.ours.measure(job)?);
            if let Some(reader) = self.lxcfs {
                lxcfs.push(reader.measure(job)?);
            }
        }
        let ratio = |over: &[Sample], under: &[Sample]| {
            median(
                over.iter()
                    .zip(under)
                    .map(|(over, under)| over.p50 / under.p50.max(1.0)),
            )
        };
        Ok(Compared {
            way: name(job.way),
            ours_to_kernel: ratio(&ours, &kernel),
            lxcfs_to_ours: self.lxcfs.map(|_| ratio(&lxcfs, &ours)),
            kernel: times(&kernel),
            ours: times(&ours),
            lxcfs: self.lxcfs.map(|_| times(&lxcfs)),
        })
    }
}

fn times(samples: &[Sample]) -> Times {
    Times {
        p50_usec: median(samples.iter().map(|sample| sample.p50)) / 1000.0,
        p99_usec: median(samples.iter().map(|sample| sample.p99)) / 1000.0,
        reads_per_sec: median(
            samples
                .iter()
                .map(|sample| sample.count as f64 * 1e9 / sample.elapsed.max(1.0)),
        ),
    }
}

fn name(way: Way) -> &'static str {
    match way {
        Way::Open => "open",
        Way::Held => "held",
        Way::Quiet => "quiet",
        Way::Write => "write",
    }
}

/// Returns a job for one thread, as long as the effort says.
pub(super) fn job(path: &str, way: Way, effort: Effort) -> Job {
    Job {
        path: path.to_owned(),
        way,
        threads: 1,
        limit: match way {
            Way::Quiet => Limit::Count(effort.silences),
            _ => Limit::Span(effort.span),
        },
    }
}

/// Measures all views, or the requested ones.
pub(super) fn measure(
    options: &Options,
    cgroups: &Cgroups,
    effort: Effort,
    stop: &Stop,
    report: &mut Report,
) -> Result<()> {
    let daemon = Daemon::start()?;
    let kernel = Reader::start(cgroups, false)?;
    let ours = Reader::start(cgroups, false)?;
    let peer = match options.peer {
        Some(_) => Some(Reader::start(cgroups, true)?),
        None => None,
    };
    daemon.attach(ours.pid)?;
    let has: Vec<String> = match &peer {
        Some(peer) => peer.grafts()?.into_iter().map(|graft| graft.path).collect(),
        None => Vec::new(),
    };
    let mut grafts = ours.grafts()?;
    if !options.views.is_empty() {
        grafts.retain(|graft| options.views.contains(&graft.path));
    }
    for graft in &grafts {
        let subjects = Subjects {
            kernel: &kernel,
            ours: &ours,
            lxcfs: peer.as_ref().filter(|_| has.contains(&graft.path)),
        };
        let ways: Result<Vec<Compared>> = [Way::Open, Way::Held, Way::Quiet]
            .into_iter()
            .map(|way| subjects.compare(&job(&graft.path, way, effort), effort.rounds, stop))
            .collect();
        match ways {
            Ok(ways) => report.views.push(View {
                path: graft.path.clone(),
                cached: graft.cached,
                ways,
            }),
            // The kernel has this file but refuses to read it.
            Err(error) => {
                stop.check()?;
                report.skipped.push((graft.path.clone(), error.to_string()));
            }
        }
    }
    report.tunables = tunables::measure(&kernel, &ours, options, effort, stop)?;
    // Several threads and the server's costs are measured for one view of each connection.
    for cached in [true, false] {
        let Some(path) = typical(report, cached) else {
            continue;
        };
        let subjects = Subjects {
            kernel: &kernel,
            ours: &ours,
            lxcfs: peer.as_ref().filter(|_| has.contains(&path)),
        };
        for threads in THREADS {
            let job = Job {
                threads,
                ..job(&path, Way::Open, effort)
            };
            let compared = subjects.compare(&job, effort.rounds.min(3), stop)?;
            report.threads.push(Threads {
                path: path.clone(),
                threads,
                compared,
            });
        }
        for way in [Way::Open, Way::Held] {
            stop.check()?;
            let before = process::cpu_time(daemon.server)?;
            let job = Job {
                limit: Limit::Span(effort.span * 20),
                ..job(&path, way, effort)
            };
            let sample = ours.measure(&job)?;
            let used = process::cpu_time(daemon.server)?.saturating_sub(before);
            report.cpu.push(Cpu {
                path: path.clone(),
                cached,
                way: name(way),
                reads: sample.count,
                sec_per_million: used.as_secs_f64() * 1e6 / sample.count.max(1) as f64,
            });
        }
    }
    Ok(())
}

/// Returns a typical view of a connection: one that programs read often, or else the first one.
fn typical(report: &Report, cached: bool) -> Option<String> {
    let known = ["/proc/meminfo", "/proc/vmstat", "/proc/pressure/cpu"];
    let mut measured = report.views.iter().filter(|view| view.cached == cached);
    let first = measured.clone().next()?;
    let found = known
        .iter()
        .find_map(|path| measured.find(|view| view.path == *path));
    Some(found.unwrap_or(first).path.clone())
}
