//! `cargo xtask test`: everything that has to pass, in the order in which it fails soonest.

use std::env;
use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use super::{instructions, setup};
use crate::paths::workspace_root;
use crate::process::{command, run as run_command};

/// What to leave out.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Do not look for missing packages and tools first.
    #[arg(long)]
    no_setup: bool,
}

/// The steps: a name, and the arguments of cargo.
const STEPS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    (
        "lints",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    ),
    // Not advisories: their data base comes from a network that may not be there.
    (
        "dependencies",
        &[
            "deny",
            "--workspace",
            "check",
            "licenses",
            "bans",
            "sources",
        ],
    ),
    // What runs inside containers, before a test waits for it to be built.
    (
        "probe",
        &[
            "run",
            "--quiet",
            "--package",
            "support",
            "--bin",
            "build-probe",
            "--",
        ],
    ),
    ("tests", &["nextest", "run", "--workspace"]),
    // nextest does not run the examples in comments.
    ("examples", &["test", "--doc", "--workspace", "--quiet"]),
];

/// Runs all steps, and stops at the first that fails.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let started = Instant::now();
    if !arguments.no_setup {
        timed("setup", || setup::run().map(drop))?;
    }
    for (name, step) in STEPS {
        let mut cargo = command(setup::cargo());
        cargo.args(*step).current_dir(workspace_root());
        if *name == "probe" {
            cargo.arg(crate::paths::target_dir());
        }
        if *name == "tests"
            && let Some(profile) = profile()?
        {
            cargo.args(["--profile", profile]);
        }
        timed(name, || run_command(&mut cargo))?;
    }
    // A report, not a gate: how many instructions are too many is for the reader to say.
    println!("test: instructions");
    if let Err(error) = instructions::run() {
        println!("test: instructions are not counted: {error:#}");
    }
    println!(
        "test: all passed in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// Runs one step between two lines that say which it is and how long it took.
fn timed(name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("test: {name}");
    let started = Instant::now();
    step().with_context(|| format!("{name} did not pass"))?;
    println!(
        "test: {name} passed in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The profile of nextest for continuous integration, if this is one and there is such a profile.
fn profile() -> Result<Option<&'static str>> {
    if env::var("CI").as_deref() != Ok("true") {
        return Ok(None);
    }
    let path = workspace_root().join(".config/nextest.toml");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    Ok(text.contains("[profile.ci").then_some("ci"))
}
