//! When the threads of a container are counted, and by whom.

use std::time::{Duration, Instant};

use eci_fs_emulators::{Effort, Load, Threads, next_load};

/// The kernel's `LOAD_FREQ`.
pub(super) const STEP: Duration = Duration::from_secs(5);

/// The most steps that are taken at once. After an hour of them all averages have long settled.
const MOST_STEPS: u128 = 720;

/// A container is sampled for this long after its load was read last.
pub(super) const INTEREST: Duration = Duration::from_secs(15 * 60);

/// The greatest age of a count that a reader is shown, where counting takes little.
const RECOUNT: Duration = Duration::from_secs(1);

/// The longest that a count may take on a reader's time.
const BRIEF: Duration = Duration::from_millis(3);

/// A count takes at most one part in so many of the time until the next one.
const SHARE: u32 = 100;

/// The load of one container, and when and how it was counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// The averages and the threads.
    pub(super) load: Load,
    /// The time up to which the averages go.
    pub(super) until: Instant,
    /// The time at which the threads were counted last.
    at: Instant,
    /// The CPU time that this count took.
    cost: Duration,
    /// The time at which somebody read it last.
    pub(super) asked: Instant,
    /// True while the sampler has it in its list.
    pub(super) sampled: bool,
    /// True if only the sampler counts the threads, because there are too many for a reader.
    heavy: bool,
    /// True if a reader would like to have them counted.
    wanted: bool,
}

/// A count of threads, and what it took.
pub(super) struct Count {
    /// The threads.
    pub(super) threads: Threads,
    /// The time at which they were counted.
    pub(super) at: Instant,
    /// The CPU time that it took.
    pub(super) cost: Duration,
}

/// The work of a reader before it has the load.
#[derive(Debug, PartialEq)]
pub(super) enum Due {
    /// Nothing: the last count is good enough, or the best there is.
    Nothing(Load),
    /// To have the sampler count.
    Sampler(Load),
    /// To count if that takes little, else to show the last count.
    Few(Load),
    /// To count all threads: nobody has, or not for a long time.
    Full,
}

impl Counted {
    /// Returns a load that was counted up to `at`. The sampler has it, and its reader has just come.
    pub(super) fn new(load: Load, at: Instant) -> Self {
        Self {
            load,
            until: at,
            at,
            cost: Duration::ZERO,
            asked: Instant::now(),
            sampled: true,
            heavy: false,
            wanted: false,
        }
    }

