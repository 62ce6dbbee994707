//! The length of a run, the rate of its disturbances, and the seed of their moments.

use std::time::Duration;

/// Set by `cargo xtask soak`, in minutes.
const MINUTES: &str = "ECI_FS_SOAK_MINUTES";

/// The seed of a run that is to be repeated.
const SEED: &str = "ECI_FS_SOAK_SEED";

/// The length of a run of which nothing is said, where one kind of thing happens, and where all do.
const SHORT: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(10)];

/// How many containers there are then, and otherwise.
const FEW: usize = 6;
const CONTAINERS: usize = 20;

/// The size of one run.
#[derive(Debug)]
pub(crate) struct Scale {
    /// How long the readers read.
    pub(crate) span: Duration,
    /// Whether somebody asked for more than the short run.
    pub(crate) long: bool,
    /// Where all random numbers come from.
    pub(crate) seed: u64,
    /// Among how many containers.
    pub(crate) containers: usize,
}

impl Scale {
    /// What the environment says, of a run in which one thing happens, or all do.
    #[track_caller]
    pub(crate) fn read(all: bool) -> Self {
        let minutes: Option<f64> = number(MINUTES);
        let long = minutes.is_some();
        Self {
            span: match minutes {
                Some(minutes) => Duration::from_secs_f64(minutes * 60.0),
                None => SHORT[usize::from(all)],
            },
            long,
            containers: if all || long { CONTAINERS } else { FEW },
            seed: number(SEED).unwrap_or_else(|| fastrand::u64(..)),
        }
    }

    /// How many of what a long run has `long` times: in proportion in the short one, and at least one.
    pub(crate) fn times(&self, long: u32, short: u32) -> u32 {
        if self.long { long } else { short.max(1) }
    }
}

#[track_caller]
fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name}={text:?} is no number"),
    }
}
