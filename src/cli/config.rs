//! The configuration of the host: `/etc/eci-fs/config.toml`. Nothing needs one.

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
const MAX_TIMEOUT: u64 = 600;

/// What can be configured. A file that has anything else is refused, so that a slip of the pen is no silent default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Of `eci-fs hook`.
    pub hook: Hook,
    /// Of `eci-fs runtime`.
    pub runtime: Runtime,
    /// Of the daemon.
    pub raise: Ceilings,
}

/// The table `[hook]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Hook {
    /// What becomes of a container whose views cannot be grafted.
    pub on_error: OnError,
    /// How long the hook may take, in seconds.
    pub timeout: u64,
    /// What containers may choose by annotations.
    pub allow: Vec<Choice>,
    /// Where the daemon is.
    pub runtime_dir: PathBuf,
    /// Whether a daemon is started where none listens.
    pub start: bool,
}

/// The table `[runtime]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Runtime {
    /// The runtime that is executed: a path, or a name that is looked for in PATH.
    pub path: Option<PathBuf>,
}

/// What becomes of a container whose views cannot be grafted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// It does not start.
    Fail,
    /// It starts with the kernel's files, and the reason is logged.
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
    /// How long the hook may take.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

impl Config {
    /// Read the file at `path`; all defaults when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or says what means nothing here.
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
