//! What would tell about the host: counters of its kernel, its file systems and its memory.

use std::fs;
use std::path::Path;

use support::Container;

use crate::scene;
use crate::source::file;

/// Files with one text for all containers.
const TEXTS: &[(&str, &str)] = &[
    ("/proc/kpagecount", ""),
    ("/proc/kpageflags", ""),
    ("/proc/kpagecgroup", ""),
    ("/proc/vmallocinfo", ""),
    ("/proc/allocinfo", ""),
    ("/proc/lock_stat", ""),
    ("/proc/key-users", ""),
    ("/proc/mdstat", "Personalities : \nunused devices: <none>\n"),
    ("/proc/sys/fs/inode-nr", "0\t0\n"),
    ("/proc/sys/fs/inode-state", "0\t0\t0\t0\t0\t0\t0\n"),
    ("/proc/sys/fs/dentry-state", "0\t0\t45\t0\t0\t0\n"),
    ("/proc/sys/kernel/pty/nr", "0\n"),
    ("/sys/kernel/uevent_seqnum", "0\n"),
    ("/sys/kernel/vmcoreinfo", ""),
];

pub(crate) const VIEWS: &[&str] = &[
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/kpagecgroup",
    "/proc/vmallocinfo",
    "/proc/allocinfo",
    "/proc/lock_stat",
    "/proc/key-users",
    "/proc/mdstat",
    "/proc/cgroups",
    "/proc/modules",
    "/proc/sys/fs/inode-nr",
    "/proc/sys/fs/inode-state",
    "/proc/sys/fs/dentry-state",
    "/proc/sys/kernel/pty/nr",
    "/sys/kernel/uevent_seqnum",
    "/sys/kernel/vmcoreinfo",
];

/// Directories in which at most `features` is left.
pub(crate) const EMPTY: &[&str] = &[
    "/proc/irq",
    "/proc/fs/ext4",
    "/proc/fs/jbd2",
    "/proc/fs/xfs",
    "/proc/fs/f2fs",
    "/proc/fs/cifs",
    "/proc/fs/fscache",
    "/proc/sys/fs/quota",
    "/sys/fs/ext4",
    "/sys/fs/btrfs",
    "/sys/fs/xfs",
    "/sys/fs/f2fs",
    "/sys/fs/bcachefs",
    "/sys/fs/nilfs2",
    "/sys/class/bdi",
    "/sys/class/thermal",
    "/sys/devices/virtual/bdi",
    "/sys/devices/virtual/thermal",
    "/sys/devices/system/edac",
    "/sys/kernel/slab",
    "/sys/kernel/irq",
    "/sys/kernel/boot_params",
    "/sys/kernel/mm/damon",
    "/sys/kernel/mm/page_idle",
    "/sys/kernel/mm/cma",
];

/// Directories of settings and counters.
pub(crate) const COUNTERS: &[&str] = &[
    "/sys/kernel/mm/hugepages",
    "/sys/kernel/mm/ksm",
    "/sys/kernel/mm/transparent_hugepage",
];

/// Names of counters of the host, wherever they are in the directories above.
fn is_counter(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(
        name,
        "full_scans"
            | "pages_collapsed"
            | "pages_shared"
            | "pages_sharing"
            | "pages_scanned"
            | "pages_unshared"
            | "pages_volatile"
            | "pages_skipped"
            | "general_profit"
            | "ksm_zero_pages"
            | "stable_node_chains"
            | "stable_node_dups"
            | "resv_hugepages"
            | "surplus_hugepages"
    )
}

/// Calls `check` with an attached container of root, and one in a user namespace.
#[track_caller]
fn in_each(check: impl Fn(&mut Container)) {
    let Some(scene) = scene() else {
        return;
    };
    for user in [false, true] {
        let mut container = scene.container().user_namespace(user).start();
        scene.attach(&container);
        check(&mut container);
    }
}

/// The paths of all files below a directory of the host, without those that links lead to.
fn files_below(dir: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{dir}/{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files_below(&path, found),
            kind if kind.is_file() => found.push(path),
            _ => {}
        }
    }
}

#[test]
fn privileged_counters_of_the_hosts_kernel_say_nothing() {
    in_each(|container| {
        let mut compared = 0;
        for (path, text) in TEXTS {
            if Path::new(path).exists() {
                assert_eq!(container.read(path), *text, "{path}");
                compared += 1;
            }
        }
        assert!(compared > 6, "{compared} files");
    });
}

