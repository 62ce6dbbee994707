//! Settings of one container alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest freshness that can be chosen, in milliseconds: an hour.
pub const MAX_FRESHNESS_MS: u64 = 3_600_000;

/// A choice that a container can make by an annotation. Its name is that of the annotation without the prefix "eci-fs.",
/// and the one in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Turns all views on or off.
    Enabled,
    /// Selects views.
    Views,
    /// Sets the greatest age of views.
    Freshness,
    /// Sets the numbering of CPUs.
    CpuIds,
    /// Sets the effect of a CPU quota.
    CpuQuota,
}

impl Choice {
    /// All choices.
    pub const ALL: [Self; 5] = [
        Self::Enabled,
        Self::Views,
        Self::Freshness,
        Self::CpuIds,
        Self::CpuQuota,
    ];

    /// Returns the name of the annotation without its prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Views => "views",
            Self::Freshness => "freshness",
            Self::CpuIds => "cpu-ids",
            Self::CpuQuota => "cpu-quota",
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The numbering of CPUs in every view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuIds {
    /// As `sched_getaffinity` numbers them.
    Physical,
    /// 0 to n-1.
    Dense,
}

/// The effect of a CPU quota on the CPUs that are online in every view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuQuota {
    /// As many CPUs are online as the quota amounts to.
    Online,
    /// All CPUs of the cpuset are online.
    Ignore,
}

impl FromStr for CpuQuota {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "online" => Ok(Self::Online),
            "ignore" => Ok(Self::Ignore),
            _ => Err("neither online nor ignore"),
        }
    }
}

/// The choices made for a container. Without one the setting is that of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Choices {
    /// Paths that are not grafted, as the catalogue writes them. The asking program resolves patterns; the daemon
    /// compares.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// The age that a view may have, in milliseconds; 0 puts every view on the live connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness_ms: Option<u64>,
    /// The numbering of CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ids: Option<CpuIds>,
    /// The effect of a CPU quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<CpuQuota>,
}

impl Choices {
    /// Returns true if the entry at `path` of a catalogue is grafted.
    pub fn grafts(&self, path: &str) -> bool {
        self.without.iter().all(|without| without != path)
    }

    /// Returns true if nothing is chosen.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
