//! The account of a container: what the server does for it, and its share of the server's CPU time.
//!
//! The share is a token bucket. CPU time that is spent for a container is taken out, and comes back at the rate of the
//! share, up to [`BURST`]. While the bucket is empty, requests of the container wait, and those of others do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eci_fs_protocol::link::Usage;
use parking_lot::Mutex;

/// The CPU time that a container can use at once before its share counts: a thousand views and more. While it lasts, the
/// workers of one container compete for CPUs with those of others.
pub const BURST: Duration = Duration::from_millis(100);

/// A container whose bucket is empty waits until the share of so much time is in it. Then the server works for it in one piece,
/// and others have the rest of that time for themselves. With less, it would disturb them all the time.
const PERIOD: Duration = Duration::from_millis(100);

/// The most CPU time that a container owes.
const DEBT: Duration = Duration::from_secs(10);

/// A request of a container that takes longer than this is slow: it would be felt by others if they had to wait for it.
const SLOW: Duration = Duration::from_micros(300);

/// For this long after a slow request, no request of the container is computed where others wait. The time doubles when the
/// next request after it is slow again, up to [`SLOW_AT_MOST`]. So a container has few slow requests computed there.
const SLOW_FOR: Duration = Duration::from_secs(1);

/// The longest time of that kind. A container that had no slow request for as long begins with [`SLOW_FOR`] again.
const SLOW_AT_MOST: Duration = Duration::from_secs(64);

/// The CPU time of reading a request from the kernel and sorting it, which is not measured for a request that is
/// answered at once. A C program that did nothing else took 1.06 us.
pub const SORTING: Duration = Duration::from_micros(3);

/// The share of each container, in percent of one CPU; 0 for no limit.
#[derive(Debug, Clone, Default)]
pub struct Share(Arc<AtomicU32>);

impl Share {
    /// Sets the share.
    pub fn set(&self, percent: u32) {
        self.0.store(percent, Ordering::Relaxed);
    }

