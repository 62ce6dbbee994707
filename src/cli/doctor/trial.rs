//! The check of a real container: `eci-fs run` starts one, and it has to see its memory limit.

use std::process::{Command, Stdio};

use eci_fs_mountd::config::{self, Location};

use super::Findings;
use crate::cli::Runtime;

/// The memory limit, in MiB. A shell needs far less.
const MEBIBYTES: u64 = 64;

pub(super) fn examine(findings: &mut Findings, runtime: &Runtime, location: &Location) {
    let mut command = Command::new("/proc/self/exe");
    if location.is_named {
        command.env(config::VARIABLE, &location.path);
    }
    let shown = command
        .args(["run", "--memory", &format!("{MEBIBYTES}M")])
        .arg("--runtime-dir")
        .arg(&runtime.runtime_dir)
        .arg("--timeout")
        .arg(runtime.answer_limit().as_secs_f64().to_string())
        .args(["--", "cat", "/proc/meminfo"])
        .stdin(Stdio::null())
        .output();
    let output = match shown {
        Ok(output) => output,
        Err(error) => {
            return findings.wrong(
                format!("a container could not be tried: {error}"),
                "see above",
            );
        }
    };
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().last().unwrap_or("it said nothing");
        return findings.wrong(
            format!("a container does not run: {last}"),
            "see above; `eci-fs run --memory 64M -- cat /proc/meminfo` is what was tried",
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    match total(&text) {
        Some(total) if total == MEBIBYTES << 10 => findings.ok(format!(
            "a container with a limit of {MEBIBYTES} MiB sees MemTotal: {total} kB"
        )),
        other => findings.wrong(
            format!(
                "a container with a limit of {MEBIBYTES} MiB sees MemTotal: {}",
                other.map_or_else(|| "nothing".to_owned(), |total| format!("{total} kB"))
            ),
            "see the log of eci-mountd",
        ),
    }
}

/// Returns MemTotal in KiB.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}
