//! `eci-mountd`: the mount daemon as a program of its own.

use std::process::ExitCode;

use clap::Parser;

/// The mount daemon of eci-fs: mounts the two FUSE connections, and grafts views into containers.
#[derive(Debug, Parser)]
#[command(name = "eci-mountd", version)]
struct CommandLine {
    #[command(flatten)]
    options: eci_fs_mountd::daemon::Options,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    eci_fs_mountd::telemetry::start();
    eci_fs_mountd::daemon::main(&line.options)
}