#[test]
fn privileged_directories_of_what_the_host_does_are_empty() {
    in_each(|container| {
        let mut compared = 0;
        for path in EMPTY {
            if !Path::new(path).exists() {
                continue;
            }
            let ls = container.busybox(&["ls", "-A", path]);
            let names: Vec<&str> = ls.lines().collect();
            let kept: &[&str] = match Path::new(path).join("features").exists() {
                true => &["features"],
                false => &[],
            };
            assert_eq!(names, kept, "{path}");
            compared += 1;
        }
        assert!(compared > 6, "{compared} directories");
        let max_bytes = container.busybox(&["find", "/sys", "-name", "max_bytes"]);
        assert_eq!(max_bytes, "");
    });
}

#[test]
fn privileged_settings_are_the_kernels_and_the_counters_beside_them_are_zero() {
    in_each(|container| {
        let (mut settings, mut counters) = (0, 0);
        for dir in COUNTERS {
            if !Path::new(dir).exists() {
                continue;
            }
            let mut files = Vec::new();
            files_below(dir, &mut files);
            for path in files {
                if path.contains("/stats/") {
                    let answer = container.ask(&["read", &path])[&path].clone();
                    assert_eq!(answer["error"], "ENOENT", "{path}");
                } else if is_counter(&path) {
                    assert_eq!(container.read(&path), "0\n", "{path}");
                    counters += 1;
                } else if let Ok(kernel) = fs::read_to_string(&path)
                    && !dir.ends_with("/hugepages")
                {
                    assert_eq!(container.read(&path), kernel, "{path}");
                    settings += 1;
                }
            }
        }
        let has_ksm = Path::new("/sys/kernel/mm/ksm").exists();
        assert!(
            settings > 5 && (counters > 5 || !has_ksm),
            "{settings}, {counters}"
        );
    });
}

#[test]
fn privileged_the_number_of_cgroups_is_the_containers() {
    in_each(|container| {
        let seen = container.read("/proc/cgroups");
        let kernel = file("/proc/cgroups");
        assert_eq!(seen.lines().count(), kernel.lines().count());
        for (seen, kernel) in seen.lines().zip(kernel.lines()).skip(1) {
            let (seen, kernel): (Vec<&str>, Vec<&str>) =
                (seen.split('\t').collect(), kernel.split('\t').collect());
            assert_eq!(seen[2], "1", "{seen:?}");
            for column in [0, 1, 3] {
                assert_eq!(seen[column], kernel[column]);
            }
        }
    });
}

#[test]
fn privileged_only_modules_use_modules() {
    if !Path::new("/proc/modules").exists() {
        return;
    }
    in_each(|container| {
        let seen = container.read("/proc/modules");
        for row in seen.lines() {
            let columns: Vec<&str> = row.split(' ').collect();
            let users = columns[3].matches(',').count().to_string();
            assert!(columns[2] == users || columns[2] == "-", "{row}");
        }
    });
}

#[test]
fn privileged_a_container_that_can_measure_cpus_has_the_kernels_settings() {
    let Some(scene) = scene() else {
        return;
    };
    let container = scene.container().measuring(true).start();
    scene.attach(&container);
    let grafts = container.grafts();
    for path in COUNTERS.iter().copied().chain([
        "/proc/irq",
        "/sys/class/bdi",
        "/sys/devices/virtual/bdi",
        "/sys/fs/ext4",
    ]) {
        assert!(!grafts.iter().any(|graft| graft == path), "{path}");
    }
    // What no program writes to is hidden from it all the same.
    for path in ["/proc/vmallocinfo", "/proc/kpagecount", "/sys/kernel/slab"] {
        let is_grafted = grafts.iter().any(|graft| graft == path);
        assert_eq!(is_grafted, Path::new(path).exists(), "{path}");
    }
}

#[test]
fn privileged_programs_that_look_at_the_host_go_on() {
    in_each(|container| {
        for command in [
            &["lsblk", "--all"][..],
            &["slabtop", "--once"],
            &["lscpu"],
            &["lsmem"],
            &["lsmod"],
            &["ss", "-m"],
            &["netstat", "-s"],
            &["sar", "-v", "1", "1"],
            &["numactl", "--hardware"],
            &["sysctl", "-a"],
            &["lstopo-no-graphics"],
        ] {
            let outside = std::process::Command::new(command[0])
                .args(&command[1..])
                .output();
            let Ok(outside) = outside else {
                // The program is not installed.
                continue;
            };
            let inside = container.try_run(command);
            assert_eq!(
                inside.code,
                outside.status.code(),
                "{command:?}: {inside:?}"
            );
        }
    });
}
