//! `cargo xtask instructions`: counts the instructions that rendering each view takes, with callgrind. Unlike times,
//! the counts hardly depend on the load.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::setup;
use crate::paths::{target_dir, workspace_root};
use crate::process::{command, output, run as run_command};

/// The function that is counted, as emulators/examples/instructions.rs names it. Each return from it ends one profile.
const COUNTED: &str = "instructions::render_times";

/// The time limit of valgrind, which takes a second.
const SECONDS: &str = "60";

/// Instructions of one rendering, by view, on v1 and on v2; the versions of cgroups differ in some views.
type Table = BTreeMap<String, [Option<u64>; 2]>;

/// Counts, and prints a table; says so where there is no valgrind.
pub(super) fn run() -> Result<ExitCode> {
    match command("valgrind").arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!(
                "instructions: not counted, valgrind is missing; `cargo xtask setup` installs it"
            );
            return Ok(ExitCode::SUCCESS);
        }
        version => version.context("cannot start valgrind")?,
    };
    let mut build = command(setup::cargo());
    build.args(["build", "--quiet", "--release"]);
    build.args(["--package", "eci-fs-emulators", "--example", "instructions"]);
    run_command(build.current_dir(workspace_root()))?;

    let dir = tempfile::tempdir().context("cannot make a directory")?;
    let profile = dir.path().join("profile");
    let mut valgrind = command("timeout");
    valgrind
        .args([SECONDS, "valgrind", "--quiet", "--tool=callgrind"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(target_dir().join("release/examples/instructions"));
    let calls = output(&mut valgrind)?;
    print(&table(&calls, |call| read_part(&profile, call))?);
    Ok(ExitCode::SUCCESS)
}

/// Returns the profile of the `call`th call, from 1.
fn read_part(profile: &Path, call: usize) -> Result<String> {
    let path = format!("{}.{call}", profile.display());
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// Returns the table. `calls` has a line for each call: the version of cgroups, the number of renderings, and the
/// view.
fn table(calls: &str, part: impl Fn(usize) -> Result<String>) -> Result<Table> {
    let mut table = Table::new();
    for (index, line) in calls.lines().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        let (column, times, view) = match words.as_slice() {
            ["v1", times, view] => (0, times, view),
            ["v2", times, view] => (1, times, view),
            _ => bail!("not a call: {line:?}"),
        };
        let times: u64 = times.parse().with_context(|| format!("{line:?}"))?;
        let total = total(&part(index.saturating_add(1))?)?;
        let row = table.entry((*view).to_owned()).or_default();
        row[column] = total.checked_div(times);
    }
    if table.is_empty() {
        bail!("nothing was rendered");
    }
    Ok(table)
}

/// Returns the instructions of one profile of callgrind.
fn total(profile: &str) -> Result<u64> {
    let mut lines = profile.lines();
    let found = lines.find_map(|line| line.strip_prefix("totals: "));
    let found = found.context("a profile of callgrind has no totals")?;
    let total = found.trim().parse();
    total.with_context(|| format!("the totals of a profile are {found:?}"))
}

fn print(table: &Table) {
    println!("instructions of one rendering, from recorded files:");
    let width = table.keys().map(String::len).max().unwrap_or(0);
    println!("{:width$} {:>10} {:>10}", "view", "v1", "v2");
    for (view, counts) in table {
        let [v1, v2] =
            counts.map(|count| count.map_or_else(|| "-".to_owned(), |count| count.to_string()));
        println!("{view:width$} {v1:>10} {v2:>10}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: &str = "v1 10 /proc/uptime\nv1 10 /proc/stat\nv2 10 /proc/uptime\n";

    fn profile(totals: &str) -> String {
        format!("# callgrind format\nversion: 1\npart: 1\nevents: Ir\nfn=(1)\n12 7\n\n{totals}\n")
    }

    #[test]
    fn each_call_has_its_own_profile() {
        let part = |call: usize| Ok(profile(&format!("totals: {}", call * 1000 + 9)));
        let table = table(CALLS, part).expect("a table");
        assert_eq!(table["/proc/uptime"], [Some(100), Some(300)]);
        assert_eq!(table["/proc/stat"], [Some(200), None]);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn what_is_not_a_profile_is_an_error() {
        for totals in ["", "totals: many", "totals:"] {
            assert!(total(&profile(totals)).is_err(), "{totals:?}");
        }
        let one = |_| Ok(profile("totals: 1"));
        for calls in ["", "v3 10 /proc/uptime", "v1 ten /proc/uptime", "panicked"] {
            assert!(table(calls, one).is_err(), "{calls:?}");
        }
        assert!(table(CALLS, |_| bail!("no such part")).is_err());
    }
}
