//! `cargo xtask attack`: the long run of the attacks of tests/attack, of which `cargo xtask test` has a short one, and a
//! table of what the neighbour of the attacker noticed.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use super::setup;
use crate::paths::{target_dir, workspace_root};
use crate::process::{command, run as run_command};

/// The numbers of threads, the number of rounds and the seconds of each half of one, unless they are chosen.
const THREADS: &str = "100,1000,14000";
const ROUNDS: usize = 4;
const SECONDS: f64 = 2.0;

/// The attacks, the numbers of their threads, and the length of the run.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only the tests in whose names one of these words occurs, for example `list_the_cpus`
    #[arg(long, value_name = "WORD,...", value_delimiter = ',')]
    rows: Vec<String>,

    /// The numbers of threads of the attacker
    #[arg(long, value_name = "N,...", default_value = THREADS)]
    threads: String,

    /// The number of rounds, each with a control and an attack
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: usize,

    /// The time for which the neighbour measures in each half of a round
    #[arg(long, value_name = "SECONDS", default_value_t = SECONDS)]
    seconds: f64,

    /// Give the attacker a server of its own, so that the neighbour waits for nothing but CPUs. The table gets no figures
    #[arg(long)]
    apart: bool,

    /// Run nothing; print the table of what was measured before
    #[arg(long)]
    table: bool,

    /// Fail if a bound was exceeded each time that it was measured
    #[arg(long)]
    judge: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            threads: THREADS.to_owned(),
            rounds: ROUNDS,
            seconds: SECONDS,
            apart: false,
            table: false,
            judge: false,
        }
    }
}

/// Builds the programs as they are released, runs the attacks one after the other, and prints the table. Figures of
/// earlier runs stay in it, so a run can be made in parts.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let dir = target_dir().join("attack");
    let outcome = if arguments.table {
        Ok(())
    } else {
        let mut cargo = command(setup::cargo());
        cargo.args([
            "nextest",
            "run",
            "--release",
            "--package",
            "eci-fs",
            "--test",
            "attack",
        ]);
        cargo.args(["--profile", "soak", "--no-capture"]);
        let rows = if arguments.rows.is_empty() {
            &["rows::".to_owned()][..]
        } else {
            &arguments.rows
        };
        cargo.args(rows);
        cargo.env("ECI_FS_ATTACK_ROUNDS", arguments.rounds.to_string());
        cargo.env("ECI_FS_ATTACK_SECONDS", arguments.seconds.to_string());
        cargo.env("ECI_FS_ATTACK_THREADS", &arguments.threads);
        if arguments.apart {
            cargo.env("ECI_FS_ATTACK_APART", "1");
            run_command(cargo.current_dir(workspace_root()))?;
            return Ok(ExitCode::SUCCESS);
        }
        cargo.env("ECI_FS_ATTACK_FIGURES", &dir);
        run_command(cargo.current_dir(workspace_root()))
    };
    let figures = read(&dir)?;
    let table = table(&figures)?;
    let path = dir.join("table.md");
    fs::write(&path, &table).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{table}\nattack: this table is in {}", path.display());
    outcome?;
    if arguments.judge && figures.iter().any(|one| one["holds"] != true) {
        bail!("a neighbour waited for longer than it may");
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the figures of all runs, by attack and number of threads.
fn read(dir: &Path) -> Result<Vec<Value>> {
    let entries =
        fs::read_dir(dir).with_context(|| format!("nothing was measured: {}", dir.display()))?;
    let mut all = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = fs::read_to_string(&path)?;
            let figures: Value =
                serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            all.push(figures);
        }
    }
    all.sort_by_key(|one| {
        let attack = one["attack"].as_str().unwrap_or_default().to_owned();
        (attack, one["threads"].as_u64())
    });
    Ok(all)
}

