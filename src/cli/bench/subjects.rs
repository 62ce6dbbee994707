//! The subjects of a measurement, and the comparison of the same job in all of them.

use eci_fs_protocol::error::Result;

use super::containers::Reader;
use super::histogram::median;
use super::reader::{Job, Limit, Sample, Way};
use super::report::{Compared, Times};
use super::{Effort, Stop};

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

/// Returns the name of a way, as the report has it.
pub(super) fn name(way: Way) -> &'static str {
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
