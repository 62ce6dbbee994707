//! Checks of the daemon: whether it runs, and whether it speaks the same version of the protocol.

use std::path::Path;

use eci_fs_mountd::host_sysctls::record;
use eci_fs_mountd::runtime_dir::RuntimeDir;

use super::Findings;
use crate::cli::absent::{self, Found};
use crate::cli::config::{self, Config, OnError};
use crate::cli::{Runtime, count};

/// Examines the daemon. Returns false if there is one, and it does not answer.
pub(super) fn examine(
    findings: &mut Findings,
    runtime: &Runtime,
    root: &Path,
    wired: bool,
) -> bool {
    let dir = &runtime.runtime_dir;
    let client = match absent::find(runtime) {
        Ok(Found::Daemon(client)) => client,
        Ok(Found::Absent(absent)) => {
            if absent.is_dead() {
                findings.error(absent.error());
                raised(findings, dir);
            } else {
                missing(findings, absent.error().what, root, wired);
            }
            return true;
        }
        Err(error) => {
            findings.error(error);
            return false;
        }
    };
    let listed = client.list();
    let answers = listed.is_ok();
    match listed {
        Ok(containers) => findings.ok(format!(
            "eci-mountd is running on {}, and has {}",
            dir.display(),
            count(containers.len(), "container")
        )),
        // The daemon is of another version, or it hangs.
        Err(error) => findings.error(error),
    }
    raised(findings, dir);
    answers
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
                            "{tunable} is raised from {} to {} for {}",
                            raised.original,
                            raised.set,
                            count(
                                entry.requests.values().filter(|one| !one.void).count(),
                                "container"
                            )
                        ),
                        "[raise] in the configuration allows that",
                    );
                }
            }
        }
        Err(error) => findings.error(error),
    }
}

/// Reports that no daemon runs, in the words of `says`. The finding depends on whether an engine is set up to call it.
fn missing(findings: &mut Findings, says: String, root: &Path, wired: bool) {
    let config = root.join(config::DEFAULT.trim_start_matches('/'));
    // The check of the engines reports a configuration that cannot be read.
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
