//! A container in a nested cgroup: the cgroups above limit it, and the cgroups beside it use a part of those limits.

use support::{Cgroup, Limits};

use crate::source::{Cpus, Memory, steady};
use crate::{Live, memory, scene};

const MIB: u64 = 1 << 20;

/// The limit that is shared, tighter than the container's own.
const SHARED: Limits = Limits {
    memory: Some(128 * MIB),
    swap: None,
    cpus: Some(1.0),
    cpuset: None,
};

/// The container's own limit. v1 refuses a quota that is larger than the one above.
const OWN: Limits = Limits {
    memory: Some(256 * MIB),
    swap: None,
    cpus: None,
    cpuset: None,
};

#[test]
fn privileged_what_a_sibling_uses_of_a_shared_limit_is_not_free() {
    let Some(scene) = scene() else { return };
    let pod = Cgroup::new(&SHARED);
    let sibling = pod.child("sibling", &Limits::default());
    let mut other = scene.container().options(&["--host-cgroup"]).start();
    sibling.add(other.pid());
    let Some(live) = Live::start_in(scene, |_| pod.child("app", &OWN)) else {
        return;
    };
    let same = || {
        let sources = || Memory::read(&live.cgroup);
        steady(sources, || live.seen("/proc/meminfo"), memory::judge);
    };
    same();
    let before = Memory::read(&live.cgroup);
    assert_eq!(before.total, 128 * MIB);
    other.ask(&["allocate", &(64 * MIB).to_string()]);
    let after = Memory::read(&live.cgroup);
    assert!(after.free + 60 * MIB < before.free, "{before:?} {after:?}");
    same();
    // The quota is the one above as well.
    let cpus = Cpus::read(&live.cgroup);
    assert_eq!(cpus.visible.len(), 1);
    assert_eq!(support::count_cpus(&live.seen("/proc/cpuinfo")), 1);
    // In this order: the outer cgroup cannot go before what is in it.
    drop((other, live, sibling, pod));
}
