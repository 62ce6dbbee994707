//! Tests of the numbers of paths.

use super::table::{LEAST_KNOWN, LEAST_TAKEN, bytes};
use super::*;

const SECRET: [u8; 32] = [7; 32];

fn number(paths: &Paths, slot: u64, directory: u16, rel: &str) -> u64 {
    paths.number(slot, directory, rel, |_| ()).unwrap()
}

/// Grafts outlive servers: the number of a path is part of what a release promises to the next.
#[test]
fn hashes_are_the_same_in_every_build() {
    let host = Paths::of_host();
    assert_eq!(number(&host, 1, 128, "cpu0/topology/core_id"), HOST);
    assert_eq!(number(&host, 2, 128, "cpu0/topology/core_id"), HOST);
    let own = Paths::of_container(&SECRET);
    assert_eq!(number(&own, 1, 137, "eth0"), OWN);
}

/// Version 0.1.0 had 0xa17a_d819_b393_8913, of which 39 bits count.
const HOST: u64 = 0x19_b393_8913;
const OWN: u64 = 50_536_879_653;

#[test]
fn no_more_paths_are_known_than_there_is_room_for() {
    let paths = Paths::of_container(&SECRET);
    for index in 0..=MOST_KNOWN + 1 {
        let name = format!("veth{index}");
        let number = number(&paths, 1, 137, &name);
        assert_eq!(paths.path(number), Some((137, name.as_str().into())));
        assert!(paths.table.lock().known.len() <= MOST_KNOWN);
    }
}

/// Lists more names than there is room for, and returns the most that were kept.
fn list_many(paths: &Paths) -> usize {
    (0..10_000).fold(0, |most, index| {
        paths
            .number_in_listing(1, 137, &format!("d{index}"))
            .unwrap();
        most.max(paths.table.lock().taken.len())
    })
}

#[test]
fn the_tables_of_all_containers_together_are_bounded_and_each_has_its_least() {
    let budget = Budget::new(1 << 20, FLOOR);
    let tables: Vec<Paths> = (0..20)
        .map(|_| {
            let paths = Paths::of_container(&SECRET);
            paths.charge_to(&budget);
            paths
        })
        .collect();
    let least = LEAST_KNOWN + LEAST_TAKEN;
    for (before, paths) in tables.iter().enumerate() {
        for index in 0..1000 {
            number(paths, 1, 137, &format!("veth{index}"));
        }
        let known = paths.table.lock().known.len();
        assert!((LEAST_KNOWN..1000).contains(&known), "{known}");
        let most = list_many(paths);
        assert!(most >= LEAST_TAKEN, "{most}");
        let one = bytes(known + 1, most + 1);
        assert!(one <= (1 << 20) / 8 + bytes(1, least), "{before}: {one}");
    }
    assert!(budget.taken() <= (1 << 20) + 20 * 2 * FLOOR);
    drop(tables);
    assert_eq!(budget.taken(), 0);
}

#[test]
fn a_container_alone_has_all_names_that_a_table_can_have() {
    let budget = Budget::new(BYTES, FLOOR);
    let full = bytes(MOST_KNOWN + 1, MOST_TAKEN + 1);
    assert!(budget.take(&Arc::default(), full).is_some());
}

#[test]
fn a_path_has_one_node_and_two_paths_have_two() {
    let paths = Paths::of_container(&SECRET);
    let a = number(&paths, 1, 128, "cpu0");
    assert_eq!(number(&paths, 1, 128, "cpu0"), a);
    assert_ne!(number(&paths, 1, 128, "cpu1"), a);
    assert_ne!(number(&paths, 1, 129, "cpu0"), a);
    assert_ne!(number(&paths, 2, 128, "cpu0"), a);
}

#[test]
fn a_path_whose_number_is_taken_gets_another_one_and_is_learned_once() {
    let (paths, other) = (Paths::of_host(), Paths::of_host());
    let taken = number(&other, 1, 128, "cpu0");
    paths.restore(taken, 128, "cpu1");
    let learned = std::cell::Cell::new(None);
    let number = paths.number(1, 128, "cpu0", |one| learned.set(Some(one.number)));
    let number = number.unwrap();
    assert_ne!(number, taken);
    assert_eq!(learned.take(), Some(number));
    assert_eq!(
        paths.number(1, 128, "cpu0", |one| learned.set(Some(one.number))),
        Ok(number)
    );
    assert_eq!(learned.take(), None);
}

#[test]
fn a_path_that_has_no_free_number_is_an_error() {
    let paths = Paths::of_host();
    for attempt in 0..TRIES {
        let taken = paths.hash(1, 128, "cpu0", attempt);
        paths.restore(taken, 128, "other");
    }
    assert_eq!(paths.number(1, 128, "cpu0", |_| ()), Err(Errno::IO));
}

#[test]
fn a_name_that_is_forgotten_is_told() {
    let paths = Paths::of_container(&SECRET);
    let first = number(&paths, 1, 137, "veth0");
    let mut forgotten = None;
    for index in 1..=MOST_KNOWN {
        let name = format!("veth{index}");
        let learned = |learned: Learned| forgotten = learned.forgotten;
        paths.number(1, 137, &name, learned).unwrap();
    }
    assert_eq!(forgotten, Some(first));
    assert_eq!(paths.path(first), None);
}

