//! `cargo xtask test`: everything that has to pass, in the order in which it fails soonest.

use std::env;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::{fuzz, instructions, setup};
use crate::paths::workspace_root;
use crate::process::{command, run as run_command};

/// The options of `cargo xtask test`.
#[derive(Debug, Default, Args)]
pub struct Arguments {
    /// Only what needs neither root nor a network nor /dev/fuse. Nothing is installed.
    #[arg(long)]
    unprivileged: bool,
    /// Do not look for missing packages and tools first.
    #[arg(long)]
    no_setup: bool,
}

/// A run of cargo that has to succeed.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    /// True if the step is done for `--unprivileged` too.
    unprivileged: bool,
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        arguments: &["fmt", "--all", "--check"],
        unprivileged: true,
    },
    Step {
        name: "lints",
        arguments: &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        unprivileged: true,
    },
    // Advisories are left out: their database needs a network.
    Step {
        name: "dependencies",
        arguments: &[
            "deny",
            "--workspace",
            "check",
            "licenses",
            "bans",
            "sources",
        ],
        unprivileged: false,
    },
    Step {
        name: DOCUMENTATION,
        arguments: &["doc", "--workspace", "--no-deps", "--quiet"],
        unprivileged: true,
    },
    // The programs for containers are built before a test has to wait for them.
    Step {
        name: PROBE,
        arguments: &[
            "run",
            "--quiet",
            "--package",
            "support",
            "--bin",
            "build-probe",
            "--",
        ],
        unprivileged: false,
    },
    Step {
        name: TESTS,
        arguments: &["nextest", "run", "--workspace"],
        unprivileged: true,
    },
    // nextest does not run the examples in comments.
    Step {
        name: "examples",
        arguments: &["test", "--doc", "--workspace", "--quiet"],
        unprivileged: true,
    },
];

/// The time for which each fuzz target is fed: two minutes for all.
const FUZZED: Duration = Duration::from_secs(11);

/// The steps that get more than their arguments.
const DOCUMENTATION: &str = "documentation";
const PROBE: &str = "probe";
const TESTS: &str = "tests";

/// Runs all steps, and stops at the first that fails.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let started = Instant::now();
    let unprivileged = arguments.unprivileged;
    if !arguments.no_setup && !unprivileged {
        timed("setup", || setup::run().map(drop))?;
    }
    for step in STEPS
        .iter()
        .filter(|step| step.unprivileged || !unprivileged)
    {
        let mut cargo = command(setup::cargo());
        cargo.args(step.arguments).current_dir(workspace_root());
        match step.name {
            DOCUMENTATION => {
                cargo.env("RUSTDOCFLAGS", "-D warnings");
            }
            PROBE => {
                cargo.arg(crate::paths::target_dir());
            }
            TESTS => {
                let profile = if unprivileged {
                    Some("unprivileged")
                } else {
                    profile()?
                };
                if let Some(profile) = profile {
                    cargo.args(["--profile", profile]);
                }
            }
            _ => {}
        }
        timed(step.name, || run_command(&mut cargo))?;
    }
    if !unprivileged {
        timed("fuzz targets", || {
            fuzz::run(&fuzz::Arguments::lasting(FUZZED)).map(drop)
        })?;
        // A report, not a gate: how many instructions are too many is for the reader to say.
        println!("test: instructions");
        if let Err(error) = instructions::run() {
            println!("test: instructions are not counted: {error:#}");
        }
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

/// Returns the profile of nextest for continuous integration, if this is one and there is such a profile.
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
