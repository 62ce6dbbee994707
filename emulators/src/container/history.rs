//! The counters that a container was shown last. They keep a counter from falling when limits or servers change.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The counters of one row of /proc/stat that are not always zero, in USER_HZ ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of the columns in proc_stat(5)")]
pub struct Counters {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    pub steal: u64,
}

impl Counters {
    /// Combines two rows, column by column.
    pub(crate) fn zip(self, other: Counters, f: impl Fn(u64, u64) -> u64) -> Counters {
        Counters {
            user: f(self.user, other.user),
            nice: f(self.nice, other.nice),
            system: f(self.system, other.system),
            idle: f(self.idle, other.idle),
            steal: f(self.steal, other.steal),
        }
    }

    /// Returns the sum of the columns.
    pub fn sum(&self) -> u64 {
        [self.user, self.nice, self.system, self.idle, self.steal]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// A group of counters that never fall.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Track {
    /// The values that were shown last.
    last: Counters,
    /// This is added to the computed values. After a change of the visible CPUs the computed values can be lower than
    /// those that were shown. With this difference the counters go on at once; without it they would stand still
    /// until they have caught up.
    carry: Counters,
}

impl Track {
    fn show(&mut self, raw: Counters, rebase: bool) -> Counters {
        if rebase {
            self.carry = self.last.zip(raw, u64::saturating_sub);
        }
        self.last = raw
            .zip(self.carry, u64::saturating_add)
            .zip(self.last, u64::max);
        self.last
    }

    fn merge(&mut self, other: Track) {
        self.last = self.last.zip(other.last, u64::max);
        self.carry = self.carry.zip(other.carry, u64::max);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    cpu: u32,
    visible: bool,
    track: Track,
}

/// The counters that were shown last as a plain value, for the state that outlives a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    rows: Vec<Row>,
    total: Track,
    processes: u32,
}

/// The counters that a container was shown last. The lock is never held during file I/O.
#[derive(Debug, Default)]
pub struct History {
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    shown: Shown,
    generation: u64,
}

impl History {
    /// Returns an empty history.
    pub fn new() -> History {
        History::default()
    }

    /// Returns how often the counters have changed.
    pub fn generation(&self) -> u64 {
        self.now.lock().generation
    }

    /// Returns the counters, and their [`Self::generation`].
    pub fn snapshot(&self) -> (u64, Shown) {
        let now = self.now.lock();
        (now.generation, now.shown.clone())
    }

    /// Merges the counters that a former server has shown.
    pub fn restore(&self, former: Shown) {
        let mut now = self.now.lock();
        now.generation += 1;
        let shown = &mut now.shown;
        for row in former.rows {
            match shown.rows.iter_mut().find(|ours| ours.cpu == row.cpu) {
                Some(ours) => ours.track.merge(row.track),
                None => shown.rows.push(row),
            }
        }
        shown.total.merge(former.total);
        shown.processes = shown.processes.max(former.processes);
    }

    /// Replaces the computed rows by those to be shown, and returns their total. The total is the sum of the rows
    /// until the visible CPUs change. From then on it includes the time of CPUs that are not visible any more, as the
    /// kernel's total includes CPUs that went offline.
    pub(crate) fn show_rows(&self, rows: &mut [(u32, Counters)]) -> Counters {
        let mut guard = self.now.lock();
        let Now { shown, generation } = &mut *guard;
        let first = shown.rows.is_empty();
        let same = shown.rows.iter().filter(|row| row.visible).count() == rows.len()
            && rows
                .iter()
                .all(|(cpu, _)| shown.rows.iter().any(|row| row.visible && row.cpu == *cpu));
        let rebase = !same && !first;
        let mut changed = !same;
        if !same {
            shown.rows.iter_mut().for_each(|row| row.visible = false);
        }
        let mut sum = Counters::default();
        for (cpu, counters) in rows.iter_mut() {
            *counters = match shown.rows.iter_mut().find(|row| row.cpu == *cpu) {
                Some(row) => {
                    row.visible = true;
                    let before = row.track;
                    let counters = row.track.show(*counters, rebase);
                    changed |= row.track != before;
                    counters
                }
                None => {
                    let track = Track {
                        last: *counters,
                        carry: Counters::default(),
                    };
                    shown.rows.push(Row {
                        cpu: *cpu,
                        visible: true,
                        track,
                    });
                    *counters
                }
            };
            sum = sum.zip(*counters, u64::saturating_add);
        }
        *generation += u64::from(changed);
        shown.total.show(sum, rebase)
    }

