//! The listeners that wait for a later moment: their container has used up its share, or the daemon takes nothing now.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

/// The listeners, in the order of their turns, and a timer that expires at the first one.
#[derive(Debug)]
pub(super) struct Turns<T> {
    timer: OwnedFd,
    waiting: Mutex<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    /// By moment, and by a number that two of the same moment do not share.
    turns: BTreeMap<(Instant, u64), Weak<T>>,
    next: u64,
}

impl<T> Turns<T> {
    /// Uses this timer (timerfd, monotonic), which nothing else sets.
    pub(super) fn new(timer: OwnedFd) -> Self {
        let waiting = Mutex::new(Waiting {
            turns: BTreeMap::new(),
            next: 0,
        });
        Self { timer, waiting }
    }

    /// Returns the timer, which is readable when a turn has come.
    pub(super) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Has a listener wait for so long. One that ends meanwhile is forgotten.
    ///
    /// # Errors
    /// When the timer cannot be set.
    pub(super) fn delay(&self, listener: &Arc<T>, time: Duration) -> Result<(), Errno> {
        let mut waiting = self.waiting.lock();
        let number = waiting.next;
        waiting.next += 1;
        let turn = (Instant::now() + time, number);
        waiting.turns.insert(turn, Arc::downgrade(listener));
        self.set(&waiting)
    }

    /// Takes the listeners whose turn has come, and sets the timer for the others.
    ///
    /// # Errors
    /// When the timer cannot be set.
    pub(super) fn take(&self) -> Result<Vec<Arc<T>>, Errno> {
        let mut waiting = self.waiting.lock();
        let later = waiting.turns.split_off(&(Instant::now(), u64::MAX));
        let due = std::mem::replace(&mut waiting.turns, later);
        self.set(&waiting)?;
        Ok(due.into_values().filter_map(|one| one.upgrade()).collect())
    }

    /// Sets the timer to the first turn, or to none.
    fn set(&self, waiting: &Waiting<T>) -> Result<(), Errno> {
        let left = waiting.turns.keys().next().map(|(turn, _)| {
            // Zero would mean never.
            let least = Duration::from_nanos(1);
            turn.saturating_duration_since(Instant::now()).max(least)
        });
        let never = Timespec::default();
        let value = match left {
            None => never,
            Some(left) => Timespec::try_from(left).map_err(|_| Errno::OVERFLOW)?,
        };
        let once = Itimerspec {
            it_interval: never,
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

    use super::*;

    fn turns() -> Turns<u32> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).unwrap();
        Turns::new(timer)
    }

    fn expires(turns: &Turns<u32>, limit: Timespec) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(turns.timer(), PollFlags::IN)];
        poll(&mut fds, Some(&limit)).unwrap() == 1
    }

    const AT_ONCE: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    const LONG: Timespec = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };

    #[test]
    fn turns_come_in_their_order_and_the_timer_tells_of_each() {
        let turns = turns();
        let [first, second, third] = [1, 2, 3].map(Arc::new);
        turns.delay(&third, Duration::from_secs(3600)).unwrap();
        assert!(!expires(&turns, AT_ONCE));
        turns.delay(&second, Duration::from_millis(2)).unwrap();
        turns.delay(&first, Duration::ZERO).unwrap();
        let mut taken = Vec::new();
        while taken.len() < 2 {
            assert!(expires(&turns, LONG));
            taken.extend(turns.take().unwrap());
        }
        assert_eq!(taken, [first, second]);
        assert!(!expires(&turns, AT_ONCE));
        assert_eq!(turns.take().unwrap(), []);
    }

    #[test]
    fn a_listener_that_has_ended_has_no_turn() {
        let turns = turns();
        let gone = Arc::new(1);
        turns.delay(&gone, Duration::ZERO).unwrap();
        drop(gone);
        assert!(expires(&turns, LONG));
        assert_eq!(turns.take().unwrap(), []);
        assert!(!expires(&turns, AT_ONCE));
    }
}