/// Returns the table in Markdown: in each cell the ratio of the medians and that of the 99th percentiles.
fn table(figures: &[Value]) -> Result<String> {
    let columns = [
        ("read:/proc/meminfo", "meminfo"),
        ("read:/proc/vmstat", "vmstat"),
        ("read:/proc/sys/vm/swappiness", "read a tunable"),
        ("write:/proc/sys/vm/swappiness=33\n", "write it"),
        (
            "read:/sys/devices/system/cpu/cpu0/topology/core_id",
            "core_id",
        ),
        ("start:hook", "start by an engine"),
        ("start:run", "eci-fs run"),
    ];
    let mut table = String::from("| the threads of the attacker | threads |");
    for (_, title) in columns {
        table.push_str(&format!(" {title} |"));
    }
    table.push_str(
        " longest median, of an idle host's | CPU time of attacker, server | bounds |\n|---|---|",
    );
    table.push_str(&"---|".repeat(columns.len() + 3));
    table.push('\n');
    for one in figures {
        let text = |key: &str| one[key].as_str().unwrap_or_default();
        table.push_str(&format!("| {} | {} |", text("says"), one["threads"]));
        let ratios = one["ratios"].as_array().context("figures without ratios")?;
        for (what, _) in columns {
            let ratio = ratios.iter().find(|ratio| ratio["what"] == what);
            let ratio = ratio.with_context(|| format!("no figures of {what}"))?;
            let number = |index: usize| ratio["ratios"][index].as_f64().unwrap_or(f64::NAN);
            let cell = if what.starts_with("start:") {
                short(number(0))
            } else {
                format!("{}, {}", short(number(0)), short(number(1)))
            };
            let cell = if ratio["holds"] == true {
                cell
            } else {
                format!("**{cell}**")
            };
            table.push_str(&format!(" {cell} |"));
        }
        let seconds = |key: &str| one["under_attack"][key].as_f64().unwrap_or(0.0) / 1e6;
        table.push_str(&format!(
            " {} | {:.1} s, {:.1} s | {} |\n",
            of_idle(ratios),
            seconds("attacker_us"),
            seconds("server_us"),
            verdict(one)
        ));
    }
    Ok(table)
}

/// Returns the longest median beside the attack of all reads and writes, as a multiple of that of a host on which the attacker
/// does nothing. Figures of older versions have none.
fn of_idle(ratios: &[Value]) -> String {
    let files = ratios.iter().filter(|ratio| {
        !ratio["what"]
            .as_str()
            .unwrap_or_default()
            .starts_with("start:")
    });
    let all = files.filter_map(|ratio| ratio["of_idle"].as_f64());
    all.reduce(f64::max).map_or_else(|| "-".to_owned(), short)
}

/// Returns a ratio with as many digits as mean something.
fn short(ratio: f64) -> String {
    if ratio < 9.95 {
        format!("{ratio:.1}")
    } else {
        format!("{ratio:.0}")
    }
}

fn verdict(figures: &Value) -> String {
    match (figures["holds"] == true, figures["tries"].as_u64()) {
        (true, Some(1)) => "hold".to_owned(),
        (true, tries) => format!("hold at try {}", tries.unwrap_or(0)),
        (false, _) => "**exceeded**".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn figures(ratio: f64, holds: bool) -> Value {
        let of = |what: &str| json!({ "what": what, "ratios": [ratio, 1.5], "of_idle": 1.3, "holds": holds });
        json!({
            "says": "list", "threads": 100, "holds": holds, "tries": 1,
            "ratios": [
                of("read:/proc/meminfo"), of("read:/proc/vmstat"), of("read:/proc/sys/vm/swappiness"),
                of("write:/proc/sys/vm/swappiness=33\n"),
                of("read:/sys/devices/system/cpu/cpu0/topology/core_id"), of("start:hook"), of("start:run"),
            ],
            "under_attack": { "attacker_us": 1_500_000, "server_us": 400_000 },
        })
    }

    #[test]
    fn a_row_has_two_ratios_in_each_cell_and_one_for_starts() {
        let table = table(&[figures(1.04, true)]).expect("a table");
        let last = table.lines().last().expect("a row");
        assert_eq!(
            last,
            "| list | 100 | 1.0, 1.5 | 1.0, 1.5 | 1.0, 1.5 | 1.0, 1.5 | 1.0, 1.5 | 1.0 | 1.0 | 1.3 | 1.5 s, 0.4 s | hold |"
        );
    }

    #[test]
    fn what_is_beyond_a_bound_is_bold() {
        let table = table(&[figures(1607.4, false)]).expect("a table");
        assert!(table.contains("| **1607, 1.5** |"), "{table}");
        assert!(table.ends_with("| **exceeded** |\n"), "{table}");
    }
}
