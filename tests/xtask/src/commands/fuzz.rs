//! `cargo xtask fuzz`: feeds the targets of tests/fuzz with made-up input.
//!
//! libFuzzer makes the input up, by what code each one reaches. The compiler's pass that tells it so is in stable
//! compilers too, so neither another toolchain nor another program is needed, but a C++ compiler.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::setup;
use crate::paths::{target_dir, workspace_root};
use crate::process::{command, output, run as run_command};

/// The flags of the compiler that have the code tell libFuzzer what it reaches, and what it compares with what.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Comparisons stay branches.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// The seconds after which an input counts as one that hangs. A machine with other work is slow.
const HANGS_AFTER: &str = "-timeout=20";

/// The mebibytes of memory that the fuzzer may have at all. One input may have less: tests/fuzz/src/lib.rs.
const MEMORY: &str = "-rss_limit_mb=2048";

/// The targets, the time, or what else to do.
#[derive(Debug, Default, Args)]
pub struct Arguments {
    /// The targets; without any, all in turn
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// The time for each target
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    minutes: f64,

    /// Feed the one target this file only, for instance one that it failed with
    #[arg(long, value_name = "FILE", conflicts_with_all = ["minutes", "merge"])]
    input: Option<PathBuf>,

    /// Make up nothing; add what earlier runs have found to tests/fuzz/corpus, if it reaches code that nothing there reaches
    #[arg(long, conflicts_with = "minutes")]
    merge: bool,
}

impl Arguments {
    /// Returns the arguments for all targets, and this time for each.
    pub(super) fn lasting(time: Duration) -> Self {
        Self {
            minutes: time.as_secs_f64() / 60.0,
            ..Self::default()
        }
    }
}

/// Feeds the targets, and stops at the first that fails.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let corpus = workspace_root().join("tests/fuzz/corpus");
    let all = names(&corpus)?;
    let targets = match arguments.targets.as_slice() {
        [] => all,
        some => {
            if let Some(unknown) = some.iter().find(|name| !all.contains(name)) {
                bail!("there is no target {unknown}; there are {}", all.join(", "));
            }
            some.to_vec()
        }
    };
    let program = build()?;
    // What targets unpack goes with this.
    let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let scratch = scratch.context("cannot make a temporary directory")?;
    for target in &targets {
        let dir = target_dir().join("fuzz/runs").join(target);
        let found = dir.join("corpus");
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let mut fuzzer = command(&program);
        fuzzer.args([HANGS_AFTER, MEMORY]);
        fuzzer.env("ECI_FS_FUZZ_TARGET", target);
        fuzzer.env("TMPDIR", scratch.path());
        let known = corpus.join(target);
        if let Some(input) = &arguments.input {
            ensure!(targets.len() == 1, "name the target of the input");
            run_command(fuzzer.arg(input))?;
            println!("fuzz: {target} passes");
        } else if arguments.merge {
            let before = names(&known)?.len();
            run_command(
                // As few inputs as reach all that is reached, however often each reaches it: the corpora stay small.
                fuzzer
                    .args(["-set_cover_merge=1", "-use_counters=0"])
                    .args([&known, &found])
                    .stderr(Stdio::null()),
            )?;
            println!(
                "fuzz: {target}: {} inputs more",
                names(&known)?.len() - before
            );
        } else {
            let seconds = (arguments.minutes * 60.0).ceil().max(1.0);
            // Without a seed each run makes up something else.
            fuzzer.arg(format!("-max_total_time={seconds}"));
            fuzzer.arg(format!("-artifact_prefix={}/", dir.display()));
            fuzzer.args(["-print_final_stats=1", "-use_value_profile=1"]);
            fuzzer.args([&found, &known]);
            feed(fuzzer, target, &dir, seconds)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the names in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()));
    let names = entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Builds the fuzzer, and returns its path.
fn build() -> Result<PathBuf> {
    let version = output(command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say for what it compiles")?;
    // A directory of its own: other flags would have everything built anew each time.
    let dir = target_dir().join("fuzz");
    let mut cargo = command(setup::cargo());
    cargo.args(["build", "--quiet", "--package", "fuzz", "--bin", "fuzz"]);
    cargo.args(["--features", "libfuzzer", "--profile", "fuzz"]);
    // With a target named, what runs in the compiler itself is built without the flags.
    cargo.args(["--target", host]);
    cargo.env("CARGO_TARGET_DIR", &dir);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    run_command(cargo.current_dir(workspace_root()))?;
    Ok(dir.join(host).join("fuzz/fuzz"))
}

/// Runs the fuzzer on a target, and prints one line of figures.
fn feed(mut fuzzer: std::process::Command, target: &str, dir: &Path, seconds: f64) -> Result<()> {
    let log = dir.join("log");
    let file = fs::File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    let status = fuzzer.stdout(Stdio::null()).stderr(file).status();
    let status = status.context("cannot start the fuzzer")?;
    let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    if !status.success() {
        let panic = said
            .lines()
            .skip_while(|line| !line.contains("panicked at"));
        let why = said.lines().find(|line| line.contains("ERROR: "));
        let input = said
            .lines()
            .find_map(|line| line.split_once("Test unit written to "));
        bail!(
            "{target} fails: {} {}\nto feed it the same again: cargo xtask fuzz {target} --input {}\nCONTRIBUTING.md says what to do with the input; all that was said is in {}",
            panic.take(2).collect::<Vec<_>>().join(" "),
            why.unwrap_or_default(),
            input.map_or("FILE, which is not known", |(_, path)| path),
            log.display()
        );
    }
    let figures: BTreeMap<&str, &str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("stat::")?.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let figure = |name| figures.get(name).copied().unwrap_or("?");
    // "#7 DONE cov: 12 ft: 34 corp: 5/67b ..."
    let last = said.lines().rfind(|line| line.contains(" cov: "));
    let mut words = last.unwrap_or_default().split_ascii_whitespace();
    let covered = words
        .find(|word| *word == "cov:")
        .and_then(|_| words.next());
    println!(
        "fuzz: {target}: {} inputs in {seconds:.0} s reach {} edges, {} new; slowest {} s, {} MiB",
        figure("number_of_executed_units"),
        covered.unwrap_or("?"),
        figure("new_units_added"),
        figure("slowest_unit_time_sec"),
        figure("peak_rss_mb"),
    );
    Ok(())
}
