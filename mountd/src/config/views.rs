//! The table `[views]`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use eci_fs_protocol::choices::{CpuIds, CpuQuota, MAX_FRESHNESS_MS};
use eci_fs_protocol::link::Settings;

/// The table `[views]`: what an administrator chooses for the views of all containers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Views {
    /// The freshness, in milliseconds.
    #[serde(deserialize_with = "freshness")]
    pub freshness: u64,
    /// True if MemAvailable is never more than what the host has left.
    pub host_clamp: bool,
    /// The numbering of CPUs.
    pub cpu_ids: CpuIds,
    /// The effect of a CPU quota. Without the key it depends on the container ([`Settings::cpu_quota`]).
    pub cpu_quota: Option<CpuQuota>,
}

impl Default for Views {
    fn default() -> Self {
        let Settings {
            freshness_ms: freshness,
            host_clamp,
            cpu_ids,
            cpu_quota,
            ..
        } = Settings::default();
        Self {
            freshness,
            host_clamp,
            cpu_ids,
            cpu_quota,
        }
    }
}

fn freshness<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let freshness = u64::deserialize(deserializer)?;
    if freshness <= MAX_FRESHNESS_MS {
        return Ok(freshness);
    }
    Err(D::Error::custom(format!(
        "in [views], freshness is {freshness}, and must be 0 to {MAX_FRESHNESS_MS} milliseconds"
    )))
}
