//! The check of the configuration, by the schema that the daemon, the hook and the runtime read it by.

use eci_fs_mountd::config::{Config, Location};

use super::Findings;

/// Checks the configuration, and returns it if it is right.
pub(super) fn examine(findings: &mut Findings, location: &Location) -> Option<Config> {
    match Config::read(location) {
        Ok(config) => {
            let path = location.path.display();
            findings.ok(match location.path.exists() {
                true => format!("{path} has no mistake"),
                false => format!("there is no {path}, so the defaults hold"),
            });
            Some(config)
        }
        Err(error) => {
            findings.error(error);
            None
        }
    }
}
