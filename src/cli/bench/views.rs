//! Measurements of each view, in each way, by each subject.

use eci_fs_protocol::error::{Error, Result};

use super::super::run::cgroup::Cgroups;
use super::containers::{Daemon, Reader};
use super::reader::{Job, Limit, Way};
use super::report::{Compared, Cpu, Report, Threads, View};
use super::subjects::{Subjects, job, name};
use super::{Effort, Options, Stop, process, tunables};

/// The numbers of threads that read a view at once.
const THREADS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

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
        if grafts.is_empty() {
            let views = options.views.join(", ");
            return Err(
                Error::not_found(format!("nothing is grafted here: {views}"))
                    .remedy("`eci-fs show PID` lists the views that there are on this host"),
            );
        }
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
