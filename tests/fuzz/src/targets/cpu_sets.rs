//! Lists and masks of CPUs and memory nodes, as cgroups and sysfs have them.

use eci_fs_emulators::cpulist::CpuSet;

/// Takes the bytes for a list and for a mask.
pub fn run(bytes: &[u8]) {
    if let Some(set) = CpuSet::parse_list(bytes) {
        check(&set);
        let middle = set.len() / 2;
        let (low, all) = (set.first(middle), &set);
        assert_eq!(low.len(), middle);
        assert_eq!(all.intersection(&low), low);
        assert_eq!(all.difference(&low).len(), all.len() - middle);
    }
    if let Some(set) = CpuSet::parse_mask(bytes) {
        check(&set);
        let mut mask = Vec::new();
        set.render_mask_like(bytes, &mut mask);
        assert_eq!(CpuSet::parse_mask(&mask), Some(set));
    }
}

/// Checks that a set is the same after it was written and read.
fn check(set: &CpuSet) {
    assert_eq!(set.iter().count(), set.len());
    let mut list = Vec::new();
    set.render_list(&mut list);
    assert_eq!(CpuSet::parse_list(&list).as_ref(), Some(set));
    let highest = set.iter().last();
    let mut mask = Vec::new();
    set.render_mask(highest.map_or(1, |highest| highest + 1), &mut mask);
    assert_eq!(CpuSet::parse_mask(&mask).as_ref(), Some(set));
    if let Some(highest) = highest {
        assert!(set.contains(highest));
        assert_eq!(set.rank(highest) as usize, set.len() - 1);
    }
}
