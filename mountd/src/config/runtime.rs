//! The table `[runtime]`.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The table `[runtime]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// The runtime that is executed: a path, or a name that is looked up in PATH.
    #[serde(deserialize_with = "path")]
    pub path: Option<PathBuf>,
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.as_os_str().is_empty() {
        return Err(D::Error::custom("in [runtime], path is empty"));
    }
    Ok(Some(path))
}
