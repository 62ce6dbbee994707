//! Whether the daemon is there, and speaks our language.

use std::path::Path;

use eci_fs_mountd::host_sysctls::record;
use eci_fs_mountd::runtime_dir::RuntimeDir;

use super::Findings;
use crate::cli::client::Client;
use crate::cli::config::{self, Config, OnError};

pub(super) fn examine(findings: &mut Findings, runtime_dir: &Path, root: &Path, wired: bool) {
    let at = runtime_dir.display();
    let client = match Client::connect(runtime_dir) {
        Ok(Some(client)) => client,
        Ok(None) => return absent(findings, runtime_dir, root, wired),
        Err(error) => return findings.error(error),
    };
    match client.list() {
        Ok(containers) => findings.ok(format!(
            "eci-mountd is running on {at}, and has {} containers",
            containers.len()
        )),
        // Of another version, or it hangs.
        Err(error) => findings.error(error),
    }
    raised(findings, runtime_dir);
}

/// What the machine has because containers have set it.
fn raised(findings: &mut Findings, runtime_dir: &Path) {
    let record = RuntimeDir::open(runtime_dir).and_then(|runtime| record::read_here(&runtime));
    match record {
        Ok(entries) => {
            for (tunable, entry) in entries {
                if let Some(raised) = entry.raised {
                    findings.note(
                        format!(
                            "{tunable} is raised from {} to {} for {} containers",
                            raised.original,
                            raised.set,
                            entry.requests.values().filter(|one| !one.void).count()
                        ),
                        "[raise] in the configuration allows that",
                    );
                }
            }
        }
        Err(error) => findings.error(error),
    }
}

/// There is none: what that means depends on who would call it.
fn absent(findings: &mut Findings, runtime_dir: &Path, root: &Path, wired: bool) {
    let says = format!("no eci-mountd is running on {}", runtime_dir.display());
    let config = root.join(config::DEFAULT.trim_start_matches('/'));
    // A configuration that cannot be read is said where the engines are looked at.
    let hook = Config::read(&config).unwrap_or_default().hook;
    let start = "start the service eci-mountd";
    if !wired {
        findings.note(
            says,
            "`eci-fs attach` and `run` start one when they need it",
        );
    } else if hook.start {
        findings.ok(format!("{says}: the hook starts one"));
    } else if hook.on_error == OnError::Ignore {
        findings.wrong(format!("{says}: containers start without views"), start);
    } else {
        findings.wrong(
            format!("{says}: no container of the engines above starts"),
            start,
        );
    }
}
