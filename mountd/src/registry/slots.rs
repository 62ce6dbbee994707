//! The slots that containers get.
//!
//! A program can see the slot of its container, in mountinfo and where the kernel shows a node id. So slots are given out
//! in an order that tells nothing: a number that counts goes through a permutation of all slots, which takes a secret of
//! the host as its key. No table has to be kept of the slots that were given out.

use std::collections::BTreeSet;
use std::hash::Hasher;

use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::link::SLOTS;
use siphasher::sip::SipHasher24;

/// The bits of one half of a slot.
const HALF: u32 = SLOTS.trailing_zeros() / 2;

/// The rounds of the permutation. From four on nobody can tell one of this kind from a random one by what it gives (Luby
/// and Rackoff, "How to construct pseudorandom permutations").
const ROUNDS: u8 = 8;

/// Gives out slots. None is given out twice before a reboot.
#[derive(Debug)]
pub(super) struct Slots {
    key: [u8; 16],
    /// The number of the next slot. It is below [`SLOTS`] as long as there is one.
    next: u64,
    /// Slots below this are not given out: version 0.1.0 has given out the numbers themselves, and no container is in 0.
    counted_below: u64,
    /// Slots that were found in use, while the secret that they may have been made with is lost.
    in_use: BTreeSet<u64>,
    /// True if the secret was made for this list, so that it says nothing about slots that are in use.
    is_new: bool,
}

impl Slots {
    /// Returns the slots of a boot of which nothing is known.
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self {
            is_new: true,
            ..Self::going_on(secret, 1, 1)
        }
    }

    /// Returns the slots from the number `next` on. Version 0.1.0 has given out all slots below `counted_below`.
    pub(super) fn going_on(secret: &[u8; 32], next: u64, counted_below: u64) -> Self {
        let (_, key) = secret.split_at(16);
        Self {
            key: key.try_into().unwrap_or_default(),
            next,
            counted_below: counted_below.max(1),
            in_use: BTreeSet::new(),
            is_new: false,
        }
    }

    /// Returns the number of the next slot, for the next daemon.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Returns the lowest slot that was not given out by its number, for the next daemon.
    pub(super) fn counted_below(&self) -> u64 {
        self.counted_below
    }

    /// Returns a slot that no container has had.
    ///
    /// # Errors
    /// When all have been given out. A slot that is given out twice would have a container see the views of another.
    pub(super) fn take(&mut self) -> Result<u64> {
        while self.next < SLOTS {
            let slot = permuted(&self.key, self.next);
            self.next += 1;
            if slot >= self.counted_below && !self.in_use.contains(&slot) {
                return Ok(slot);
            }
        }
        Err(Error::new(
            Kind::System,
            format!("all {SLOTS} slots for containers have been used since the host was booted"),
        )
        .remedy("boot the host; until then no more containers can be attached"))
    }

    /// Returns the place of a slot in the order in which slots are given out.
    pub(super) fn order(&self, slot: u64) -> u64 {
        match (self.counted_below..SLOTS).contains(&slot) {
            true => number(&self.key, slot),
            false => slot,
        }
    }

    /// Does not give out `slot`, which has been given out.
    pub(super) fn skip(&mut self, slot: u64) {
        if self.is_new {
            self.in_use.insert(slot);
        } else if (self.counted_below..SLOTS).contains(&slot) {
            self.next = self.next.max(self.order(slot) + 1);
        }
    }
}

/// Returns the slot with a number (a Feistel network).
fn permuted(key: &[u8; 16], number: u64) -> u64 {
    let (mut left, mut right) = halves(number);
    for round in 0..ROUNDS {
        (left, right) = (right, left ^ mixed(key, round, right));
    }
    left << HALF | right
}

/// Returns the number of a slot, so that [`permuted`] returns the slot.
fn number(key: &[u8; 16], slot: u64) -> u64 {
    let (mut left, mut right) = halves(slot);
    for round in (0..ROUNDS).rev() {
        (left, right) = (right ^ mixed(key, round, left), left);
    }
    left << HALF | right
}