    /// Returns the highest pid that was ever seen, including `pid`.
    pub(crate) fn show_processes(&self, pid: u32) -> u32 {
        let mut now = self.now.lock();
        if now.shown.processes < pid {
            now.shown.processes = pid;
            now.generation += 1;
        }
        now.shown.processes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(cpu: u32, user: u64, idle: u64) -> (u32, Counters) {
        (
            cpu,
            Counters {
                user,
                idle,
                ..Counters::default()
            },
        )
    }

    #[test]
    fn a_counter_that_falls_stands_still() {
        let history = History::new();
        history.show_rows(&mut [row(0, 5, 100)]);
        let mut rows = [row(0, 7, 99)];
        let total = history.show_rows(&mut rows);
        assert_eq!(rows, [row(0, 7, 100)]);
        assert_eq!(total, rows[0].1);
    }

    #[test]
    fn the_total_goes_on_at_once_when_cpus_go() {
        let history = History::new();
        history.show_rows(&mut [row(0, 5, 100), row(1, 5, 100)]);
        let total = history.show_rows(&mut [row(0, 10, 100)]);
        assert_eq!((total.user, total.idle), (10, 200));
        let total = history.show_rows(&mut [row(0, 11, 110)]);
        assert_eq!((total.user, total.idle), (11, 210));
    }

    #[test]
    fn a_cpu_that_comes_back_goes_on_where_it_was() {
        let history = History::new();
        history.show_rows(&mut [row(0, 0, 10), row(1, 0, 50)]);
        history.show_rows(&mut [row(0, 0, 20)]);
        let mut rows = [row(0, 0, 30), row(1, 0, 40)];
        history.show_rows(&mut rows);
        assert_eq!(rows[1].1.idle, 50);
        rows[1].1.idle = 45;
        rows[0].1.idle = 35;
        history.show_rows(&mut rows);
        assert_eq!(rows[1].1.idle, 55);
    }

    #[test]
    fn a_history_that_shows_the_same_again_is_of_the_same_generation() {
        let history = History::new();
        let generation = |history: &History| history.snapshot().0;
        assert_eq!(generation(&history), 0);
        history.show_rows(&mut [row(0, 5, 100), row(1, 5, 100)]);
        let first = generation(&history);
        assert!(first > 0);
        history.show_rows(&mut [row(1, 5, 100), row(0, 4, 99)]);
        assert_eq!(generation(&history), first);
        history.show_rows(&mut [row(1, 5, 101), row(0, 5, 100)]);
        let second = generation(&history);
        assert!(second > first);
        history.show_rows(&mut [row(1, 5, 101)]);
        assert!(generation(&history) > second, "a row is gone");
        let third = generation(&history);
        history.show_processes(7);
        assert!(generation(&history) > third);
        let fourth = generation(&history);
        history.show_processes(6);
        assert_eq!(generation(&history), fourth);
    }

    #[test]
    fn a_restored_history_keeps_counters_from_falling() {
        let old = History::new();
        old.show_rows(&mut [row(0, 5, 100)]);
        old.show_processes(77);
        let new = History::new();
        new.restore(old.snapshot().1);
        assert_eq!(new.snapshot().1, old.snapshot().1);
        let total = new.show_rows(&mut [row(0, 4, 90)]);
        assert_eq!((total.user, total.idle), (5, 100));
        assert_eq!(new.show_processes(3), 77);
    }

    proptest! {
        #[test]
        fn nothing_ever_falls(
            steps in proptest::collection::vec(
                proptest::collection::btree_map(0u32..6, any::<(u32, u32)>(), 1..6),
                1..20,
            ),
        ) {
            let history = History::new();
            let mut last_total = Counters::default();
            let mut last = std::collections::BTreeMap::new();
            for step in steps {
                let mut rows: Vec<_> = step
                    .into_iter()
                    .map(|(cpu, (user, idle))| row(cpu, user.into(), idle.into()))
                    .collect();
                let total = history.show_rows(&mut rows);
                prop_assert_eq!(total.zip(last_total, u64::max), total);
                last_total = total;
                for (cpu, counters) in rows {
                    let before = last.insert(cpu, counters).unwrap_or_default();
                    prop_assert_eq!(counters.zip(before, u64::max), counters);
                }
            }
        }
    }
}
