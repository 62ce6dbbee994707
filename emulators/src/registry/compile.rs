//! One table of all files, and the index of each id. Both are made at compile time, so no index can be wrong at run
//! time.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated when compiling"
)]

use super::{TUNABLES, VIEWS};
use crate::{Emulator, Tunable, View};

pub(super) const NO_INDEX: u16 = u16::MAX;
pub(super) static EMULATORS: [&dyn Emulator; VIEW_COUNT + TUNABLE_COUNT] = emulators();
pub(super) static INDICES: [u16; ID_COUNT] = indices();

const VIEW_COUNT: usize = count(VIEWS);
const TUNABLE_COUNT: usize = count(TUNABLES);
const ROWS: [&View; VIEW_COUNT] = views();
const SET: [&Tunable; TUNABLE_COUNT] = flat(TUNABLES);
const ID_COUNT: usize = highest_id() as usize + 1;

const fn count<T>(tables: &[&[T]]) -> usize {
    let (mut count, mut table) = (0, 0);
    while table < tables.len() {
        count += tables[table].len();
        table += 1;
    }
    count
}

const fn flat<T, const N: usize>(tables: &'static [&'static [T]]) -> [&'static T; N] {
    let mut all = [&tables[0][0]; N];
    let (mut next, mut table) = (0, 0);
    while table < tables.len() {
        let mut row = 0;
        while row < tables[table].len() {
            all[next] = &tables[table][row];
            next += 1;
            row += 1;
        }
        table += 1;
    }
    all
}

/// Returns all views, sorted by id.
const fn views() -> [&'static View; VIEW_COUNT] {
    let mut all = flat(VIEWS);
    let mut sorted = 1;
    while sorted < all.len() {
        let mut at = sorted;
        while at > 0 && all[at - 1].id() > all[at].id() {
            (all[at - 1], all[at]) = (all[at], all[at - 1]);
            at -= 1;
        }
        sorted += 1;
    }
    all
}

const fn emulators() -> [&'static dyn Emulator; VIEW_COUNT + TUNABLE_COUNT] {
    let first: &dyn Emulator = ROWS[0];
    let mut all = [first; VIEW_COUNT + TUNABLE_COUNT];
    let mut next = 0;
    while next < all.len() {
        all[next] = match next < VIEW_COUNT {
            true => ROWS[next],
            false => SET[next - VIEW_COUNT],
        };
        next += 1;
    }
    all
}

const fn id(index: usize) -> u16 {
    match index < VIEW_COUNT {
        true => ROWS[index].id(),
        false => SET[index - VIEW_COUNT].id(),
    }
}

const fn highest_id() -> u16 {
    let (mut highest, mut index) = (0, 0);
    while index < VIEW_COUNT + TUNABLE_COUNT {
        if id(index) > highest {
            highest = id(index);
        }
        index += 1;
    }
    highest
}

const fn indices() -> [u16; ID_COUNT] {
    let mut indices = [NO_INDEX; ID_COUNT];
    let mut index = 0;
    while index < VIEW_COUNT + TUNABLE_COUNT {
        indices[id(index) as usize] = index as u16;
        index += 1;
    }
    indices
}
