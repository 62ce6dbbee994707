//! The command line of the tasks.

// A command-line tool of the developers: what it has to say belongs on its standard streams.
#![allow(clippy::print_stdout, clippy::print_stderr)]

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