#[test]
fn a_listing_learns_nothing_and_has_the_numbers_of_later() {
    let paths = Paths::of_container(&SECRET);
    let listed = || paths.number_in_listing(1, 137, "eth0").unwrap().unwrap();
    let first = listed();
    assert_eq!(paths.path(first), None);
    assert_eq!(number(&paths, 1, 137, "eth0"), first);
    assert_eq!(listed(), first);
}

/// As many names as some 10,000 devices have. Of 200,000 numbers of 30 bits some are the same by chance.
#[test]
fn all_names_have_different_inode_numbers_also_those_that_are_only_listed_or_forgotten() {
    let paths = Paths::of_container(&SECRET);
    let names: Vec<String> = (0..200_000).map(|index| format!("d{index}")).collect();
    let list = |paths: &Paths, name: &str| {
        let listed = paths.number_in_listing(1, 137, name).unwrap();
        listed.unwrap_or_else(|| number(paths, 1, 137, name))
    };
    let listed: Vec<u64> = names.iter().map(|name| list(&paths, name)).collect();
    let first = |name: &String| in_inode(paths.hash(1, 137, name, 0));
    let hashes: std::collections::HashSet<u32> = names.iter().map(first).collect();
    assert!(hashes.len() < names.len(), "some hashes are the same");
    let inodes = listed.iter().map(|number| in_inode(*number));
    let inodes: std::collections::HashSet<u32> = inodes.collect();
    assert_eq!(inodes.len(), names.len());
    // In another order, which forgets nearly all of them.
    for (name, listed) in names.iter().zip(&listed).rev() {
        assert_eq!(number(&paths, 1, 137, name), *listed);
    }
    // Another server learns first which paths have other numbers than their first hash.
    let next = Paths::of_container(&SECRET);
    for (name, number) in names.iter().zip(&listed) {
        if *number != paths.hash(1, 137, name, 0) {
            next.restore(*number, 137, name);
        }
    }
    for (name, listed) in names.iter().zip(&listed).rev() {
        assert_eq!(list(&next, name), *listed);
    }
}

#[test]
fn paths_of_the_host_have_different_inode_numbers_too() {
    let (one, other) = ("d8ea5f53", "84403a76");
    let (paths, next) = (Paths::of_host(), Paths::of_host());
    let hash = |rel| paths.hash(1, 128, rel, 0);
    assert_ne!(hash(one), hash(other));
    assert_eq!(in_inode(hash(one)), in_inode(hash(other)));
    let first = number(&paths, 1, 128, one);
    assert_eq!(first, hash(one));
    let second = number(&paths, 2, 128, other);
    assert_ne!(in_inode(second), in_inode(first));
    // Whatever the next server is asked for first.
    next.restore(second, 128, other);
    assert_eq!(number(&next, 1, 128, other), second);
    assert_eq!(number(&next, 1, 128, one), first);
}

/// Version 0.1.0 can have given out two numbers with one inode number. Node ids must stay.
#[test]
fn paths_keep_their_numbers_in_an_upgrade() {
    let paths = Paths::of_host();
    let numbers = ["d8ea5f53", "84403a76"].map(|rel| (rel, paths.hash(1, 128, rel, 0)));
    for (rel, number) in numbers {
        paths.restore(number, 128, rel);
    }
    for (rel, before) in numbers {
        assert_eq!(number(&paths, 1, 128, rel), before);
    }
}

#[test]
fn the_inode_numbers_that_are_kept_are_bounded() {
    let paths = Paths::new(Owner::Container, [7; 16], 2, 8);
    for index in 0..100 {
        let name = format!("veth{index}");
        let number = number(&paths, 1, 137, &name);
        let table = paths.table.lock();
        assert!(table.taken.len() <= 8 && table.taken.contains_key(&in_inode(number)));
    }
}

/// The numbers of two containers have nothing to do with each other: two names that collide in one of them collide in
/// the other by chance alone. Here 32 bits of the numbers count, so that some collide.
#[test]
fn colliding_names_of_one_container_do_not_collide_in_another() {
    let (here, there) = (Paths::of_container(&SECRET), Paths::of_container(&[8; 32]));
    let low = |hash: u64| hash as u32;
    let mut seen = std::collections::HashMap::new();
    let mut pairs = Vec::new();
    for index in 0..200_000 {
        let name = format!("d{index}");
        let hash = low(here.hash(1, 137, &name, 0));
        if let Some(before) = seen.insert(hash, name.clone()) {
            pairs.push((before, name));
        }
    }
    assert!(!pairs.is_empty(), "among 200,000 names some collide");
    for (one, other) in pairs {
        assert_ne!(
            low(here.hash(2, 137, &one, 0)),
            low(here.hash(2, 137, &other, 0))
        );
        assert_ne!(
            low(there.hash(1, 137, &one, 0)),
            low(there.hash(1, 137, &other, 0))
        );
    }
}
