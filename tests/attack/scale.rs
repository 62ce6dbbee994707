//! The length of a run. `cargo xtask attack` sets the variables.

use std::path::PathBuf;
use std::time::Duration;

/// The number of rounds, each with a control and an attack.
const ROUNDS: &str = "ECI_FS_ATTACK_ROUNDS";

/// The seconds for which the neighbour measures in each half of a round.
const SECONDS: &str = "ECI_FS_ATTACK_SECONDS";

/// The numbers of threads, with commas.
const THREADS: &str = "ECI_FS_ATTACK_THREADS";

/// The directory to which the figures are written.
const FIGURES: &str = "ECI_FS_ATTACK_FIGURES";

/// Set if the attacker is to have a server of its own.
const APART: &str = "ECI_FS_ATTACK_APART";

/// The size of one run.
#[derive(Debug)]
pub(crate) struct Scale {
    /// The number of rounds.
    pub(crate) rounds: usize,
    /// The time for which the neighbour measures in each half of a round.
    pub(crate) span: Duration,
    /// The number of times that containers are started in each half of a round.
    pub(crate) starts: usize,
    /// The numbers of threads of the attacker, one run with each.
    pub(crate) threads: Vec<usize>,
    /// The directory for the figures of a long run.
    pub(crate) figures: Option<PathBuf>,
    /// True if the attacker has a server of its own. Then the neighbour waits for nothing but CPUs.
    pub(crate) apart: bool,
}

impl Scale {
    /// Returns what the environment says, or the short run with `threads`.
    #[track_caller]
    pub(crate) fn read(threads: &[usize]) -> Self {
        let Some(rounds) = variable(ROUNDS) else {
            return Self {
                rounds: 1,
                span: Duration::from_millis(500),
                starts: 1,
                threads: threads.to_vec(),
                figures: None,
                apart: false,
            };
        };
        let threads = variable(THREADS).unwrap_or_else(|| "100,1000,14000".to_owned());
        Self {
            rounds: parse(ROUNDS, &rounds),
            span: Duration::from_secs_f64(
                variable(SECONDS).map_or(2.0, |text| parse(SECONDS, &text)),
            ),
            starts: 3,
            threads: threads
                .split(',')
                .map(|text| parse(THREADS, text))
                .collect(),
            figures: variable(FIGURES).map(PathBuf::from),
            apart: variable(APART).is_some(),
        }
    }
}

impl Scale {
    /// Returns whether the run is judged.
    pub(crate) fn is_long(&self) -> bool {
        self.figures.is_some()
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[track_caller]
fn parse<T: std::str::FromStr>(name: &str, text: &str) -> T {
    match text.trim().parse() {
        Ok(number) => number,
        Err(_) => panic!("{name}: {text:?} is no number"),
    }
}
