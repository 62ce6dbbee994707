//! `eci-fs doctor`: checks the host and the engines, and says what to change.
//!
//! A finding is wrong when a container would fail to start or would not see its own limits. All other findings that
//! are worth knowing are notes.

mod configuration;
mod containers;
mod daemon;
mod engines;
mod isolation;
mod kernel;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use eci_fs_mountd::config::{self, Location};
use eci_fs_mountd::output::Output;
use eci_fs_protocol::error::Error;
use serde::Serialize;

use super::Runtime;

/// Options of `eci-fs doctor`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// As JSON: whether all is well, and an array of findings
    #[arg(long)]
    json: bool,
    /// The root of the file system that the engines' configurations are in
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The configuration of the host [default: /etc/eci-fs/config.toml below the root, if it exists]
    #[arg(long, value_name = "FILE", env = config::VARIABLE)]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) runtime: Runtime,
}

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Note,
    Wrong,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    /// The part of the host that was checked, as "kernel" or "engines".
    part: &'static str,
    state: Status,
    /// The text of the finding.
    says: String,
    /// The way to solve the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// All findings, in the order of the output.
#[derive(Debug, Default)]
struct Findings {
    part: &'static str,
    all: Vec<Finding>,
}

impl Findings {
    /// Begins a part: all findings that follow belong to it.
    fn begin(&mut self, part: &'static str) {
        self.part = part;
    }

    fn ok(&mut self, says: impl Into<String>) {
        self.add(Status::Ok, says.into(), None);
    }

    fn note(&mut self, says: impl Into<String>, remedy: &str) {
        self.add(Status::Note, says.into(), Some(remedy.to_owned()));
    }

    fn wrong(&mut self, says: impl Into<String>, remedy: &str) {
        self.add(Status::Wrong, says.into(), Some(remedy.to_owned()));
    }

    fn error(&mut self, error: Error) {
        self.add(Status::Wrong, error.what, error.remedy);
    }

    fn add(&mut self, state: Status, says: String, remedy: Option<String>) {
        self.all.push(Finding {
            part: self.part,
            state,
            says,
            remedy,
        });
    }

    fn is_well(&self) -> bool {
        self.all
            .iter()
            .all(|finding| finding.state != Status::Wrong)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut part = "";
        for finding in &self.all {
            if finding.part != part {
                part = finding.part;
                text += &format!("{part}\n");
            }
            let state = match finding.state {
                Status::Ok => "ok",
                Status::Note => "note",
                Status::Wrong => "WRONG",
            };
            text += &format!("  {state:<6} {}\n", finding.says);
            if let Some(remedy) = &finding.remedy {
                text += &format!("         -> {remedy}\n");
            }
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "ok": self.is_well(), "findings": self.all })
    }
}

pub(super) fn main(options: &Options, out: &mut Output) -> ExitCode {
    let mut findings = Findings::default();
    findings.begin("kernel");
    kernel::examine(&mut findings);
    findings.begin("cgroups");
    kernel::examine_cgroups(&mut findings);
    findings.begin("configuration");
    let location = Location::below(&options.root, options.config.as_deref());
    let config = configuration::examine(&mut findings, &location);
    findings.begin("isolation");
    let settings = config.as_ref().map(|config| config.isolation.clone());
    isolation::examine(&mut findings, &options.root, &settings.unwrap_or_default());
    findings.begin("engines");
    let wired = engines::examine(&mut findings, &options.root);
    // The kernel part says already that only root is told more.
    if rustix::process::geteuid().is_root() {
        findings.begin("daemon");
        let hook = config.as_ref().map(|config| &config.hook);
        let answers = daemon::examine(&mut findings, &options.runtime, hook, wired);
        findings.begin("container");
        if answers {
            trial::examine(&mut findings, &options.runtime, &location);
        } else {
            findings.note(
                "no container is tried while eci-mountd does not answer",
                "see above",
            );
        }
    }
    if options.json {
        writeln!(out, "{:#}", findings.json());
    } else {
        write!(out, "{}", findings.text());
    }
    if findings.is_well() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_that_is_wrong_is_enough_and_notes_are_not() {
        let mut findings = Findings::default();
        findings.begin("kernel");
        findings.ok("Linux 6.12");
        findings.note("no Landlock", "boot with lsm=landlock");
        assert!(findings.is_well());
        findings.begin("daemon");
        findings.wrong("not running", "start it");
        assert!(!findings.is_well());
        assert_eq!(
            findings.text(),
            "kernel\n  ok     Linux 6.12\n  note   no Landlock\n         -> boot with lsm=landlock\n\
             daemon\n  WRONG  not running\n         -> start it\n"
        );
        let json = findings.json();
        assert_eq!(json["ok"], false);
        assert_eq!(json["findings"][2]["state"], "wrong");
        assert_eq!(json["findings"][0].get("remedy"), None);
    }
}
