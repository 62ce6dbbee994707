//! The subcommands, one file each.

mod attack;
mod fixture;
mod full;
mod fuzz;
mod instructions;
mod setup;
mod soak;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// A task of the repository.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Install what the tests and the other tasks need.
    Setup,
    /// Run everything that has to pass: format, lints, dependencies, tests, examples.
    Test(test::Arguments),
    /// Run what `test` runs, and then the long forms of its tests.
    Full(full::Arguments),
    /// Feed the programs with made-up input, and look for what fails.
    Fuzz(fuzz::Arguments),
    /// Count the instructions that rendering each view takes.
    Instructions,
    /// Have containers read for long, while the programs are killed and replaced.
    Soak(soak::Arguments),
    /// Have hostile containers attack, and compare what their neighbours wait for.
    Attack(attack::Arguments),
    /// Run a command in a virtual machine with another kernel.
    Vm(vm::Arguments),
    /// Record what a kernel says about a machine and a container, for the tests.
    #[command(subcommand)]
    Fixture(fixture::Action),
}

impl Task {
    /// Does the task; the exit code is that of the command which it ran, if any.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Self::Setup => setup::run(),
            Self::Test(arguments) => test::run(&arguments),
            Self::Full(arguments) => full::run(&arguments),
            Self::Fuzz(arguments) => fuzz::run(&arguments),
            Self::Instructions => instructions::run(),
            Self::Soak(arguments) => soak::run(&arguments),
            Self::Attack(arguments) => attack::run(&arguments),
            Self::Vm(arguments) => vm::run(&arguments),
            Self::Fixture(action) => fixture::run(&action),
        }
    }
}
