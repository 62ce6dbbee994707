//! The kernel's values for a cgroup and for the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{Cgroup, cpu_list, mounts_of};

/// How long a comparison is tried again while figures move.
const PATIENCE: Duration = Duration::from_secs(5);

/// What comes of comparing.
pub(crate) type Verdict = Result<(), String>;

/// The text of a file.
#[track_caller]
pub(crate) fn file(path: impl AsRef<Path>) -> String {
    match fs::read_to_string(path.as_ref()) {
        Ok(text) => text,
        Err(error) => panic!("{}: {error}", path.as_ref().display()),
    }
}

/// Where a controller of v1 is mounted, or `unified`, the hierarchy of v2.
pub(crate) fn hierarchy(name: &str) -> Option<PathBuf> {
    mounts_of("thread-self").iter().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let (left, right): (Vec<&str>, Vec<&str>) =
            (left.split(' ').collect(), right.split(' ').collect());
        let is_it = match right[0] {
            "cgroup" => right[2].split(',').any(|option| option == name),
            "cgroup2" => name == "unified",
            _ => false,
        };
        // The whole of it: what somebody has mounted of a part is another's.
        (is_it && left[3] == "/").then(|| PathBuf::from(left[4]))
    })
}

/// The directory of a cgroup for a controller.
#[track_caller]
pub(crate) fn dir(cgroup: &Cgroup, controller: &str) -> PathBuf {
    let Some(top) = hierarchy(controller) else {
        panic!("this machine has no {controller} controller: mount its cgroups");
    };
    top.join(cgroup.path().trim_start_matches('/'))
}

/// Make a cgroup where [`Cgroup`] makes none, and put a process into it. It is removed with the others.
#[track_caller]
pub(crate) fn join(cgroup: &Cgroup, controller: &str, pid: u32) -> PathBuf {
    let dir = dir(cgroup, controller);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
    dir
}

/// `key value` on each line.
pub(crate) fn keys(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.trim().split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// Compares until the sources stand still meanwhile and the view agrees. A view may be as old as its freshness,
/// so one that disagrees is looked at again, but not for long.
#[track_caller]
pub(crate) fn steady<S: PartialEq>(
    sources: impl Fn() -> S,
    mut view: impl FnMut() -> String,
    judge: impl Fn(&S, &str) -> Verdict,
) {
    let started = Instant::now();
    let mut trouble = "its sources never stood still".to_owned();
    while started.elapsed() < PATIENCE {
        let before = sources();
        let seen = view();
        if before != sources() {
            continue;
        }
        match judge(&before, &seen) {
            Ok(()) => return,
            Err(error) => trouble = error,
        }
    }
    panic!("{trouble}");
}

/// An error that names what differs.
pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Verdict {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: got {got:?}, expected {expected:?}"))
}

/// Fails when a number is out of bounds.
#[track_caller]
pub(crate) fn between(what: &str, got: u64, least: u64, most: u64) {
    assert!(
        (least..=most).contains(&got),
        "{what}: got {got}, expected {least} to {most}"
    );
}

/// The figures of the memory controller.
#[derive(Debug, PartialEq)]
pub(crate) struct Memory {
    stat: BTreeMap<String, u64>,
    /// L, in bytes.
    pub(crate) total: u64,
    /// F, in bytes.
    pub(crate) free: u64,
    /// What memsw leaves beyond L, in bytes; 0 on a machine without swap.
    pub(crate) swap_total: u64,
    /// What of it the container has not used itself, in bytes.
    pub(crate) swap_free: u64,
}

impl Memory {
    #[track_caller]
    pub(crate) fn read(cgroup: &Cgroup) -> Self {
        let own = dir(cgroup, "memory");
        let number = |path: PathBuf| -> u64 { file(path).trim().parse().unwrap() };
        let kernel = file("/proc/meminfo");
        let machine = support::number_after(&kernel, "MemTotal:") * 1024;
        let usage = number(own.join("memory.usage_in_bytes"));
        let (mut total, mut free) = (machine, machine.saturating_sub(usage));
        let levels = own.ancestors();
        for level in levels.take_while(|level| level.join("memory.limit_in_bytes").exists()) {
            let limit = number(level.join("memory.limit_in_bytes"));
            total = total.min(limit);
            free = free.min(limit.saturating_sub(number(level.join("memory.usage_in_bytes"))));
        }
        free = free.min(total.saturating_sub(usage));
        let (mut swap_total, mut swap_used) = (0, 0);
        // Without accounting of swap there are no such files, and no swap to count on.
        if own.join("memory.memsw.limit_in_bytes").exists() {
            let levels = own
                .ancestors()
                .map(|level| level.join("memory.memsw.limit_in_bytes"));
            let limits = levels.take_while(|limit| limit.exists()).map(number);
            let limit = limits.min().unwrap().saturating_sub(total);
            swap_total = limit.min(support::number_after(&kernel, "SwapTotal:") * 1024);
            swap_used = number(own.join("memory.memsw.usage_in_bytes")).saturating_sub(usage);
        }
        let stat = keys(&file(own.join("memory.stat")));
        let whole = |(key, value): (String, u64)| Some((key.strip_prefix("total_")?.into(), value));
        Self {
            stat: stat.into_iter().filter_map(whole).collect(),
            total,
            free,
            swap_total,
            swap_free: swap_total.saturating_sub(swap_used),
        }
    }

    /// A `total_` key of memory.stat; one that this kernel does not have is zero.
    pub(crate) fn stat(&self, key: &str) -> u64 {
        self.stat.get(key).copied().unwrap_or(0)
    }
}

/// The CPUs of a cgroup.
#[derive(Debug, PartialEq)]
pub(crate) struct Cpus {
    /// C
    pub(crate) allowed: Vec<u64>,
    /// V
    pub(crate) visible: Vec<u64>,
}

impl Cpus {
    #[track_caller]
    pub(crate) fn read(cgroup: &Cgroup) -> Self {
        let allowed = cpu_list(&file(dir(cgroup, "cpuset").join("cpuset.effective_cpus")));
        let own = dir(cgroup, "cpu");
        let quota = own.ancestors().filter_map(|level| {
            let number = |name: &str| {
                fs::read_to_string(level.join(name))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            };
            let (quota, period): (i64, i64) =
                (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?);
            // -1 is no quota.
            (quota > 0).then(|| quota.div_euclid(period) + i64::from(quota % period > 0))
        });
        let most = quota
            .min()
            .map_or(allowed.len(), |cpus| cpus.max(1) as usize);
        let visible = allowed.iter().copied().take(most).collect();
        Self { allowed, visible }
    }
}
