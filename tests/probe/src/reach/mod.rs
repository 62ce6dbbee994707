//! Calls with which a container could reach the host or another container if it were allowed to.
//!
//! `reach PID CGROUP KEY` makes each of them in a process of its own, and answers with what the kernel said: `done`, or the
//! name of the error. The arguments name another container: a pid of the host, the directory of its cgroup, and the serial
//! number of one of its keys.
//!
//! **Each call changes nothing on the host, also if it is allowed.** Its arguments are such that the kernel checks the
//! permission, and then finds nothing to do: a file that is not there, a number that is out of range, an image without
//! bytes. A file is opened, and not written to. What a call changes for its own process ends with that.

mod calls;
mod kernel;
mod others;
mod steps;

use std::process::Command;

use nix::libc::c_long;
use rustix::io::Errno;
use serde_json::{Value, json};

use self::calls::Argument;
use crate::answer::{Answer, name, text, wrong};

/// A system call by its number.
type Call = (&'static str, c_long, &'static [Argument<'static>]);

/// An attempt that takes more than one call.
type Step = (&'static str, fn() -> Result<(), Errno>);

/// An attempt on another container.
type Other = (&'static str, fn(&Neighbour<'_>) -> Result<(), Errno>);

/// Another container.
#[derive(Debug, Clone, Copy)]
struct Neighbour<'a> {
    /// The host's pid of one of its processes.
    pid: i32,
    /// The path of its cgroup in this container.
    cgroup: &'a str,
    /// The serial number of one of its keys.
    key: i64,
}

/// The names of all attempts.
fn names() -> impl Iterator<Item = &'static str> {
    let calls = kernel::CALLS.iter().map(|(name, ..)| *name);
    let steps = steps::STEPS.iter().map(|(name, _)| *name);
    let others = others::OTHERS.iter().map(|(name, _)| *name);
    calls.chain(steps).chain(others)
}

/// Answers `reach PID CGROUP KEY`: {the name of an attempt: "done", or the kernel's name of the error}.
pub(crate) fn reach(neighbour: &[&str]) -> Answer {
    let mut said = serde_json::Map::new();
    for attempt in names() {
        let mut command = Command::new("/proc/self/exe");
        command.arg("reach-one").arg(attempt).args(neighbour);
        let output = command.output()?;
        let line: Value = serde_json::from_slice(&output.stdout)
            .map_err(|_| wrong(format!("{attempt}: {}", text(&output.stderr))))?;
        let answer = line.get("ok").cloned();
        said.insert(attempt.to_owned(), answer.unwrap_or(line));
    }
    Ok(Value::Object(said))
}

/// Answers `reach-one NAME PID CGROUP KEY`: "done", or the kernel's name of the error.
pub(crate) fn reach_one(wanted: &str, pid: i32, cgroup: &str, key: i64) -> Answer {
    let neighbour = Neighbour { pid, cgroup, key };
    let call = kernel::CALLS.iter().find(|(name, ..)| *name == wanted);
    let step = steps::STEPS.iter().find(|(name, _)| *name == wanted);
    let other = others::OTHERS.iter().find(|(name, _)| *name == wanted);
    let result = match (call, step, other) {
        (Some((_, number, arguments)), ..) => calls::call(*number, arguments).map(drop),
        (_, Some((_, step)), _) => step(),
        (.., Some((_, other))) => other(&neighbour),
        _ => return Err(wrong(format!("no such attempt: {wanted}"))),
    };
    Ok(match result {
        Ok(()) => json!("done"),
        Err(errno) => json!(name(&errno.into())),
    })
}

/// Answers `add-key`: the serial number of a key in the session keyring.
pub(crate) fn add_key() -> Answer {
    Ok(json!(others::add_key()?))
}
