//! The pids controller, which limits threads. Both versions of cgroups have the same file.

use crate::Error;
use crate::cgroup::{Cgroup, Controller, Hierarchy, Limit};

/// Returns the smallest limit of the cgroup and its ancestors.
pub(crate) fn limit(cgroup: &Cgroup) -> Result<Limit, Error> {
    const FILE: &str = "pids.max";
    let mut least = Limit::Max;
    let Some(hierarchy) = cgroup.of(Controller::Pids) else {
        return Ok(least);
    };
    for level in hierarchy.levels() {
        if let Some(text) = hierarchy.read(level, FILE)? {
            let limit = Limit::parse_v2(&text)
                .ok_or_else(|| Error::malformed(&Hierarchy::name(level, FILE), "not a limit"))?;
            least = least.min(limit);
        }
    }
    Ok(least)
}
