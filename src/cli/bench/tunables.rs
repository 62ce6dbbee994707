//! Measurements of tunables, which are also written.

use eci_fs_protocol::error::Result;

use super::containers::Reader;
use super::reader::Way;
use super::report::Tunable;
use super::subjects::{Subjects, job};
use super::write_guard::KERNEL_TUNABLE;
use super::{Effort, Options, Stop};

/// The measured tunables: a number in a range, any number, and one whose handler requires a capability.
const TUNABLES: [&str; 3] = [
    "/proc/sys/vm/swappiness",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/dmesg_restrict",
];

/// The goal for reading and writing: at most this multiple of the kernel's time.
const GOAL: f64 = 6.0;

/// Measures all tunables, or the requested ones.
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
            let kernel_job = job(KERNEL_TUNABLE, Way::Write, effort);
            let write = job(path, Way::Write, effort);
            Ok(Tunable {
                path: path.to_owned(),
                read: subjects.compare(&job(path, Way::Open, effort), effort.rounds, stop)?,
                write: subjects.compare_with(&write, &kernel_job, effort.rounds, stop)?,
                written: KERNEL_TUNABLE,
                goal: GOAL,
            })
        })
        .collect()
}
