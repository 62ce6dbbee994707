//! `eci-mountd`: the mount daemon as a program of its own.

use std::process::ExitCode;

use clap::Parser;
use eci_fs_mountd::{daemon, output, telemetry};

/// The mount daemon of eci-fs: mounts the two FUSE connections, and grafts views into containers.
#[derive(Debug, Parser)]
#[command(name = "eci-mountd", version)]
struct CommandLine {
    #[command(flatten)]
    options: daemon::Options,
}

fn main() -> ExitCode {
    match output::parse::<CommandLine>("eci-mountd") {
        Ok(line) => {
            telemetry::start();
            daemon::main(&line.options)
        }
        Err(code) => code,
    }
}
