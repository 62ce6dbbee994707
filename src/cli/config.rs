//! The configuration of the host: `/etc/eci-fs/config.toml`. The file is optional.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
pub use eci_fs_mountd::config::DEFAULT;
use eci_fs_mountd::config::{self, Ceilings};
use eci_fs_mountd::runtime_dir;
use eci_fs_protocol::error::{Error, Result};
use serde::Deserialize;

use crate::oci::annotations::Choice;

/// The longest time limit of a hook, in seconds.
pub const MAX_TIMEOUT: u64 = 600;

/// The whole configuration. A file with any other key is refused, so that a misspelled key is not ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The settings of `eci-fs hook`.
    pub hook: Hook,
    /// The settings of `eci-fs runtime`.
    pub runtime: Runtime,
    /// The limits up to which the daemon raises sysctls of the host.
    pub raise: Ceilings,
}

/// The table `[hook]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Hook {
    /// The reaction to a container whose views cannot be grafted.
    pub on_error: OnError,
    /// The time limit of the hook, in seconds.
    pub timeout: u64,
    /// The choices that containers may make by annotations.
    pub allow: Vec<Choice>,
    /// The runtime directory of the daemon.
    pub runtime_dir: PathBuf,
    /// If true, the hook starts a daemon where none listens.
    pub start: bool,
}

/// The table `[runtime]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Runtime {
    /// The runtime that is executed: a path, or a name that is looked up in PATH.
    pub path: Option<PathBuf>,
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

impl Config {
    /// Reads the file at `path`. Returns the defaults when there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, or has an unknown key or an invalid value.
    pub fn read(path: &Path) -> Result<Self> {
        config::read::<Self>(path)?
            .checked()
            .map_err(|error| error.context(path.display()))
    }

    fn checked(self) -> Result<Self> {
        let config = self;
        config.raise.check()?;
        if !(1..=MAX_TIMEOUT).contains(&config.hook.timeout) {
            return Err(Error::refused(format!(
                "hook.timeout is {}, and must be 1 to {MAX_TIMEOUT} seconds",
                config.hook.timeout
            )));
        }
        if !config.hook.runtime_dir.is_absolute() {
            return Err(Error::refused("hook.runtime-dir is no absolute path"));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        config::parse::<Config>(text).and_then(Config::checked)
    }

    #[test]
    fn without_a_file_everything_is_as_documented() {
        let config = Config::read(Path::new("/nonexistent/config.toml")).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.hook.on_error, OnError::Fail);
        assert_eq!(config.hook.limit(), Duration::from_secs(10));
        assert_eq!(config.hook.allow, Choice::ALL);
    }

    #[test]
    fn the_documented_file_says_what_is_so_without_one() {
        let document = include_str!("../../docs/engines.md");
        let block = document.split("```toml\n").nth(1).unwrap();
        let config = parse(block.split("```").next().unwrap()).unwrap();
        assert_eq!(config.hook, Config::default().hook);
        assert_eq!(config.runtime.path, Some("runc".into()));
    }

    #[test]
    fn everything_can_be_set() {
        let config = parse(
            "[hook]\non-error = 'ignore'\ntimeout = 3\nallow = ['views', 'cpu-ids']\n\
             runtime-dir = '/run/x'\nstart = true\n[runtime]\npath = '/usr/bin/crun'\n",
        );
        let config = config.unwrap();
        assert_eq!(config.hook.on_error, OnError::Ignore);
        assert_eq!(config.hook.allow, [Choice::Views, Choice::CpuIds]);
        assert_eq!(config.runtime.path, Some("/usr/bin/crun".into()));
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_line() {
        for (text, word) in [
            ("\n[hook]\nonerror = 'fail'\n", "line 3"),
            ("[hooks]\n", "hooks"),
            ("[hook]\non-error = 'retry'\n", "retry"),
            ("[hook]\nallow = ['everything']\n", "everything"),
            ("[hook]\ntimeout = 0\n", "1 to 600"),
            ("[hook]\nruntime-dir = 'run'\n", "absolute"),
            ("[hook\n", "line 1"),
            ("[raise]\n'/proc/sys/kernel/panic' = 1\n", "line 2"),
            ("[raise]\n'/proc/sys/fs/nr_open' = 0\n", "1 to"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