fn halves(slot: u64) -> (u64, u64) {
    (slot >> HALF, slot % (1 << HALF))
}

fn mixed(key: &[u8; 16], round: u8, half: u64) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(b"slot");
    hasher.write(&[round]);
    hasher.write(&half.to_le_bytes());
    hasher.finish() % (1 << HALF)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];
    const KEY: [u8; 16] = [7; 16];

    /// The next daemon must give out the rest of the same order, whatever its version is.
    #[test]
    fn the_order_of_slots_is_the_same_in_every_build() {
        let mut slots = Slots::new(&SECRET);
        let taken = [(); 3].map(|()| slots.take().unwrap());
        assert_eq!(taken, ORDER);
    }

    const ORDER: [u64; 3] = [1_521_565, 4_531_526, 7_212_539];

    #[test]
    fn a_slot_has_one_number_so_no_two_numbers_have_one_slot() {
        for n in (0..SLOTS).step_by(9973) {
            let slot = permuted(&KEY, n);
            assert!(slot < SLOTS);
            assert_eq!(number(&KEY, slot), n);
        }
    }

    /// Who sees slots of containers that were attached one after the other cannot tell that they were.
    #[test]
    fn slots_of_containers_that_come_one_after_the_other_are_far_apart() {
        let mut slots = Slots::new(&SECRET);
        let taken: Vec<u64> = (0..1000).map(|_| slots.take().unwrap()).collect();
        let rising = taken.windows(2).filter(|two| two[1] > two[0]).count();
        assert!((400..600).contains(&rising), "{rising} of 999 rise");
        let near = taken
            .windows(2)
            .filter(|two| two[0].abs_diff(two[1]) < 1000);
        assert!(near.count() < 10);
        let mut other = Slots::new(&[8; 32]);
        assert_ne!(other.take().unwrap(), taken[0]);
    }

    #[test]
    fn no_slot_is_given_out_when_all_have_been() {
        let mut slots = Slots::going_on(&SECRET, SLOTS - 2, 1);
        let last = [slots.take().unwrap(), slots.take().unwrap()];
        assert_ne!(last[0], last[1]);
        for _ in 0..2 {
            let error = slots.take().unwrap_err().to_string();
            assert!(error.contains("16777216 slots"), "{error}");
        }
        let beyond = Slots::going_on(&SECRET, SLOTS + 1, 1).take();
        assert!(beyond.is_err(), "{beyond:?}");
    }

    #[test]
    fn slots_that_version_0_1_0_gave_out_are_not_given_out_again() {
        let before = 1 << 23;
        let mut slots = Slots::going_on(&SECRET, before, before);
        for _ in 0..10_000 {
            assert!(slots.take().unwrap() >= before);
        }
    }

    #[test]
    fn a_slot_that_a_daemon_gave_out_and_did_not_write_down_is_skipped() {
        let mut before = Slots::going_on(&SECRET, 5, 1);
        let given: Vec<u64> = (0..3).map(|_| before.take().unwrap()).collect();
        let mut next = Slots::going_on(&SECRET, 5, 1);
        next.skip(given[2]);
        assert_eq!(next.next(), before.next());
        assert_eq!(next.take().unwrap(), before.take().unwrap());
    }

    #[test]
    fn the_order_of_slots_is_that_in_which_they_were_given_out() {
        let mut slots = Slots::going_on(&SECRET, 5, 5);
        let mut given = vec![2, 4];
        given.extend((0..100).map(|_| slots.take().unwrap()));
        assert!(given.is_sorted_by_key(|slot| slots.order(*slot)));
    }

    #[test]
    fn slots_that_are_in_use_are_skipped_also_if_the_secret_of_them_is_lost() {
        let mut slots = Slots::new(&SECRET);
        slots.skip(ORDER[0]);
        slots.skip(SLOTS - 1);
        assert_eq!(slots.take().unwrap(), ORDER[1]);
    }
}
