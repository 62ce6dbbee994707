//! The checks, a group for each subject.

mod cpus;
mod memory;
mod stat;

use std::process::ExitCode;

use crate::report::Report;

/// A group of checks.
type Group = fn(&mut Report);

const GROUPS: &[(&str, Group)] = &[
    ("memory", memory::checks),
    ("cpus", cpus::checks),
    ("stat", stat::checks),
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
