//! Running other programs, with errors of one line that name the program and what it said last.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Returns a command without standard input, so that no program can wait for an answer.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Runs `command` and returns what it printed. A failure quotes the last line of its errors.
pub fn output(command: &mut Command) -> Result<String> {
    let name = name_of(command);
    let output = command.output().with_context(|| cannot_start(&name))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().rev().find(|line| !line.trim().is_empty());
        bail!(
            "{name} failed ({}): {}",
            output.status,
            last.unwrap_or("it said nothing")
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed what is not UTF-8"))
}

/// Runs `command` on the standard streams of this process.
pub fn run(command: &mut Command) -> Result<()> {
    let name = name_of(command);
    let status = command.status().with_context(|| cannot_start(&name))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// Returns the message for a program that did not start.
fn cannot_start(name: &str) -> String {
    format!("cannot start {name}; `cargo xtask setup` installs what the tasks need")
}

/// Returns the program and its first arguments: enough to know which call it was.
fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args().take(4) {
        name.push(' ');
        name.push_str(&argument.to_string_lossy());
    }
    name
}
