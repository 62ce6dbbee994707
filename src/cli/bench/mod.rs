//! `eci-fs bench`: how long reads of views take, beside the kernel's own files and beside lxcfs.
//!
//! It brings its own daemon and its own containers, and leaves nothing behind. Every figure is a ratio of
//! measurements that were taken in turns, round after round: a machine that is busy with something else is so for
//! all that are compared.
//!
//! - [`contained`] starts the processes that read, each in a mount and a pid namespace of its own; [`reader`] is
//!   what runs in them.
//! - [`views`] measures each view, [`tunables`] those that are written to, [`scale`] a daemon with up to a thousand
//!   containers. [`harmless`] keeps writes from the machine.
//! - [`report`] is what comes out; [`table`] and [`chart`] are how it is shown.

mod chart;
mod contained;
mod harmless;
mod histogram;
mod peer;
mod process;
mod reader;
mod report;
mod scale;
mod table;
mod tunables;
mod views;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use eci_fs_protocol::error::{Error, Result};
use nix::sys::signal::Signal;

use super::run::cgroup::Cgroups;
use super::run::limits::Limits;
use super::run::signals::Signals;
pub(super) use contained::{idle, stage};
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
    /// How many containers are attached when attaching, memory and reading are measured; 0 to leave that out
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

/// What a hidden process of the bench is told at its start.
#[derive(Debug, Args)]
pub(super) struct Inside {
    /// With lxcfs
    #[arg(long)]
    lxcfs: bool,
}

/// How long and how often is measured.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// Turns that each subject has.
    rounds: usize,
    /// One measurement of a loop.
    span: Duration,
    /// Silences in one measurement of first reads.
    silences: u64,
    /// Attachments that are timed with one number of containers.
    attachments: usize,
    /// How long nobody reads, to count what wakes up.
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

/// The whole command.
pub(super) fn main(options: &Options) -> Result<()> {
    super::need_root("bench")?;
    if options.peer == Some(Peer::Lxcfs) {
        peer::check()?;
    }
    let stop = Stop {
        signals: Signals::block_with(&[])?,
    };
    let effort = Effort::of(options);
    let mut report = report::Report::begin(options.quick);
    // The daemon of many containers comes first, and is another: nothing has ever been read from it, so what
    // wakes it up is not a sampler that somebody's read has started.
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
    table::print(&report);
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

/// What the containers are limited to: there is a limit of each kind, so that views have all to compute, and none
/// that would slow the measurement down.
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

/// Whether somebody wants the bench to end. Asked between measurements: what was begun is then undone in order.
#[derive(Debug)]
struct Stop {
    signals: Signals,
}

impl Stop {
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
