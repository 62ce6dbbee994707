//! The checks, a group for each subject.

mod clock;
mod cpus;
mod handlers;
mod handles;
mod life;
mod machine;
pub(crate) mod memory;
mod network;
mod pressure;
mod raise;
mod reading;
mod stat;
mod survival;
mod sysfs;
mod taken;
mod tunables;

use std::process::ExitCode;

use crate::report::Report;

/// A group of checks.
type Group = fn(&mut Report);

const GROUPS: &[(&str, Group)] = &[
    ("memory", memory::checks),
    ("cpus", cpus::checks),
    ("stat", stat::checks),
    ("clock", clock::checks),
    ("pressure", pressure::checks),
    ("machine", machine::checks),
    ("sysfs", sysfs::checks),
    ("tunables", tunables::checks),
    ("network", network::checks),
    ("handles", handles::checks),
    // Before those that forbid the host to trace processes, for good.
    ("taken", taken::checks),
    ("handlers", handlers::checks),
    ("reading", reading::checks),
    ("life", life::checks),
    ("survival", survival::checks),
    ("raise", raise::checks),
];

/// Makes all checks, or those of the groups that are named.
pub(crate) fn run(only: &[&str]) -> ExitCode {
    let mut report = Report::new();
    for (name, checks) in GROUPS {
        if only.is_empty() || only.contains(name) {
            checks(&mut report);
        }
    }
    if report.end() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
