//! The configuration of the host: `/etc/eci-fs/config.toml`. Each program reads the tables that are its own.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::host_sysctl::HostSysctl;

/// The path of the file, unless an option names another one.
pub const DEFAULT: &str = "/etc/eci-fs/config.toml";

/// The tables that the daemon reads. The other tables are for the other programs, which refuse what means nothing
/// there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The table `[raise]`.
    pub raise: Ceilings,
}

/// The table `[raise]`: the ceiling of each sysctl of the host. One that is not in it is never raised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Ceilings(BTreeMap<HostSysctl, u64>);

impl Ceilings {
    /// Returns the ceiling of one.
    pub fn of(&self, tunable: HostSysctl) -> Option<u64> {
        self.0.get(&tunable).copied()
    }

    /// Returns the sysctls that may be raised.
    pub fn tunables(&self) -> Vec<HostSysctl> {
        self.0.keys().copied().collect()
    }

    /// Checks that the kernel takes all of them.
    ///
    /// # Errors
    /// The error names the first that it does not take.
    pub fn check(&self) -> Result<()> {
        for (tunable, ceiling) in &self.0 {
            let most = tunable.most();
            if !(1..=most).contains(ceiling) {
                return Err(Error::refused(format!(
                    "in [raise], {tunable} is {ceiling}, and must be 1 to {most}"
                ))
                .remedy("docs/engines.md lists what can be configured"));
            }
        }
        Ok(())
    }
}

impl FromIterator<(HostSysctl, u64)> for Ceilings {
    fn from_iter<T: IntoIterator<Item = (HostSysctl, u64)>>(ceilings: T) -> Self {
        Self(ceilings.into_iter().collect())
    }
}

impl Config {
    /// Reads the file at `path`. Returns all defaults when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or says what means nothing here.
    pub fn read(path: &Path) -> Result<Self> {
        let config: Self = read(path)?;
        config
            .raise
            .check()
            .map_err(|error| error.context(path.display()))?;
        Ok(config)
    }
}

/// Reads the file at `path`. Returns the default when there is none.
///
/// # Errors
/// When it cannot be read, or is no such configuration: then with the line.
pub fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|error| error.context(path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

/// Parses the text of such a file.
///
/// # Errors
/// With the line that means nothing.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map(|span| text[..span.start].matches('\n').count() + 1);
        let at = line.map_or(String::new(), |line| format!("line {line}: "));
        Error::refused(format!("{at}{}", error.message().replace('\n', ", ")))
            .remedy("docs/engines.md lists what can be configured")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path())
    }

    #[test]
    fn without_a_file_nothing_is_raised() {
        let config = Config::read(Path::new("/nonexistent/config.toml")).unwrap();
        assert_eq!(config.raise.tunables(), []);
        assert_eq!(read_text("[hook]\ntimeout = 3\n").unwrap(), config);
    }

    #[test]
    fn each_ceiling_is_of_one_path() {
        let text = "[raise]\n\"/proc/sys/fs/file-max\" = 10_000_000\n";
        let raise = read_text(text).unwrap().raise;
        assert_eq!(raise.of(HostSysctl::FileMax), Some(10_000_000));
        assert_eq!(raise.of(HostSysctl::NrOpen), None);
    }

    #[test]
    fn what_means_nothing_is_refused_with_file_line_and_remedy() {
        for (text, words) in [
            (
                "[raise]\n\n'/proc/sys/kernel/panic' = 1\n",
                ["line 3", "panic"],
            ),
            (
                "[raise]\n'/proc/sys/fs/nr_open' = 'many'\n",
                ["line 2", "many"],
            ),
            ("[raise]\n'/proc/sys/fs/nr_open' = -1\n", ["line 2", "-1"]),
            (
                "[raise]\n'/proc/sys/fs/nr_open' = 2147483648\n",
                ["[raise]", "2147483584"],
            ),
            (
                "[raise]\n'/proc/sys/fs/nr_open' = 0\n",
                ["[raise]", "nr_open"],
            ),
            ("raise = 3\n", ["line 1", "map"]),
        ] {
            let error = read_text(text).unwrap_err().to_string();
            for word in words.into_iter().chain(["/tmp"]) {
                assert!(error.contains(word), "{word}: {error}");
            }
        }
    }
}
