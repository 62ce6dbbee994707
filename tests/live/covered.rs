//! Checks that every view of this host is asserted here, and lists the views that this host lacks.

use std::collections::BTreeSet;
use std::path::Path;

use eci_fs_emulators::{DIRECTORIES, EMULATORS, tunable};

use crate::{LIMITS, Live};

/// What each file of these tests asserts.
const CHECKED: &[&[&str]] = &[
    crate::memory::VIEWS,
    crate::pages::VIEWS,
    crate::cpus::VIEWS,
    crate::stat::VIEWS,
    crate::clock::VIEWS,
    crate::disks::VIEWS,
    crate::host::VIEWS,
    crate::host::EMPTY,
    crate::host::COUNTERS,
    crate::pressure::VIEWS,
    crate::identity::VIEWS,
    crate::sysfs::VIEWS,
    crate::nodes::VIEWS,
    crate::repeated::VIEWS,
];

/// Views that no check here is of, for a machine that has no such file, and why. Where one does have it, this list
/// is wrong, and a check is due.
///
/// Checked, but with nothing to see on a machine that lacks it: a row of swaps (no swap), HugePages (no hugetlb
/// controller), policyN of cpufreq (no cpufreq), a second node. Linux 6.18 counts throttled time of v1, so steal is
/// asserted like the rest.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "/sys/devices/virtual/dmi/id/product_uuid",
        "no DMI; tests/vm has one",
    ),
    (
        "/sys/devices/virtual/dmi/id/product_serial",
        "no DMI; tests/vm has one",
    ),
    (
        "/sys/devices/virtual/dmi/id/board_serial",
        "no DMI; tests/vm has one",
    ),
    (
        "/sys/devices/virtual/dmi/id/chassis_serial",
        "no DMI; tests/vm has one",
    ),
];

#[test]
fn privileged_every_view_that_is_here_is_checked_and_grafted() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    // Tunables are checked as a whole, by their table, and the kernel may keep one itself.
    let files = EMULATORS
        .iter()
        .map(|emulator| emulator.facts())
        .filter(|facts| tunable(facts.id).is_none())
        .map(|facts| facts.path);
    // Those of a network namespace, which this container does not have, are checked in network.rs.
    let directories = DIRECTORIES
        .iter()
        .filter(|directory| !directory.is_namespaced())
        .map(|directory| directory.facts().path);
    let all: BTreeSet<&str> = files.chain(directories).collect();
    let checked: BTreeSet<&str> = CHECKED.iter().copied().flatten().copied().collect();
    let excepted: BTreeSet<&str> = EXCEPTIONS.iter().map(|(path, _)| *path).collect();
    let grafts = live.container.grafts();
    for path in &all {
        assert!(
            checked.contains(path) || excepted.contains(path),
            "no check of {path}"
        );
        let is_here = Path::new(path).exists();
        assert!(!(is_here && excepted.contains(path)), "{path} is here");
        // A graft of its own, one of a directory that it lies in, or those of its files.
        let by_file = DIRECTORIES
            .iter()
            .any(|directory| directory.is_by_file() && directory.facts().path == *path);
        let is_grafted = grafts.iter().any(|graft| match by_file {
            true => Path::new(graft).starts_with(path),
            false => Path::new(path).starts_with(graft),
        });
        assert_eq!(is_grafted, is_here, "{path}: {grafts:?}");
    }
    let unknown: Vec<_> = checked
        .union(&excepted)
        .filter(|path| !all.contains(*path))
        .collect();
    assert!(unknown.is_empty(), "no views: {unknown:?}");
}
