//! The questions that wait for an answer. Each container has a lane of its own, and the lanes are taken in turn.
//!
//! One question of a container is answered at a time. So a container whose questions take long makes its own wait, and
//! leaves all but one of the threads that answer to the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The most questions of one container that wait. A server has one of each container under way.
const MOST_OF_ONE: usize = 16;

/// The most questions that wait over all.
const MOST: usize = 4096;

/// Questions `Q`, by the slot of their container.
#[derive(Debug)]
pub(super) struct Lanes<Q> {
    inner: Mutex<Inner<Q>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner<Q> {
    waiting: BTreeMap<u64, VecDeque<Q>>,
    count: usize,
    /// The slots that have a question, and none that is being answered, in the order of their turns.
    turns: VecDeque<u64>,
    /// The slots of which a question is being answered.
    answering: BTreeSet<u64>,
}

impl<Q> Default for Lanes<Q> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                waiting: BTreeMap::new(),
                count: 0,
                turns: VecDeque::new(),
                answering: BTreeSet::new(),
            }),
            changed: Condvar::new(),
        }
    }
}

/// A question that is being answered. Its container has its next turn when this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a, Q> {
    lanes: &'a Lanes<Q>,
    slot: u64,
    pub(super) question: Option<Q>,
}

impl<Q> Lanes<Q> {
    /// Adds a question of the container in `slot`. Returns it if too many wait.
    pub(super) fn add(&self, slot: u64, question: Q) -> Result<(), Q> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let lane = inner.waiting.entry(slot).or_default();
        if lane.len() >= MOST_OF_ONE || inner.count >= MOST {
            return Err(question);
        }
        lane.push_back(question);
        inner.count += 1;
        if lane.len() == 1 && !inner.answering.contains(&slot) {
            inner.turns.push_back(slot);
        }
        drop(guard);
        self.changed.notify_all();
        Ok(())
    }

    /// Returns the next question, of the container whose turn it is. Waits until there is one.
    pub(super) fn next(&self) -> Turn<'_, Q> {
        let mut guard = self.inner.lock();
        loop {
            let inner = &mut *guard;
            if let Some(slot) = inner.turns.pop_front() {
                let question = inner.waiting.get_mut(&slot).and_then(VecDeque::pop_front);
                inner.count -= usize::from(question.is_some());
                inner.answering.insert(slot);
                return Turn {
                    lanes: self,
                    slot,
                    question,
                };
            }
            self.changed.wait(&mut guard);
        }
    }

    /// Waits until nothing waits and nothing is being answered. Returns false if that is not so within `limit`.
    pub(super) fn wait_until_empty(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut inner = self.inner.lock();
        while inner.count > 0 || !inner.answering.is_empty() {
            if self.changed.wait_until(&mut inner, end).timed_out() {
                return false;
            }
        }
        true
    }
}

impl<Q> Drop for Turn<'_, Q> {
    fn drop(&mut self) {
        let mut guard = self.lanes.inner.lock();
        let inner = &mut *guard;
        inner.answering.remove(&self.slot);
        match inner.waiting.get(&self.slot).map(VecDeque::is_empty) {
            Some(false) => inner.turns.push_back(self.slot),
            _ => drop(inner.waiting.remove(&self.slot)),
        }
        drop(guard);
        self.lanes.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take<'a>(lanes: &'a Lanes<u32>) -> (u32, Turn<'a, u32>) {
        let mut turn = lanes.next();
        (turn.question.take().unwrap(), turn)
    }

    #[test]
    fn containers_take_turns_and_each_has_one_question_answered_at_a_time() {
        let lanes = Lanes::default();
        for question in 10..14 {
            lanes.add(1, question).unwrap();
        }
        lanes.add(2, 20).unwrap();
        let (first, of_one) = take(&lanes);
        let (second, of_two) = take(&lanes);
        assert_eq!((first, second), (10, 20));
        lanes.add(3, 30).unwrap();
        let (third, of_three) = take(&lanes);
        assert_eq!(third, 30, "the first container has one under way");
        assert!(!lanes.wait_until_empty(Duration::ZERO));
        drop((of_one, of_two, of_three));
        for wanted in 11..14 {
            assert_eq!(take(&lanes).0, wanted);
        }
        assert!(lanes.wait_until_empty(Duration::ZERO));
    }

    #[test]
    fn a_container_that_asks_too_much_is_refused_and_another_is_not() {
        let lanes = Lanes::default();
        for question in 0..MOST_OF_ONE {
            lanes.add(1, question).unwrap();
        }
        assert!(lanes.add(1, 99).is_err());
        lanes.add(2, 99).unwrap();
    }
}
