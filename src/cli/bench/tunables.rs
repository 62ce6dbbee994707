//! Tunables, which are written, too.

use eci_fs_protocol::error::Result;

use super::contained::Reader;
use super::harmless::KERNELS;
use super::reader::Way;
use super::report::Tunable;
use super::views::{Subjects, job};
use super::{Effort, Options, Stop};

/// What stands for all: a number in a range, any number, and one whose handler wants a capability.
const TUNABLES: [&str; 3] = [
    "/proc/sys/vm/swappiness",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/dmesg_restrict",
];

/// How long reading and writing may take, of the kernel's own time.
const GOAL: f64 = 6.0;

/// Measure them, or those that were asked for.
pub(super) fn measure(
    kernel: &Reader,
    ours: &Reader,
    options: &Options,
    effort: Effort,
    stop: &Stop,
) -> Result<Vec<Tunable>> {
    let subjects = Subjects {
        kernel,
        ours,
        lxcfs: None,
    };
    TUNABLES
        .into_iter()
        .filter(|path| options.views.is_empty() || options.views.iter().any(|view| view == path))
        .map(|path| {
            let kernels = job(KERNELS, Way::Write, effort);
            let write = job(path, Way::Write, effort);
            Ok(Tunable {
                path: path.to_owned(),
                read: subjects.compare(&job(path, Way::Open, effort), effort.rounds, stop)?,
                write: subjects.compare_with(&write, &kernels, effort.rounds, stop)?,
                written: KERNELS,
                goal: GOAL,
            })
        })
        .collect()
}
