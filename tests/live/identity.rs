//! The identity of the host, the files that are hidden, and the files that stay the kernel's.

use std::path::Path;

use crate::source::file;
use crate::{LIMITS, Live};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

pub(crate) const VIEWS: &[&str] = &[
    BOOT_ID,
    "/proc/schedstat",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/latency_stats",
];

/// Paths that nothing is grafted on: text that does not move.
const KERNELS: &[&str] = &[
    "/proc/version",
    "/proc/filesystems",
    "/proc/cmdline",
    "/proc/devices",
    "/proc/sys/kernel/ostype",
    "/proc/sys/kernel/osrelease",
    "/sys/kernel/fscaps",
    "/sys/kernel/mm/swap/vma_ra_enabled",
];

/// Files in directories that are grafted, passed through.
const PASSED_THROUGH: &[&str] = &[
    "/sys/devices/system/cpu/kernel_max",
    "/sys/devices/system/cpu/modalias",
    "/sys/devices/system/cpu/vulnerabilities/meltdown",
    "/sys/devices/system/cpu/cpu0/cache/index0/size",
    "/sys/devices/system/cpu/cpu0/topology/core_id",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/ksm/sleep_millisecs",
    "/sys/fs/ext4/features/lazy_itable_init",
];

/// `FUSE_SUPER_MAGIC`
const FUSE: &str = "65735546";

#[test]
fn privileged_the_boot_id_is_the_containers_own_and_stable() {
    let Some(mut one) = Live::start(&LIMITS) else {
        return;
    };
    let first = one.container.read(BOOT_ID);
    let parts: Vec<usize> = first.trim_end().split('-').map(str::len).collect();
    assert_eq!((parts, first.len()), (vec![8, 4, 4, 4, 12], 37));
    assert_ne!(first, file(BOOT_ID));
    let other = one.scene.container().start();
    one.scene.attach(&other);
    let theirs = file(format!("/proc/{}/root{BOOT_ID}", other.pid()));
    assert_ne!(theirs, first);
    for _ in 0..20 {
        assert_eq!(one.seen(BOOT_ID), first);
    }
}

#[test]
fn privileged_what_tells_of_the_machine_is_empty_and_for_root_alone() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    let mut seen = 0;
    for path in VIEWS.iter().filter(|path| **path != BOOT_ID) {
        if !Path::new(path).exists() {
            continue;
        }
        seen += 1;
        assert_eq!(live.container.read(path), "", "{path}");
        let stat = live.container.ask(&["stat", path])[*path].clone();
        assert_eq!(stat["mode"], "400", "{path}");
        assert_eq!(
            (&stat["uid"], &stat["gid"]),
            (&0.into(), &0.into()),
            "{path}"
        );
    }
    assert!(seen > 0, "this kernel has none of {VIEWS:?}");
}

#[test]
fn privileged_what_is_not_a_view_is_byte_for_byte_the_kernels() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    let mut compared = 0;
    for path in KERNELS.iter().chain(PASSED_THROUGH) {
        if !Path::new(path).exists() {
            continue;
        }
        compared += 1;
        assert_eq!(live.container.read(path), file(path), "{path}");
        let stat = live.container.ask(&["stat", path])[*path].clone();
        let is_grafted = stat["fstype"] == FUSE;
        assert_eq!(is_grafted, PASSED_THROUGH.contains(path), "{path}");
    }
    assert!(compared > 8, "{compared} files");
}