    fn percent(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The account of one container.
#[derive(Debug)]
pub struct Account {
    slot: u64,
    share: Share,
    requests: AtomicU64,
    refused: AtomicU64,
    cpu_nsec: AtomicU64,
    waiting: AtomicUsize,
    /// The number of requests that wait, or that a worker computes.
    busy: AtomicUsize,
    bucket: Mutex<Bucket>,
    /// True if the container is gone: nothing waits for its share any more.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Bucket {
    /// Nanoseconds of CPU time. It is below 0 after a request took more than was left.
    tokens: i64,
    /// The time at which the tokens were counted last.
    at: Instant,
    /// The time until which the container counts as slow.
    slow_until: Option<Instant>,
    /// The length of that time.
    slow_for: Duration,
    /// The time at which a refusal was logged last.
    warned: Option<Instant>,
}

impl Account {
    /// Opens an account for the container in `slot`, with a full bucket.
    pub fn new(slot: u64, share: Share, now: Instant) -> Self {
        Self {
            slot,
            share,
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            cpu_nsec: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            bucket: Mutex::new(Bucket {
                tokens: nsec(BURST),
                at: now,
                slow_until: None,
                slow_for: SLOW_FOR,
                warned: None,
            }),
            closed: AtomicBool::new(false),
        }
    }

    /// Returns the slot of the container.
    pub fn slot(&self) -> u64 {
        self.slot
    }

    /// Counts a request.
    pub fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether the container has not used up its share.
    pub fn is_within(&self, now: Instant) -> bool {
        self.ready_at(now) <= now
    }

    /// Returns the time from which on requests of the container are answered: `now`, or a later time if the bucket is
    /// empty.
    pub fn ready_at(&self, now: Instant) -> Instant {
        let percent = i64::from(self.share.percent());
        if percent == 0 || self.closed.load(Ordering::Relaxed) {
            return now;
        }
        let mut bucket = self.bucket.lock();
        bucket.refill(now, percent);
        if bucket.tokens > 0 {
            return now;
        }
        let quantum = (nsec(PERIOD) / 100 * percent).min(nsec(BURST));
        let missing = quantum.saturating_sub(bucket.tokens);
        let wait = missing.saturating_mul(100) / percent;
        now + Duration::from_nanos(u64::try_from(wait).unwrap_or(0))
    }

    /// Takes the CPU time of a request out of the bucket, which ended at `now`.
    pub fn charge(&self, now: Instant, cost: Duration) {
        self.spend(cost);
        if cost >= SLOW {
            self.bucket.lock().be_slow(now);
        }
    }

    /// Takes CPU time out of the bucket that was spent for the container otherwise.
    pub fn spend(&self, cost: Duration) {
        let cost = nsec(cost);
        self.cpu_nsec
            .fetch_add(u64::try_from(cost).unwrap_or(0), Ordering::Relaxed);
        let mut bucket = self.bucket.lock();
        // A flood of requests that are refused costs the container a while, and not hours.
        bucket.tokens = bucket.tokens.saturating_sub(cost).max(-nsec(DEBT));
    }

    /// Returns whether a request of the container was slow lately.
    pub fn is_slow(&self, now: Instant) -> bool {
        self.bucket
            .lock()
            .slow_until
            .is_some_and(|until| now < until)
    }

    /// Returns whether none of the container's requests waits, and none is computed by a worker.
    pub fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    /// Notes a request that begins to wait.
    pub fn enter(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a request that waits no more, because a worker has taken it. With `sleeps`, that one waits for something else
    /// than a CPU.
    pub fn taken(&self, sleeps: bool) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if sleeps {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Notes that a worker has done a request that was computed.
    pub fn done(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a refused request. Returns true once a minute at most: then it is to be logged.
    pub fn refuse(&self, now: Instant) -> bool {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut bucket = self.bucket.lock();
        let warns = bucket
            .warned
            .is_none_or(|warned| now.saturating_duration_since(warned) >= Duration::from_secs(60));
        if warns {
            bucket.warned = Some(now);
        }
        warns
    }

    /// Notes that the container is gone.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Returns the number of requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns the figures.
    pub fn usage(&self) -> Usage {
        Usage {
            cpu_usec: self.cpu_nsec.load(Ordering::Relaxed) / 1000,
            requests: self.requests.load(Ordering::Relaxed),
            waiting: self.waiting() as u64,
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

impl Bucket {
    /// Notes a slow request that ended at `now`.
    fn be_slow(&mut self, now: Instant) {
        self.slow_for = match self.slow_until {
            Some(until) if now < until => self.slow_for,
            Some(until) if now < until + SLOW_AT_MOST => (2 * self.slow_for).min(SLOW_AT_MOST),
            _ => SLOW_FOR,
        };
        self.slow_until = Some(now + self.slow_for);
    }

    fn refill(&mut self, now: Instant, percent: i64) {
        let passed = nsec(now.saturating_duration_since(self.at));
        let more = passed / 100 * percent + passed % 100 * percent / 100;
        // What is too short for a token is not lost.
        if more > 0 {
            self.tokens = self.tokens.saturating_add(more).min(nsec(BURST));
            self.at = now;
        }
    }
}

/// Returns a time in nanoseconds, and at most a year, so that it can be multiplied by percents.
fn nsec(time: Duration) -> i64 {
    const YEAR: i64 = 365 * 24 * 3600 * 1_000_000_000;
    i64::try_from(time.as_nanos()).map_or(YEAR, |nsec| nsec.min(YEAR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(percent: u32, now: Instant) -> Account {
        let share = Share::default();
        share.set(percent);
        Account::new(7, share, now)
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_container_may_use_a_burst_and_then_its_share() {
        let start = Instant::now();
        let account = account(25, start);
        assert!(account.is_within(start));
        account.charge(start, BURST);
        assert!(!account.is_within(start));
        let ready = account.ready_at(start) - start;
        assert_eq!(ready, PERIOD);
        assert!(account.is_within(start + ready));
        // In a second it may use a quarter of one.
        let mut now = start + ready;
        let mut used = Duration::ZERO;
        while now < start + ready + Duration::from_secs(1) {
            now = account.ready_at(now);
            account.spend(MS);
            used += MS;
        }
        let share = Duration::from_millis(250);
        let piece = PERIOD / 4;
        assert!(used >= share && used <= share + piece + 4 * MS, "{used:?}");
    }

    #[test]
    fn a_container_that_has_used_up_its_share_has_that_of_a_period_in_one_piece_and_then_rests() {
        for (percent, piece, rest) in [
            (1, MS, PERIOD),
            (25, 25 * MS, PERIOD),
            (100, PERIOD, PERIOD),
            // It never has more than a burst at once.
            (10_000, BURST, BURST / 100),
        ] {
            let start = Instant::now();
            let account = account(percent, start);
            account.spend(BURST);
            let mut now = account.ready_at(start);
            assert_eq!(now - start, rest, "{percent}");
            for _ in 0..3 {
                account.spend(piece - MS / 2);
                assert!(account.is_within(now), "{percent}");
                // What it has used too much is taken from its next piece.
                account.spend(MS);
                let ready = account.ready_at(now);
                assert_eq!(ready - now, rest + MS * 50 / percent, "{percent}");
                now = ready;
            }
        }
    }

    #[test]
    fn a_container_that_rests_has_no_more_than_a_burst() {
        let start = Instant::now();
        let account = account(25, start);
        let later = start + Duration::from_secs(3600);
        assert!(account.is_within(later));
        account.spend(BURST + MS);
        assert!(!account.is_within(later));
    }

    #[test]
    fn without_a_limit_and_after_the_end_of_the_container_nothing_waits() {
        let now = Instant::now();
        let unlimited = account(0, now);
        unlimited.charge(now, 10 * BURST);
        assert!(unlimited.is_within(now));
        let gone = account(25, now);
        gone.charge(now, 10 * BURST);
        assert!(!gone.is_within(now));
        gone.close();
        assert!(gone.is_within(now));
    }

    #[test]
    fn a_slow_request_is_remembered_for_a_while() {
        let now = Instant::now();
        let account = account(25, now);
        account.charge(now, SLOW / 2);
        assert!(!account.is_slow(now));
        account.charge(now, SLOW);
        assert!(account.is_slow(now) && !account.is_slow(now + SLOW_FOR));
    }

    #[test]
    fn a_container_that_is_slow_again_and_again_has_few_slow_requests_where_others_wait() {
        let start = Instant::now();
        let account = account(25, start);
        let (mut now, mut slow) = (start, 0);
        while now < start + Duration::from_secs(3600) {
            if !account.is_slow(now) {
                account.charge(now, SLOW);
                slow += 1;
            }
            now += 100 * MS;
        }
        // 1, 2, 4 ... 64 seconds apart.
        assert!(slow <= 7 + 3600 / 64, "{slow}");
        now += 2 * SLOW_AT_MOST;
        account.charge(now, SLOW);
        assert!(!account.is_slow(now + SLOW_FOR));
    }

    #[test]
    fn a_refusal_is_counted_each_time_and_told_once_a_minute() {
        let now = Instant::now();
        let account = account(25, now);
        assert!(account.refuse(now));
        assert!(!account.refuse(now + Duration::from_secs(59)));
        assert!(account.refuse(now + Duration::from_secs(60)));
        assert_eq!(account.usage().refused, 3);
    }
}
