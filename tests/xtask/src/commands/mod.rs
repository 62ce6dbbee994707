//! The subcommands, one file each.

mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// A task of the repository.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Run a command in a virtual machine with another kernel.
    Vm(vm::Arguments),
}

impl Task {
    /// Does the task; the exit code is that of the command which it ran, if any.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Self::Vm(arguments) => vm::run(&arguments),
        }
    }
}
