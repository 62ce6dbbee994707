//! A container whose calls are answered: its figures, and the CPU time that is spent for it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eci_fs_protocol::vet;
use parking_lot::{Condvar, Mutex};

use super::figures::Figures;
use super::host::Host;

/// The time in which a call gets its figures. After that it fails: the host's figures are no answer.
const LIMIT: Duration = Duration::from_secs(2);

/// The time after which it is looked again for figures that could not be had.
const PAUSE: Duration = Duration::from_millis(100);

/// The time that the daemon has to name the views of a container.
const NAMING_LIMIT: Duration = Duration::from_secs(1);

/// The time after which the daemon is asked again that could not be asked.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// The time that a container may use at once, whatever its share is.
const BURST: Duration = Duration::from_millis(100);

/// The time in which a container gets its share. One that has used it up waits for the share of this time, and not for each
/// call: a timer for each would cost more than the answers.
const PERIOD: Duration = Duration::from_millis(10);

/// The most threads that answer calls of one container at a time.
const MOST_THREADS: usize = 8;

/// The most time that one answer is counted with: the rest of it the supervisor waited.
const MOST: Duration = Duration::from_micros(100);

/// What holds for all containers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// The time for which figures are used again.
    pub(super) freshness: Duration,
    /// The CPU time that a container may cost in the long run, in percent of one CPU; 0 for no limit.
    pub(super) share: u32,
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    name: vet::Container,
    settings: Settings,
    state: Mutex<State>,
    changed: Condvar,
    account: Mutex<Account>,
    /// The number of threads that answer its calls.
    threads: AtomicUsize,
}

/// A thread that answers a call of a container.
#[derive(Debug)]
pub(super) struct InHand<'a>(&'a AtomicUsize);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct State {
    /// Its meminfo, uptime and loadavg, as places.
    views: Option<Arc<[OwnedFd; 3]>>,
    /// The number of answers of the daemon so far.
    named: u64,
    /// The last figures, and when they were begun to be read.
    last: Option<(Instant, Figures)>,
    /// The last time that none could be had.
    failed: Option<Instant>,
    /// The thread that reads them, and since when.
    reading: Option<Instant>,
}

/// The time that a container still has, as of a moment. It may be negative.
#[derive(Debug)]
struct Account {
    nanoseconds: i64,
    at: Instant,
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

impl Container {
    pub(super) fn new(name: vet::Container, settings: Settings) -> Self {
        Self {
            name,
            settings,
            state: Mutex::default(),
            changed: Condvar::new(),
            account: Mutex::new(Account {
                nanoseconds: nanoseconds(BURST),
                at: Instant::now(),
            }),
            threads: AtomicUsize::new(0),
        }
    }

    /// Counts this thread as one that answers a call of the container; none if so many do that already that no more may.
    pub(super) fn take_in_hand(&self) -> Option<InHand<'_>> {
        let before = self.threads.fetch_add(1, Ordering::SeqCst);
        let in_hand = InHand(&self.threads);
        (before < MOST_THREADS).then_some(in_hand)
    }

    /// Takes the answer of the daemon, which names the views of the container.
    pub(super) fn name_views(&self, views: Option<[OwnedFd; 3]>) {
        let mut state = self.state.lock();
        state.views = views.map(Arc::new);
        state.named += 1;
        self.changed.notify_all();
    }

    /// Returns figures that are fresh; none when there are none in bounded time. They are read by a thread of their own:
    /// whoever waits for a server waits with a limit.
    pub(super) fn figures(self: &Arc<Self>, host: &Arc<Host>) -> Option<Figures> {
        let asked = Instant::now();
        let mut state = self.state.lock();
        loop {
            if let Some((at, figures)) = state.last
                && (at >= asked || at.elapsed() < self.settings.freshness)
            {
                return Some(figures);
            }
            if state.failed.is_some_and(|at| at.elapsed() < PAUSE) {
                return None;
            }
            match state.reading {
                Some(since) if since.elapsed() >= LIMIT => return None,
                Some(_) => {}
                None => {
                    state.reading = Some(Instant::now());
                    let (this, host) = (Arc::clone(self), Arc::clone(host));
                    let spawned = std::thread::Builder::new()
                        .name("figures".to_owned())
                        .spawn(move || this.read(&host));
                    if let Err(error) = spawned {
                        tracing::warn!(%error, "no figures: a thread cannot be started");
                        state.reading = None;
                        state.failed = Some(Instant::now());
                        return None;
                    }
                }
            }
            if self
                .changed
                .wait_until(&mut state, asked + LIMIT)
                .timed_out()
            {
                return None;
            }
        }
    }

