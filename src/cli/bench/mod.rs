//! `eci-fs bench`: measures reads of views, beside the kernel's own files and beside lxcfs.
//!
//! The command starts its own daemon and its own containers, and leaves nothing behind. Every figure is a ratio of measurements
//! that were taken in turns, round after round, so that other load on the host affects all subjects alike.
//!
//! - [`containers`] starts the processes that read, each in its own mount and pid namespaces; [`reader`] is the code
//!   that runs in them.
//! - [`views`] measures each view, [`tunables`] measures tunables that are written to, [`scale`] measures a daemon
//!   with up to a thousand containers, all by the comparisons of [`subjects`]. [`write_guard`] keeps writes away from the host.
//! - [`report`] holds the results; [`table`] and [`chart`] show them.

mod chart;
mod containers;
mod histogram;
mod peer;
mod process;
mod reader;
mod report;
mod scale;
mod subjects;
mod table;
mod tunables;
mod views;
mod write_guard;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use eci_fs_emulators::EMULATORS;
use eci_fs_mountd::output::Output;
use eci_fs_protocol::error::{Error, Result};
use nix::sys::signal::Signal;

use super::run::cgroup::Cgroups;
use super::run::limits::Limits;
use super::run::signals::Signals;
pub(super) use containers::{idle, stage};
pub(super) use reader::read;

/// Options of `eci-fs bench`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Measure another program too
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<Peer>,
    /// Write all figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the reads of each view to a file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The numbers of attached containers with which attaching, memory and reading are measured; 0 to leave that out
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "1,10,100,1000"
    )]
    containers: Vec<usize>,
    /// Measure only these views. Attaching and memory are measured with all of them, and reads with many containers
    /// with /proc/meminfo
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    views: Vec<String>,
    /// Measure in a fraction of the time, less exactly
    #[arg(long)]
    quick: bool,
}

/// Programs to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// lxcfs, which must be installed
    Lxcfs,
}

/// Options of the hidden subcommands of the bench.
#[derive(Debug, Args)]
pub(super) struct ReaderOptions {
    /// With lxcfs
    #[arg(long)]
    lxcfs: bool,
}

/// The lengths and the numbers of measurements.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// The rounds: the turns of each subject.
    rounds: usize,
    /// The length of one measurement of a loop.
    span: Duration,
    /// The number of pauses in one measurement of first reads.
    silences: u64,
    /// The number of timed attachments with one number of containers.
    attachments: usize,
    /// The time without reads in which wake-ups are counted.
    idle: Duration,
}

impl Effort {
    fn of(options: &Options) -> Self {
        if options.quick {
            Self {
                rounds: 3,
                span: Duration::from_millis(10),
                silences: 4,
                attachments: 20,
                idle: Duration::from_secs(2),
            }
        } else {
            Self {
                rounds: 7,
                span: Duration::from_millis(25),
                silences: 10,
                attachments: 100,
                idle: Duration::from_secs(10),
            }
        }
    }
}

/// Runs the whole command.
pub(super) fn main(options: &Options, out: &mut Output) -> Result<()> {
    super::need_root("bench")?;
    if options.peer == Some(Peer::Lxcfs) {
        peer::check()?;
    }
    let is_view = |path: &&String| EMULATORS.iter().any(|view| view.facts().path == **path);
    if let Some(unknown) = options.views.iter().find(|path| !is_view(path)) {
        return Err(Error::not_found(format!("there is no view of {unknown}"))
            .remedy("`eci-fs show PID` lists all views"));
    }
    let stop = Stop {
        signals: Signals::block_with(&[])?,
    };
    let effort = Effort::of(options);
    let mut report = report::Report::begin(options.quick);
    // Many containers are measured first, with another daemon: nothing has been read from that one, so no sampler
    // wakes it up.
    let counts: Vec<usize> = options
        .containers
        .iter()
        .copied()
        .filter(|count| *count > 0)
        .collect();
    let cgroups = Cgroups::create(&limits())?;
    let measured = measure(options, &counts, &cgroups, effort, &stop, &mut report);
    let removed = cgroups.remove();
    measured?;
    removed?;
    writeln!(out, "{}", table::text(&report));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|e| Error::io("encode", path, std::io::Error::from(e)))?;
        write(path, &text)?;
    }
    if let Some(path) = &options.svg {
        write(path, &chart::draw(&report))?;
    }
    Ok(())
}

fn measure(
    options: &Options,
    counts: &[usize],
    cgroups: &Cgroups,
    effort: Effort,
    stop: &Stop,
    report: &mut report::Report,
) -> Result<()> {
    report.scale = scale::measure(counts, cgroups, effort, stop)?;
    views::measure(options, cgroups, effort, stop, report)
}

/// Returns the limits of the containers. There is a limit of each kind, so that views compute everything, and none
/// slows the measurement down.
fn limits() -> Limits {
    Limits {
        memory: Some(4 << 30),
        cpus: Some(64.0),
        ..Limits::default()
    }
}

fn write(path: &std::path::Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| Error::io("write", path, e))
}

/// The request of the user to end the bench. It is checked between measurements, so that everything is undone in
/// order.
#[derive(Debug)]
struct Stop {
    signals: Signals,
}

impl Stop {
    /// Checks for a signal.
    ///
    /// # Errors
    /// When a signal has come that asks to end.
    fn check(&self) -> Result<()> {
        while let Some(info) = self.signals.next() {
            let ends = [
                Signal::SIGINT,
                Signal::SIGTERM,
                Signal::SIGHUP,
                Signal::SIGQUIT,
            ];
            if ends.iter().any(|signal| *signal as u32 == info.ssi_signo) {
                return Err(Error::refused("interrupted; everything is undone"));
            }
        }
        Ok(())
    }
}
