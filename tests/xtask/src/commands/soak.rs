//! `cargo xtask soak`: the long run of tests/soak, of which `cargo xtask test` has a short one.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::setup;
use crate::paths::workspace_root;
use crate::process::{command, run as run_command};

/// The length of the run, its random moments, and its tests.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The time that the readers of each test read
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    minutes: f64,

    /// The seed of the random moments, to repeat a run; each run prints its own
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    /// Only the tests in whose names one of these occurs
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Build the programs with debugging aids, and slower
    #[arg(long)]
    debug: bool,
}

/// Builds the programs as they are released, and runs the tests one after the other; they print their figures.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut cargo = command(setup::cargo());
    cargo.args(["nextest", "run", "--package", "eci-fs", "--test", "soak"]);
    cargo.args(["--profile", "soak", "--no-capture"]);
    if !arguments.debug {
        cargo.arg("--release");
    }
    cargo.args(&arguments.names);
    cargo.env("ECI_FS_SOAK_MINUTES", arguments.minutes.to_string());
    if let Some(seed) = arguments.seed {
        cargo.env("ECI_FS_SOAK_SEED", seed.to_string());
    }
    run_command(cargo.current_dir(workspace_root()))?;
    Ok(ExitCode::SUCCESS)
}
