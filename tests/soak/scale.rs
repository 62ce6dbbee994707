//! How long a run is, how often it is disturbed, and from which seed its moments come.

use std::time::Duration;

/// Set by `cargo xtask soak`, in minutes.
const MINUTES: &str = "ECI_FS_SOAK_MINUTES";

/// The seed of a run that is to be repeated.
const SEED: &str = "ECI_FS_SOAK_SEED";

/// The length of a run of which nothing is said.
const SHORT: Duration = Duration::from_secs(8);

/// The size of one run.
#[derive(Debug)]
pub(crate) struct Scale {
    /// How long the readers read.
    pub(crate) span: Duration,
    /// Whether somebody asked for more than the short run.
    pub(crate) long: bool,
    /// Where all random numbers come from.
    pub(crate) seed: u64,
}

impl Scale {
    /// What the environment says.
    #[track_caller]
    pub(crate) fn read() -> Self {
        let minutes: Option<f64> = number(MINUTES);
        Self {
            span: minutes.map_or(SHORT, |minutes| Duration::from_secs_f64(minutes * 60.0)),
            long: minutes.is_some(),
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
