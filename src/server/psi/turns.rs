//! A queue for each container, of which one thread takes in turn.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use parking_lot::{Condvar, Mutex};

/// Things to do, by the slots of the containers that they are for.
#[derive(Debug)]
pub(super) struct Turns<T> {
    queues: Mutex<Queues<T>>,
    added: Condvar,
}

#[derive(Debug)]
struct Queues<T> {
    containers: BTreeMap<u64, VecDeque<T>>,
    /// The slot that had its turn last.
    last: u64,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        let queues = Mutex::new(Queues {
            containers: BTreeMap::new(),
            last: 0,
        });
        let added = Condvar::new();
        Self { queues, added }
    }
}

impl<T> Turns<T> {
    /// Adds something to do for the container in `slot`.
    pub(super) fn push(&self, slot: u64, one: T) {
        let mut queues = self.queues.lock();
        queues.containers.entry(slot).or_default().push_back(one);
        drop(queues);
        self.added.notify_one();
    }

    /// Waits for something to do, and takes the first thing of the container whose turn it is.
    pub(super) fn take(&self) -> T {
        let mut queues = self.queues.lock();
        loop {
            if let Some(one) = queues.take() {
                return one;
            }
            self.added.wait(&mut queues);
        }
    }
}

impl<T> Queues<T> {
    fn take(&mut self) -> Option<T> {
        let mut later = self.containers.range((Excluded(self.last), Unbounded));
        let next = later.next().or_else(|| self.containers.first_key_value());
        let slot = *next?.0;
        let queue = self.containers.get_mut(&slot)?;
        let one = queue.pop_front();
        if queue.is_empty() {
            self.containers.remove(&slot);
        }
        self.last = slot;
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_have_their_turns() {
        let turns = Turns::default();
        for slot in [1, 1, 1, 3, 2, 3] {
            turns.push(slot, slot);
        }
        let order: Vec<u64> = (0..6).map(|_| turns.take()).collect();
        assert_eq!(order, [1, 2, 3, 1, 3, 1]);
        assert!(turns.queues.lock().containers.is_empty());
    }
}
