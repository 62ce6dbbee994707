//! The table `[server]`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use eci_fs_protocol::link::Settings;

/// The highest share, in percent of one CPU. It is that of a hundred CPUs.
const MAX_SHARE: u32 = 10_000;

/// The table `[server]`: what the server may spend for a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Server {
    /// The CPU time for one container in the long run, in percent of one CPU; 0 for no limit.
    #[serde(deserialize_with = "share")]
    pub cpu_share: u32,
}

impl Default for Server {
    fn default() -> Self {
        let cpu_share = Settings::default().cpu_share;
        Self { cpu_share }
    }
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let share = u32::deserialize(deserializer)?;
    if share <= MAX_SHARE {
        return Ok(share);
    }
    Err(D::Error::custom(format!(
        "in [server], cpu-share is {share}, and must be 0 to {MAX_SHARE} percent"
    )))
}
