//! The path of the configuration.

use std::path::{Path, PathBuf};

/// The path of the configuration where nobody names one.
pub const DEFAULT: &str = "/etc/eci-fs/config.toml";

/// The environment variable that names the configuration where no option does.
pub const VARIABLE: &str = "ECI_FS_CONFIG";

/// The path of the configuration, and whether somebody named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The path.
    pub path: PathBuf,
    /// True if an option or `ECI_FS_CONFIG` named it. Such a file must exist.
    pub is_named: bool,
}

impl Location {
    /// Returns the location that `ECI_FS_CONFIG` names, or else the default.
    pub fn of_environment() -> Self {
        let variable = std::env::var_os(VARIABLE);
        Self::of(variable.as_deref().map(Path::new))
    }

    /// Returns the location that an option or `ECI_FS_CONFIG` named, or else the default.
    pub fn of(named: Option<&Path>) -> Self {
        Self::below(Path::new("/"), named)
    }

    /// Returns the location that was named, or else the default on the host whose root directory is `root`.
    pub fn below(root: &Path, named: Option<&Path>) -> Self {
        match named {
            Some(path) => Self::named(path),
            None => Self {
                path: root.join(DEFAULT.trim_start_matches('/')),
                is_named: false,
            },
        }
    }

    /// Returns the location of a file that must exist.
    pub fn named(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            is_named: true,
        }
    }
}
