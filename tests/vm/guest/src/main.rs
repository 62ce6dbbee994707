//! What runs in the virtual machine, as root: makes containers, and compares what they are shown
//! with the files of their cgroups. Prints one line for each check: `ok`, `skip` or `FAIL`, its
//! name, and what was expected.
//!
//! The same program is what runs in the containers (`agent`), and what makes those that `eci-fs
//! run` does not make (`contain`, `inside`).

#![allow(clippy::print_stdout, reason = "the lines are what it is for")]

mod agent;
mod beside;
mod cgroup;
mod checks;
mod contain;
mod container;
mod expect;
mod report;
mod watch;
mod work;

use std::process::ExitCode;

/// What was wrong, for a line of the report.
type Error = String;
type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["agent"] => agent::serve(),
        ["contain", options @ ..] => contain::contain(options),
        ["inside"] => contain::inside(),
        ["check", only @ ..] => checks::run(only),
        ["beside"] => beside::beside(),
        _ => {
            println!("vm-guest: agent, contain, inside, check or beside");
            ExitCode::FAILURE
        }
    }
}
