//! Checks of the daemon: whether it runs, and whether it speaks the same version of the protocol.

use std::path::Path;

use eci_fs_mountd::config::{self, OnError};
use eci_fs_mountd::host_sysctls::record;
use eci_fs_mountd::runtime_dir::RuntimeDir;

use super::{Findings, containers};
use crate::cli::absent::{self, Found};
use crate::cli::{Runtime, count};

/// Examines the daemon. Returns false if there is one, and it does not answer. `hook` is the configuration of the hook, which
/// is none if that is wrong.
pub(super) fn examine(
    findings: &mut Findings,
    runtime: &Runtime,
    hook: Option<&config::Hook>,
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
                missing(findings, absent.error().what, hook, wired);
            }
            return true;
        }
        Err(error) => {
            findings.error(error);
            return false;
        }
    };
    let listed = client.list_with_trouble();
    let answers = listed.is_ok();
    match listed {
        Ok((containers, trouble)) => {
            findings.ok(format!(
                "eci-mountd is running on {}, and has {}",
                dir.display(),
                count(containers.len(), "container")
            ));
            for words in trouble {
                findings.wrong(
                    words,
                    "see the log of eci-mountd; end a container that does not answer",
                );
            }
            containers::examine(findings, &containers);
        }
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

/// Reports that no daemon runs, in the words of `says`. The finding depends on whether an engine is set up to call it, and
/// on the configuration of the hook.
fn missing(findings: &mut Findings, says: String, hook: Option<&config::Hook>, wired: bool) {
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
