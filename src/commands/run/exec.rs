//! The step between the init and the command: unblocks signals, and becomes the command.
//!
//! The init has them blocked, and a child inherits that. They cannot be unblocked in the init for the moment of the
//! start: a signal that came just then would be lost, because the kernel drops what pid 1 has no handler for.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Args;
use eci_fs_mountd::error::Error;
use nix::sys::signal::SigSet;

use super::FAILED;

/// The command is there and cannot be executed, and it is not there: as shells exit.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// What becomes of this process.
#[derive(Debug, Args)]
pub(in super::super) struct Become {
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Become the command; returns only when that fails.
#[allow(clippy::print_stderr, reason = "the last word before the command")]
pub(in super::super) fn exec(what: &Become) -> ExitCode {
    let Some((program, arguments)) = what.command.split_first() else {
        return ExitCode::from(FAILED);
    };
    if let Err(error) = SigSet::all().thread_unblock() {
        eprintln!("eci-fs: {}", Error::io("unblock", "signals", error));
        return ExitCode::from(FAILED);
    }
    let error = Command::new(program).args(arguments).exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    };
    let error = std::io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO));
    eprintln!("eci-fs: {}", Error::io("execute", program, error));
    ExitCode::from(code)
}
