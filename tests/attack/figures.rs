//! What was measured beside the control and beside the attack, and how the two compare.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::neighbour::{FILES, Measured};
use crate::round::Row;
use crate::starts::WAYS;

/// The most that the median may be beside the attack, as a multiple of that beside the control.
const MEDIAN: f64 = 2.0;

/// The same of the 99th percentile.
const TAIL: f64 = 3.0;

/// The figures of one half of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Half {
    passes: u64,
    /// What did not work.
    pub(crate) failures: Vec<String>,
    times: BTreeMap<String, Vec<u64>>,
    /// What the threads of the attacker did.
    pub(crate) done: u64,
    /// True if some of them waited at the end.
    pub(crate) waits: bool,
    pub(crate) errors: Vec<Value>,
    pub(crate) attacker_usec: u64,
    pub(crate) server_usec: u64,
}

impl Half {
    /// Adds what one round has measured.
    pub(crate) fn add(&mut self, measured: Measured) {
        self.passes += measured.passes;
        self.failures.extend(measured.failures);
        for (what, times) in measured.times {
            self.times.entry(what).or_default().extend(times);
        }
    }

    /// Returns a percentile in nanoseconds.
    fn percentile(&self, what: &str, hundredths: usize) -> u64 {
        let mut times = self.times.get(what).cloned().unwrap_or_default();
        times.sort_unstable();
        percentile(&times, hundredths)
    }
}

/// Returns the value that so many hundredths of the sorted values do not exceed.
fn percentile(sorted: &[u64], hundredths: usize) -> u64 {
    let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

/// The figures of one attack with one number of threads.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// While the threads of the attacker do nothing.
    pub(crate) idle: Half,
    pub(crate) control: Half,
    pub(crate) attack: Half,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ratio {
    what: &'static str,
    /// The nanoseconds of the median while the attacker does nothing.
    idle: u64,
    /// Nanoseconds beside the control and beside the attack, each the median and the 99th percentile.
    control: [u64; 2],
    attack: [u64; 2],
}

impl Ratio {
    /// Returns how many times as long it took beside the attack, for the median and for the 99th percentile.
    fn ratios(&self) -> [f64; 2] {
        [0, 1].map(|index| self.attack[index] as f64 / self.control[index].max(1) as f64)
    }

    /// Returns how many times as long the median was as while the attacker did nothing. Starts are not measured then.
    fn of_idle(&self) -> Option<f64> {
        (self.idle > 0).then(|| self.attack[0] as f64 / self.idle as f64)
    }

    /// Returns whether both are within the bounds. Of starts there are too few for a percentile.
    fn holds(&self) -> bool {
        let [median, tail] = self.ratios();
        median <= MEDIAN && (tail <= TAIL || WAYS.contains(&self.what))
    }
}

impl Figures {
    /// Returns the comparisons.
    pub(crate) fn ratios(&self) -> Vec<Ratio> {
        let ratio = |what| {
            let both = |half: &Half| [50, 99].map(|hundredths| half.percentile(what, hundredths));
            Ratio {
                what,
                idle: self.idle.percentile(what, 50),
                control: both(&self.control),
                attack: both(&self.attack),
            }
        };
        FILES.into_iter().chain(WAYS).map(ratio).collect()
    }

    /// Returns whether all bounds hold.
    pub(crate) fn hold(&self) -> bool {
        self.ratios().iter().all(Ratio::holds) && self.failures().is_empty()
    }

    /// Returns what did not work in either half.
    pub(crate) fn failures(&self) -> Vec<&str> {
        [&self.idle, &self.control, &self.attack]
            .iter()
            .flat_map(|half| half.failures.iter().map(String::as_str))
            .collect()
    }

    /// Writes the figures for `cargo xtask attack`, which makes a table of all of them.
    ///
    /// # Panics
    /// When they cannot be written.
    #[track_caller]
    pub(crate) fn write(&self, dir: &Path, row: &Row, threads: usize, tries: usize) {
        let ratios = self.ratios();
        let ratios: Vec<Value> = ratios
            .iter()
            .map(|ratio| {
                json!({
                    "what": ratio.what,
                    "idle_ns": ratio.idle,
                    "of_idle": ratio.of_idle(),
                    "control_ns": ratio.control,
                    "attack_ns": ratio.attack,
                    "ratios": ratio.ratios(),
                    "holds": ratio.holds(),
                })
            })
            .collect();
        let half = |half: &Half| {
            json!({
                "passes": half.passes,
                "done": half.done,
                "errors": half.errors,
                "attacker_us": half.attacker_usec,
                "server_us": half.server_usec,
                "failures": half.failures,
            })
        };
        let figures = json!({
            "attack": row.attack,
            "says": row.says,
            "threads": threads,
            "tries": tries,
            "holds": self.hold(),
            "ratios": ratios,
            "control": half(&self.control),
            "under_attack": half(&self.attack),
        });
        std::fs::create_dir_all(dir).unwrap();
        let path = dir.join(format!("{}-{threads}.json", row.attack));
        std::fs::write(path, format!("{figures:#}\n")).unwrap();
    }

    /// Prints the figures.
    pub(crate) fn print(&self, attack: &str, threads: usize) {
        println!(
            "{attack} with {threads} threads: {} times and errors {:?}; attacker {} ms, server {} ms of CPU; {} passes \
             beside the control and {} beside the attack",
            self.attack.done,
            self.attack.errors,
            self.attack.attacker_usec / 1000,
            self.attack.server_usec / 1000,
            self.control.passes,
            self.attack.passes,
        );
        for ratio in self.ratios() {
            let [median, tail] = ratio.ratios();
            let usec = |nsec: [u64; 2]| nsec.map(|nsec| nsec as f64 / 1000.0);
            let ([p50, p99], [attack50, attack99]) = (usec(ratio.control), usec(ratio.attack));
            let of_idle = ratio.of_idle();
            let of_idle = of_idle.map_or_else(String::new, |of| format!(", of idle {of:5.2}"));
            println!(
                "  {:52} p50 {p50:9.1} -> {attack50:9.1} us ({median:5.2}{of_idle})  p99 {p99:9.1} -> \
                 {attack99:9.1} us ({tail:5.2}){}",
                ratio.what.trim_end(),
                if ratio.holds() { "" } else { "  OVER" }
            );
        }
    }
}

#[test]
fn a_percentile_is_a_value_that_was_measured() {
    let values: Vec<u64> = (1..=200).collect();
    assert_eq!(percentile(&values, 50), 100);
    assert_eq!(percentile(&values, 99), 198);
    assert_eq!(percentile(&[7], 50), 7);
    assert_eq!(percentile(&[7], 99), 7);
    assert_eq!(percentile(&[], 99), 0);
}

#[test]
fn a_median_of_twice_the_controls_holds_and_a_longer_one_does_not() {
    let ratio = |attack| Ratio {
        what: FILES[0],
        idle: 1000,
        control: [1000, 2000],
        attack,
    };
    assert!(ratio([2000, 6000]).holds());
    assert!(!ratio([2001, 6000]).holds());
    assert!(!ratio([2000, 6001]).holds());
    let start = Ratio {
        what: WAYS[0],
        ..ratio([2000, 60_000])
    };
    assert!(start.holds());
}