    /// Reads the views, and tells those that wait.
    fn read(&self, host: &Host) {
        let begun = Instant::now();
        let known = self.state.lock().views.clone();
        let figures = known
            .and_then(|views| host.read(views.as_ref()))
            // They are of a connection or of a slot that is no more, or were never named.
            .or_else(|| host.read(self.find_views(host)?.as_ref()));
        let mut state = self.state.lock();
        state.reading = None;
        match figures {
            Some(figures) => state.last = Some((begun, figures)),
            None => state.failed = Some(Instant::now()),
        }
        self.changed.notify_all();
    }

    /// Asks the daemon for the views. While there is none, or it takes nothing, it is asked again.
    fn find_views(&self, host: &Host) -> Option<Arc<[OwnedFd; 3]>> {
        let end = Instant::now() + NAMING_LIMIT;
        let mut state = self.state.lock();
        let before = state.named;
        let mut asked = false;
        while state.named == before {
            asked = asked || host.ask_for_views(&self.name).is_some();
            let until = match asked {
                true => end,
                false => end.min(Instant::now() + ASK_AGAIN),
            };
            let late = self.changed.wait_until(&mut state, until).timed_out();
            if late && Instant::now() >= end {
                return None;
            }
        }
        state.views.clone()
    }

    /// Counts an answer that took so long. Returns the time for which the container's next calls wait.
    pub(super) fn charge(&self, took: Duration) -> Option<Duration> {
        let share = i64::from(self.settings.share);
        if share == 0 {
            return None;
        }
        let mut account = self.account.lock();
        let now = Instant::now();
        let earned = nanoseconds(now - account.at).saturating_mul(share) / 100;
        let most = nanoseconds(BURST);
        account.nanoseconds = account.nanoseconds.saturating_add(earned).min(most);
        account.nanoseconds -= nanoseconds(took.min(MOST));
        account.at = now;
        let owed = u64::try_from(-account.nanoseconds).ok()?;
        let earning = Duration::from_nanos(owed.saturating_mul(100) / share.unsigned_abs());
        (owed > 0).then(|| earning + PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_used_its_share_waits_for_more_of_it() {
        let name = vet::Container {
            pid: 1,
            id: "c".to_owned(),
        };
        let freshness = Duration::ZERO;
        let container = Container::new(
            name.clone(),
            Settings {
                freshness,
                share: 25,
            },
        );
        let within = (0..999).filter_map(|_| container.charge(MOST)).count();
        assert_eq!(within, 0, "the burst is free");
        let owing = (0..2000).filter_map(|_| container.charge(Duration::from_secs(1)));
        let longest = owing.max().unwrap();
        // 100 us of each of 1999 answers cost four times as long, and what was earned meanwhile is subtracted.
        assert!(
            longest <= Duration::from_millis(800) + PERIOD,
            "{longest:?}"
        );
        assert!(longest > Duration::from_millis(100), "{longest:?}");
        let free = Container::new(
            name,
            Settings {
                freshness,
                share: 0,
            },
        );
        assert_eq!((0..5000).filter_map(|_| free.charge(MOST)).count(), 0);
    }

    #[test]
    fn a_container_holds_up_a_bounded_number_of_threads() {
        let name = vet::Container {
            pid: 1,
            id: "c".to_owned(),
        };
        let settings = Settings {
            freshness: Duration::ZERO,
            share: 0,
        };
        let container = Container::new(name, settings);
        let mut taken: Vec<_> = (0..MOST_THREADS)
            .map(|_| container.take_in_hand())
            .collect();
        assert!(taken.iter().all(Option::is_some));
        for _ in 0..3 {
            assert!(container.take_in_hand().is_none());
        }
        taken.pop();
        assert!(container.take_in_hand().is_some());
    }
}
