//! The CPUs of a container: C, the CPUs that it may run on, and V, the CPUs that are online for it.
//!
//! The container sees a host some of whose CPUs are offline. The kernel answers system calls with its own possible CPUs
//! (bpf(2), getcpu(2), sched_getaffinity(2)), so these are never fewer. Threads run on all of C, so a CPU of C that only a
//! quota takes out of V keeps its topology and its caches.

use crate::cgroup::cpu::{Quota, read_quota};
use crate::cgroup::cpuset::read_cpus;
use crate::cpulist::CpuSet;
use crate::text::{fields, parse_u64};
use crate::{Context, Controller, CpuIds, CpuQuota, Error};

/// The directory of the CPUs.
pub(crate) const PATH: &str = "/sys/devices/system/cpu";

/// The CPUs of a container, by the host's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus {
    /// C: the online CPUs of the effective cpuset.
    pub allowed: CpuSet,
    /// V: the lowest CPUs of C, as many as the quota amounts to, at least one. All of C where the quota is ignored.
    pub visible: CpuSet,
    /// The binding quota.
    pub quota: Option<Quota>,
    ids: CpuIds,
}

impl Cpus {
    /// Returns the numbering.
    pub fn ids(&self) -> CpuIds {
        self.ids
    }

    /// Returns the number that views show for a CPU of C.
    pub fn shown_id(&self, cpu: u32) -> u32 {
        match self.ids {
            CpuIds::Physical => cpu,
            CpuIds::Dense => self.allowed.rank(cpu),
        }
    }

    /// Returns a set of the host's CPUs as views show it, without those that are not in `scope`.
    pub fn shown(&self, set: &CpuSet, scope: &CpuSet) -> CpuSet {
        set.intersection(scope)
            .iter()
            .map(|cpu| self.shown_id(cpu))
            .collect()
    }

    /// Returns V as views show it.
    pub fn shown_visible(&self) -> CpuSet {
        self.shown(&self.visible, &self.allowed)
    }

    /// Returns C as views show it.
    pub fn shown_allowed(&self) -> CpuSet {
        self.shown(&self.allowed, &self.allowed)
    }

    /// Returns the host's CPU with a shown number, which the host need not have. Dense numbers are those of C.
    pub fn host_id(&self, shown: u32) -> Option<u32> {
        match self.ids {
            CpuIds::Physical => Some(shown),
            CpuIds::Dense => self.allowed.iter().nth(shown as usize),
        }
    }
}

/// Reads the CPUs of the container.
pub fn read(cx: &Context<'_>) -> Result<Cpus, Error> {
    let path = "/sys/devices/system/cpu/online";
    let online = CpuSet::parse_list(&cx.host.read(path)?)
        .filter(|online| !online.is_empty())
        .ok_or_else(|| Error::malformed(path, "not a list of CPUs"))?;
    let cgroup = cx.cgroup()?;
    let effective = match cgroup.of(Controller::Cpuset) {
        Some(hierarchy) => read_cpus(hierarchy, &online)?,
        None => None,
    };
    let quota = match cgroup.of(Controller::Cpu) {
        Some(hierarchy) => read_quota(hierarchy)?,
        None => None,
    };
    Ok(choose(
        effective.unwrap_or(online),
        quota,
        cx.cpu_quota(),
        cx.settings.cpu_ids,
    ))
}

/// Chooses V: the first n of C, n = max(1, min(|C|, ceil(quota))).
fn choose(allowed: CpuSet, quota: Option<Quota>, effect: CpuQuota, ids: CpuIds) -> Cpus {
    let count = match quota {
        Some(quota) if effect == CpuQuota::Online => {
            usize::try_from(quota.cpus()).unwrap_or(usize::MAX)
        }
        _ => usize::MAX,
    };
    let visible = allowed.first(count.max(1));
    Cpus {
        allowed,
        visible,
        quota,
        ids,
    }
}

/// Appends the list at `path`, reduced to the CPUs in `scope`. A text that is no list stays as it is: nohz_full is
/// "(null)" where there is none.
pub(crate) fn render_list(
    cx: &Context<'_>,
    cpus: &Cpus,
    path: &str,
    scope: &CpuSet,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let text = cx.host.read(path)?;
    let Some(set) = CpuSet::parse_list(&text) else {
        out.extend_from_slice(&text);
        return Ok(());
    };
    cpus.shown(&set, scope).render_list(out);
    out.push(b'\n');
    Ok(())
}

