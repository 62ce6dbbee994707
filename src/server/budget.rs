//! Bounds of what containers can have the server keep: bytes of memory, descriptors, or places in a queue.
//!
//! A [`Budget`] is for all containers together. Each container has a [`Part`] in it, and what is kept for it has a
//! [`Charge`]. A container may take up to a seventh of what nobody has. So one alone gets an eighth of the budget, and
//! when n containers take all that they can, each of them gets one part in n + 7. There is always something left for the
//! next one.
//!
//! A container may always have a small amount, the floor, whatever the others have. So the sum of all charges is at most the
//! budget and a floor for each container.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A container may take up to one in this many of what nobody has.
const OF_WHAT_IS_LEFT: u64 = 7;

/// One container alone can have one in this many of a budget.
pub const SHARE: u64 = OF_WHAT_IS_LEFT + 1;

/// The bound of something that all containers share.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    floor: u64,
    taken: AtomicU64,
}

/// The part of a budget that one container has.
#[derive(Debug, Default)]
pub struct Part(AtomicU64);

/// An amount that one thing takes. It is given back when this is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    part: Arc<Part>,
    amount: u64,
}

impl Budget {
    /// Returns a budget of `limit` for all containers, of which each can have `floor` at all times.
    pub fn new(limit: u64, floor: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            floor,
            taken: AtomicU64::new(0),
        })
    }

    /// Takes an amount for a container; none if that would be more than its part.
    pub fn take(self: &Arc<Self>, part: &Arc<Part>, amount: u64) -> Option<Charge> {
        let mut charge = self.empty(part);
        charge.resize(amount).then_some(charge)
    }

    /// Takes an amount for a container, also if that is more than its part.
    pub fn take_always(self: &Arc<Self>, part: &Arc<Part>, amount: u64) -> Charge {
        let mut charge = self.empty(part);
        charge.resize_always(amount);
        charge
    }

    /// Returns a charge of nothing, which can grow.
    pub fn empty(self: &Arc<Self>, part: &Arc<Part>) -> Charge {
        Charge {
            budget: Arc::clone(self),
            part: Arc::clone(part),
            amount: 0,
        }
    }

    /// Returns what all containers have together.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Part {
    /// Returns what the container has.
    pub fn taken(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Charge {
    /// Makes this `amount`. Returns false, and changes nothing, if that would be more than the container's part.
    ///
    /// Two threads that grow at the same time count each other's amount. So both may be refused where there was room for
    /// one, and never do both get what there was only once.
    pub fn resize(&mut self, amount: u64) -> bool {
        let before = self.amount;
        let more = amount.saturating_sub(before);
        let (own, all) = self.resize_always(amount);
        let left = self.budget.limit.saturating_sub(all);
        let fits = more == 0 || own <= self.budget.floor || own <= left / OF_WHAT_IS_LEFT;
        if !fits {
            self.resize_always(before);
        }
        fits
    }

    /// Makes this `amount`, also if that is more than the container's part. Returns what the container and all containers
    /// have then.
    pub fn resize_always(&mut self, amount: u64) -> (u64, u64) {
        let before = std::mem::replace(&mut self.amount, amount);
        let change = |sum: &AtomicU64| match amount.checked_sub(before) {
            Some(more) => sum.fetch_add(more, Ordering::Relaxed) + more,
            None => sum.fetch_sub(before - amount, Ordering::Relaxed) - (before - amount),
        };
        (change(&self.part.0), change(&self.budget.taken))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.resize_always(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes one after the other until there is no more.
    fn all(budget: &Arc<Budget>, part: &Arc<Part>) -> Vec<Charge> {
        std::iter::from_fn(|| budget.take(part, 1)).collect()
    }

    #[test]
    fn one_container_gets_an_eighth_and_each_next_one_a_fair_part_of_the_rest() {
        let budget = Budget::new(8000, 0);
        let parts: Vec<_> = (0..100).map(|_| Arc::new(Part::default())).collect();
        let mut charges = Vec::new();
        for (before, mine) in (0u32..).zip(&parts) {
            charges.push(all(&budget, mine));
            let part = 1.0 / 8.0 * f64::powf(7.0 / 8.0, f64::from(before));
            assert!(mine.taken() as f64 <= 8000.0 * part + 1.0, "{before}");
            assert!(mine.taken() > 0 || before > 30, "{before}");
        }
        assert_eq!(parts[0].taken(), 1000);
        assert!(budget.taken() <= 8000);
        drop(charges);
        assert_eq!(budget.taken(), 0);
    }

    /// When those that came first give back and take in turn, all have the same.
    #[test]
    fn containers_that_take_all_they_can_in_turn_have_the_same() {
        let budget = Budget::new(10_700, 0);
        let parts: Vec<_> = (0..100).map(|_| Arc::new(Part::default())).collect();
        let mut charges: Vec<Vec<Charge>> = parts.iter().map(|_| Vec::new()).collect();
        for _ in 0..200 {
            for (part, charges) in parts.iter().zip(&mut charges) {
                charges.truncate(charges.len() / 2);
                charges.extend(all(&budget, part));
            }
        }
        for part in &parts {
            assert!((95..=105).contains(&part.taken()), "{part:?}");
        }
    }

    #[test]
    fn a_container_gets_its_floor_whatever_the_others_have() {
        let budget = Budget::new(80, 4);
        let parts: Vec<_> = (0..50).map(|_| Arc::new(Part::default())).collect();
        let charges: Vec<_> = parts.iter().map(|one| all(&budget, one)).collect();
        assert!(parts.iter().all(|part| part.taken() >= 4));
        assert!(budget.taken() <= 80 + 50 * 4);
        drop(charges);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let budget = Budget::new(800, 0);
        let part = Arc::new(Part::default());
        let mut charge = budget.take(&part, 60).unwrap();
        assert!(!charge.resize(101));
        assert_eq!((part.taken(), budget.taken()), (60, 60));
        assert!(charge.resize(100));
        assert!(budget.take(&part, 1).is_none());
        let more = budget.take_always(&part, 50);
        assert_eq!(part.taken(), 150);
        // What shrinks is never refused, even if the container has too much.
        assert!(charge.resize(90));
        drop((more, charge));
        assert_eq!((part.taken(), budget.taken()), (0, 0));
    }

    #[test]
    fn amounts_that_no_memory_has_are_refused() {
        let budget = Budget::new(u64::MAX, 10);
        let part = Arc::new(Part::default());
        assert!(budget.take(&part, 1 << 62).is_none());
        assert!(budget.take(&part, 1 << 60).is_some());
    }

    proptest! {
        /// Whatever is taken and given back, in whatever order, the sums are those of what is there, and nobody has more
        /// than an eighth and the floor.
        #[test]
        fn sums_are_those_of_what_is_there(
            steps in proptest::collection::vec((0usize..4, 0u64..300, any::<prop::sample::Index>()), 1..100),
        ) {
            let budget = Budget::new(4000, 20);
            let parts: Vec<_> = (0..4).map(|_| Arc::new(Part::default())).collect();
            let mut charges: Vec<(usize, Charge)> = Vec::new();
            for (container, amount, index) in steps {
                match amount % 3 {
                    0 if !charges.is_empty() => drop(charges.swap_remove(index.index(charges.len()))),
                    1 if !charges.is_empty() => {
                        let at = index.index(charges.len());
                        let _ = charges[at].1.resize(amount);
                    }
                    _ => charges.extend(budget.take(&parts[container], amount).map(|one| (container, one))),
                }
                for (container, part) in parts.iter().enumerate() {
                    let own = charges.iter().filter(|(of, _)| *of == container);
                    prop_assert_eq!(part.taken(), own.map(|(_, one)| one.amount).sum::<u64>());
                    prop_assert!(part.taken() <= 4000 / SHARE);
                }
                prop_assert_eq!(budget.taken(), parts.iter().map(|one| one.taken()).sum::<u64>());
            }
        }
    }
}
