//! The command line of the tasks.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool of the developers: what it says belongs on its standard streams"
)]

use std::process::ExitCode;

use clap::Parser;
use xtask::commands::Task;

/// The tasks of the repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

fn main() -> ExitCode {
    match Arguments::parse().task.run() {
        Ok(code) => code,
        Err(error) => {
            // One line: what was being done, then the cause of the cause.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