/// Appends the mask at `path`, reduced to the CPUs in `scope` and as wide as it was.
pub(crate) fn render_mask(
    cx: &Context<'_>,
    cpus: &Cpus,
    path: &str,
    scope: &CpuSet,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let text = cx.host.read(path)?;
    let set = CpuSet::parse_mask(&text).ok_or_else(|| Error::malformed(path, "not a mask"))?;
    cpus.shown(&set, scope).render_mask_like(&text, out);
    out.push(b'\n');
    Ok(())
}

/// Returns whether a CPU of C has the frequency policy at `path`. A path that does not exist is no policy.
pub(crate) fn is_policy_of(cx: &Context<'_>, cpus: &Cpus, path: &str) -> Result<bool, Error> {
    let text = cx.host.read_optional(&format!("{path}/related_cpus"))?;
    let has_one = |text: &[u8]| !parse_numbers(text).intersection(&cpus.allowed).is_empty();
    Ok(text.is_some_and(|text| has_one(&text)))
}

/// Parses numbers of CPUs between spaces (cpufreq_show_cpus).
pub(crate) fn parse_numbers(text: &[u8]) -> CpuSet {
    fields(text)
        .filter_map(parse_u64)
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect()
}

/// Returns whether CPUs have other numbers than on the host.
pub(crate) fn renumbered(cx: &Context<'_>) -> bool {
    cx.settings.cpu_ids == CpuIds::Dense
}

/// Returns CPUs without a quota, for the tests of emulators.
#[cfg(test)]
pub(crate) fn fixed(allowed: CpuSet, ids: CpuIds) -> Cpus {
    choose(allowed, None, CpuQuota::Online, ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(list: &str) -> CpuSet {
        CpuSet::parse_list(list.as_bytes()).unwrap()
    }

    fn quota(quota_usec: u64) -> Option<Quota> {
        Some(Quota {
            quota_usec,
            period_usec: 100_000,
            level: 0,
        })
    }

    #[test]
    fn a_quota_shows_the_lowest_cpus_of_the_set() {
        let cpus = choose(
            set("2-3,8"),
            quota(150_000),
            CpuQuota::Online,
            CpuIds::Physical,
        );
        assert_eq!(cpus.visible, set("2-3"));
        assert_eq!(cpus.shown_visible(), set("2-3"));
        assert_eq!(cpus.shown_allowed(), set("2-3,8"));
    }

    #[test]
    fn a_quota_that_is_ignored_takes_no_cpu_away_and_still_binds() {
        for ids in [CpuIds::Physical, CpuIds::Dense] {
            let cpus = choose(set("2-3,8"), quota(50_000), CpuQuota::Ignore, ids);
            assert_eq!(cpus.visible, set("2-3,8"));
            assert_eq!(cpus.quota, quota(50_000));
        }
    }

    #[test]
    fn dense_ids_number_the_whole_set() {
        let cpus = choose(set("2-3,8"), quota(100), CpuQuota::Online, CpuIds::Dense);
        assert_eq!(cpus.shown_visible(), set("0"));
        assert_eq!(cpus.shown_allowed(), set("0-2"));
        assert_eq!(cpus.host_id(2), Some(8));
        assert_eq!(cpus.host_id(3), None);
    }

    proptest! {
        #[test]
        fn visible_is_never_empty_and_never_more_than_allowed(
            cpus in proptest::collection::btree_set(0u32..256, 1..32),
            quota_usec: u64,
            period_usec: u64,
        ) {
            let allowed: CpuSet = cpus.into_iter().collect();
            let quota = Some(Quota { quota_usec, period_usec, level: 0 });
            for ids in [CpuIds::Physical, CpuIds::Dense] {
                let cpus = choose(allowed.clone(), quota, CpuQuota::Online, ids);
                prop_assert!(!cpus.visible.is_empty());
                prop_assert_eq!(cpus.visible.intersection(&allowed), cpus.visible.clone());
                for cpu in allowed.iter() {
                    prop_assert_eq!(cpus.host_id(cpus.shown_id(cpu)), Some(cpu));
                }
            }
        }
    }
}