    /// Returns what a reader has to do, and notes that there is one.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        self.asked = now;
        if !self.sampled {
            return Due::Full;
        }
        if now.duration_since(self.at) < RECOUNT || !self.is_affordable(now) {
            return Due::Nothing(self.load);
        }
        match (self.heavy, self.wanted) {
            (false, _) => Due::Few(self.load),
            (true, true) => Due::Nothing(self.load),
            (true, false) => {
                self.wanted = true;
                Due::Sampler(self.load)
            }
        }
    }

    /// Returns whether a reader who came now would have to count threads.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let is_recent = now.saturating_duration_since(self.at) < RECOUNT;
        !self.sampled || !self.heavy && !is_recent && self.is_affordable(now)
    }

    /// Returns whether the container may be counted again, by what the last count took.
    pub(super) fn is_affordable(&self, now: Instant) -> bool {
        now.duration_since(self.at) >= self.cost * SHARE
    }

    /// Has the sampler count, because it is too much for a reader.
    pub(super) fn leave_to_the_sampler(&mut self) {
        self.heavy = true;
        self.wanted = true;
    }

    /// Returns whether the sampler has to do anything.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        self.wanted || self.steps(now) > 0
    }

    /// Returns how many steps of the averages are due.
    fn steps(&self, now: Instant) -> u128 {
        now.duration_since(self.until).as_nanos() / STEP.as_nanos()
    }

    /// Takes over a count.
    pub(super) fn set(&mut self, count: &Count) {
        self.load.threads = count.threads;
        self.at = count.at;
        self.cost = count.cost;
        self.wanted = false;
        let total = usize::try_from(count.threads.total).unwrap_or(usize::MAX);
        self.heavy = total > Effort::OF_A_READ.threads || count.cost > BRIEF;
    }

    /// Brings the averages up to `now`, with the present threads. Returns whether there was a step to take.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        let steps = self.steps(now);
        let active = self.load.threads.active();
        for _ in 0..steps.min(MOST_STEPS) {
            self.load.avenrun = next_load(self.load.avenrun, active);
        }
        self.until += STEP * u32::try_from(steps).unwrap_or(u32::MAX);
        steps > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn threads(running: u32, total: u32) -> Threads {
        Threads {
            running,
            total,
            ..Threads::default()
        }
    }

    /// A load that was counted at `at`, which took so long.
    fn counted(running: u32, total: u32, at: Instant, cost: Duration) -> Counted {
        let mut counted = Counted::new(Load::default(), at);
        counted.set(&Count {
            threads: threads(running, total),
            at,
            cost,
        });
        counted
    }

    #[test]
    fn a_reader_counts_when_the_last_count_is_a_second_old() {
        let at = Instant::now();
        let mut few = counted(3, 5, at, MS);
        assert_eq!(few.due(at + 999 * MS), Due::Nothing(few.load));
        assert_eq!(few.due(at + 1000 * MS), Due::Few(few.load));
        assert_eq!(few.asked, at + 1000 * MS);
    }

    #[test]
    fn many_threads_are_left_to_the_sampler_which_is_asked_once() {
        let at = Instant::now();
        let later = at + 1000 * MS;
        for mut many in [
            counted(3, 257, at, MS),
            counted(3, 5, at, 4 * MS),
            counted(3, 5, at, 10 * MS),
        ] {
            assert!(!many.has_work(later));
            assert_eq!(many.due(later), Due::Sampler(many.load));
            assert!(many.has_work(later));
            assert_eq!(many.due(later), Due::Nothing(many.load));
            // The next count says whether a reader can do it again.
            many.set(&Count {
                threads: threads(1, 1),
                at: later,
                cost: MS,
            });
            assert!(!many.has_work(later));
            assert_eq!(many.due(later + 1000 * MS), Due::Few(many.load));
        }
    }

    #[test]
    fn a_count_takes_at_most_a_hundredth_of_the_time() {
        let at = Instant::now();
        let mut dear = counted(3, 100_000, at, 200 * MS);
        for ms in [1000, 5000, 19_999] {
            assert_eq!(dear.due(at + ms * MS), Due::Nothing(dear.load));
            assert!(!dear.is_affordable(at + ms * MS));
        }
        assert!(dear.has_work(at + 5000 * MS), "the steps go on");
        assert_eq!(dear.due(at + 20_000 * MS), Due::Sampler(dear.load));
        assert!(dear.is_affordable(at + 20_000 * MS));
    }

    #[test]
    fn the_averages_take_each_step_once_whoever_takes_it() {
        let at = Instant::now();
        let mut load = counted(1, 1, at, MS);
        assert!(!load.advance(at + 4999 * MS));
        assert!(load.advance(at + 5000 * MS));
        assert!(!load.advance(at + 9999 * MS));
        let once = load.load.avenrun;
        assert_eq!(once, next_load([0; 3], 1));
        assert!(load.advance(at + 10_001 * MS));
        assert_eq!(load.load.avenrun, next_load(once, 1));
    }

    #[test]
    fn after_a_time_without_readers_the_averages_go_on_with_the_present_count() {
        let at = Instant::now();
        let mut load = counted(4, 4, at, MS);
        load.advance(at + 3600 * 1000 * MS);
        let [.., before] = load.load.avenrun;
        load.sampled = false;
        let later = at + 2 * 3600 * 1000 * MS;
        assert_eq!(load.due(later), Due::Full);
        load.set(&Count {
            threads: threads(0, 4),
            at: later,
            cost: MS,
        });
        assert!(load.advance(later));
        // exp(-4) of the average over 15 minutes is left; the kernel's numbers round it.
        let [one, _, fifteen] = load.load.avenrun;
        assert_eq!(one, 0);
        assert!(fifteen < before / 40, "{fifteen} of {before}");
    }
}
