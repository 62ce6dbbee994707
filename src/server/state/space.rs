//! The free blocks of the state: a buddy allocator. It gives out runs of blocks. The length of a run is a power of two,
//! and the run is aligned to its length. The lowest free run comes first, so that little of the file is ever used.

use std::collections::BTreeSet;
use std::ops::Range;

/// A run has at most two to this power blocks.
pub(super) const MAX_ORDER: u8 = 13;

/// A run of blocks: two to the `order`, from `block` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) block: u32,
    pub(super) order: u8,
}

impl Place {
    /// Returns the smallest run of at least `blocks` blocks at `block`; none if no run can begin there.
    pub(super) fn at(block: u32, blocks: u32) -> Option<Self> {
        let order = Self::order_for(blocks)?;
        block
            .is_multiple_of(1 << order)
            .then_some(Self { block, order })
    }

    /// Returns the order of the smallest run of at least `blocks` blocks.
    pub(super) fn order_for(blocks: u32) -> Option<u8> {
        let order = blocks.checked_next_power_of_two()?.trailing_zeros();
        u8::try_from(order).ok().filter(|order| *order <= MAX_ORDER)
    }

    /// Returns the number of its blocks.
    pub(super) fn blocks(self) -> u32 {
        1 << self.order
    }

    /// Returns the block after it.
    pub(super) fn end(self) -> u32 {
        self.block + self.blocks()
    }
}

/// The free blocks of a range.
#[derive(Debug)]
pub(super) struct Space {
    /// The first blocks of free runs, by their order.
    free: [BTreeSet<u32>; MAX_ORDER as usize + 1],
}

impl Space {
    /// Makes a space of a range that is free.
    pub(super) fn new(blocks: Range<u32>) -> Self {
        let mut this = Self {
            free: Default::default(),
        };
        let mut block = blocks.start;
        while block < blocks.end {
            let left = (blocks.end - block).ilog2();
            let order = left.min(block.trailing_zeros()).min(MAX_ORDER.into());
            this.free[order as usize].insert(block);
            block += 1 << order;
        }
        this
    }

    /// Takes a run of this order; none if there is no more.
    pub(super) fn take(&mut self, order: u8) -> Option<Place> {
        let larger = self.free.get(usize::from(order)..)?;
        let has = larger.iter().position(|runs| !runs.is_empty())?;
        let has = order + u8::try_from(has).ok()?;
        let block = self.free[usize::from(has)].pop_first()?;
        self.give_halves(block, has, Place { block, order });
        Some(Place { block, order })
    }

    /// Takes this run. Returns false if it is not free as a whole.
    pub(super) fn claim(&mut self, place: Place) -> bool {
        for order in place.order..=MAX_ORDER {
            let block = place.block & !((1 << order) - 1);
            if self.free[usize::from(order)].remove(&block) {
                self.give_halves(block, order, place);
                return true;
            }
        }
        false
    }

    /// Keeps `place` of the free run at `block`, and gives the rest back.
    fn give_halves(&mut self, mut block: u32, order: u8, place: Place) {
        for order in (place.order..order).rev() {
            let upper = block + (1 << order);
            if place.block >= upper {
                self.free[usize::from(order)].insert(block);
                block = upper;
            } else {
                self.free[usize::from(order)].insert(upper);
            }
        }
    }

    /// Gives a run back.
    pub(super) fn give(&mut self, place: Place) {
        let Place { mut block, order } = place;
        for order in order..=MAX_ORDER {
            let buddy = block ^ (1 << order);
            if order == MAX_ORDER || !self.free[usize::from(order)].remove(&buddy) {
                self.free[usize::from(order)].insert(block);
                return;
            }
            block = block.min(buddy);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_are_aligned_and_the_lowest_come_first() {
        let mut space = Space::new(16..64);
        let mut take = |order| space.take(order).unwrap().block;
        assert_eq!((take(0), take(2), take(0), take(4)), (16, 20, 17, 32));
        assert_eq!(space.take(5), None);
        assert_eq!(Place::at(24, 5).unwrap().end(), 32);
        assert_eq!(Place::at(24, 9), None);
        assert_eq!(Place::order_for(1 << 14), None);
    }

    proptest! {
        /// Runs never overlap, and when all are given back everything is free again.
        #[test]
        fn what_is_taken_is_taken_once(
            end in 1u32..300,
            steps in proptest::collection::vec((any::<bool>(), 0u8..6, any::<prop::sample::Index>()), 1..60),
        ) {
            let mut space = Space::new(0..end);
            let whole = format!("{space:?}");
            let mut taken: Vec<Place> = Vec::new();
            for (take, order, index) in steps {
                if take {
                    if let Some(place) = space.take(order) {
                        prop_assert!(place.end() <= end);
                        prop_assert!(place.block.is_multiple_of(place.blocks()));
                        let apart = |other: &Place| other.end() <= place.block || place.end() <= other.block;
                        prop_assert!(taken.iter().all(apart), "{place:?} {taken:?}");
                        taken.push(place);
                    }
                } else if !taken.is_empty() {
                    space.give(taken.swap_remove(index.index(taken.len())));
                }
            }
            // Another that claims the same places has the same left.
            let mut other = Space::new(0..end);
            for place in &taken {
                prop_assert!(other.claim(*place));
                prop_assert!(!other.claim(*place));
            }
            prop_assert_eq!(format!("{other:?}"), format!("{space:?}"));
            for place in taken {
                space.give(place);
            }
            prop_assert_eq!(format!("{space:?}"), whole);
        }
    }
}
