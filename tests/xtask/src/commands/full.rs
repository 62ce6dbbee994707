//! `cargo xtask full`: everything that has to pass, and the long forms of the tests that `cargo xtask test` runs for a
//! few seconds.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{attack, fuzz, setup, soak, test};
use crate::paths::workspace_root;
use crate::process::{command, run as run_command};

/// The time for which each fuzz target is fed.
const FUZZED: Duration = Duration::from_secs(600);

/// The lengths of the long forms.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The number of reads of each test of tests/stress that counts them
    #[arg(long, value_name = "N", default_value_t = 40_000_000)]
    reads: u64,

    #[command(flatten)]
    soak: soak::Arguments,
}

/// Runs all of them, and stops at the first that fails.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    test::run(&test::Arguments::default())?;
    isolation()?;
    let mut cargo = command(setup::cargo());
    cargo.args([
        "nextest",
        "run",
        "--package",
        "eci-fs",
        "--test",
        "container",
    ]);
    cargo.args(["--profile", "soak", "--no-capture"]);
    cargo.args(["isolation::locked::", "isolation::system_calls::"]);
    cargo.env("ECI_FS_BREACHES", "all");
    cargo.env("ECI_FS_SUPERVISOR", "all");
    run_command(cargo.current_dir(workspace_root()))?;
    // Not as released: these tests change the sizes of views, which only a build with debugging aids lets them do.
    let mut cargo = command(setup::cargo());
    cargo.args(["nextest", "run", "--package", "eci-fs", "--test", "stress"]);
    cargo.args(["--profile", "soak", "--no-capture"]);
    cargo.env("ECI_FS_STRESS_READS", arguments.reads.to_string());
    run_command(cargo.current_dir(workspace_root()))?;
    soak::run(&arguments.soak)?;
    fuzz::run(&fuzz::Arguments::lasting(FUZZED))?;
    attack::run(&attack::Arguments::default())
}

/// Runs the whole matrix of isolation: each engine with each runtime on this host, then each runtime, and docker and
/// podman, with each kernel in virtual machines.
fn isolation() -> Result<()> {
    for (binary, ignored) in [("engines", "only"), ("vm", "all")] {
        let mut cargo = command(setup::cargo());
        cargo.args(["nextest", "run", "--package", "eci-fs", "--test", binary]);
        cargo.args(["--no-capture", "--run-ignored", ignored, "isolation::"]);
        cargo.env("ECI_FS_VM_ISOLATION", "all");
        run_command(cargo.current_dir(workspace_root()))?;
    }
    Ok(())
}
