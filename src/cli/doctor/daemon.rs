//! Checks of the daemon: whether it runs, and whether it speaks the same version of the protocol.

use std::path::Path;

use eci_fs_mountd::config::{self, OnError};
use eci_fs_mountd::host_sysctls::record;
use eci_fs_mountd::runtime_dir::RuntimeDir;

use super::{Findings, containers};
use crate::cli::client::Client;

pub(super) fn examine(
    findings: &mut Findings,
    runtime_dir: &Path,
    hook: Option<&config::Hook>,
    wired: bool,
) {
    let at = runtime_dir.display();
    let client = match Client::connect(runtime_dir) {
        Ok(Some(client)) => client,
        Ok(None) => return absent(findings, runtime_dir, hook, wired),
        Err(error) => return findings.error(error),
    };
    match client.list() {
        Ok(containers) => {
            findings.ok(format!(
                "eci-mountd is running on {at}, and has {} containers",
                containers.len()
            ));
            containers::examine(findings, &containers);
        }
        // The daemon is of another version, or it hangs.
        Err(error) => findings.error(error),
    }
    raised(findings, runtime_dir);
}

/// Notes the sysctls of the host that are raised for containers.
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

/// Reports that no daemon runs. The finding depends on whether an engine is set up to call it, and on the configuration
/// of the hook, which is none if that is wrong.
fn absent(findings: &mut Findings, runtime_dir: &Path, hook: Option<&config::Hook>, wired: bool) {
    let says = format!("no eci-mountd is running on {}", runtime_dir.display());
    let default = config::Hook::default();
    let hook = hook.unwrap_or(&default);
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
