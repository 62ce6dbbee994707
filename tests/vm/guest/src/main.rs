//! The program that runs in the virtual machine, as root. It makes containers, and compares their views with the files
//! of their cgroups. It prints one line for each check: `ok`, `skip` or `FAIL`, its name, and the expected value.
//!
//! The same program runs in the containers (`agent`), and makes the containers that `eci-fs run` does not make
//! (`contain`, `inside`).

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
