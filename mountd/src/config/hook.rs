//! The table `[hook]`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::runtime_dir;
use eci_fs_protocol::choices::Choice;

/// The longest time limit of a hook, in seconds.
pub const MAX_TIMEOUT: u64 = 600;

/// The table `[hook]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Hook {
    /// The reaction to a container whose views cannot be grafted.
    pub on_error: OnError,
    /// The time limit of the hook, in seconds.
    #[serde(deserialize_with = "timeout")]
    pub timeout: u64,
    /// The choices that containers may make by annotations.
    pub allow: Vec<Choice>,
    /// The runtime directory of the daemon.
    #[serde(deserialize_with = "absolute")]
    pub runtime_dir: PathBuf,
    /// If true, the hook starts a daemon where none listens.
    pub start: bool,
}

/// The reaction to a container whose views cannot be grafted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The container does not start.
    Fail,
    /// The container starts with the kernel's files, and the reason is logged.
    Ignore,
}

impl Default for Hook {
    fn default() -> Self {
        Self {
            on_error: OnError::Fail,
            timeout: 10,
            allow: Choice::ALL.to_vec(),
            runtime_dir: runtime_dir::DEFAULT.into(),
            start: false,
        }
    }
}

impl Hook {
    /// Returns the time limit of the hook.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let timeout = u64::deserialize(deserializer)?;
    if (1..=MAX_TIMEOUT).contains(&timeout) {
        return Ok(timeout);
    }
    Err(D::Error::custom(format!(
        "in [hook], timeout is {timeout}, and must be 1 to {MAX_TIMEOUT} seconds"
    )))
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        return Ok(path);
    }
    Err(D::Error::custom(
        "in [hook], runtime-dir is no absolute path",
    ))
}
