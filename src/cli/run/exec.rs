//! The step between the init and the command: unblocks signals, and executes the command.
//!
//! The init blocks its signals, and its child inherits that. The init must not unblock them for the moment of the
//! start: the kernel drops signals for which pid 1 has no handler, so a signal that came just then would be lost.

use std::ffi::CString;
use std::process::ExitCode;

use clap::Args;
use eci_fs_protocol::error::Error;
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::execv;

use super::FAILED;

/// The exit codes of shells for a command that cannot be executed, and for one that does not exist.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The directories to search when PATH is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Options of the hidden subcommand `run-exec`.
#[derive(Debug, Args)]
pub(in super::super) struct ExecOptions {
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Executes the command in the place of this process. Returns only when that fails.
#[allow(
    clippy::print_stderr,
    reason = "an error is printed before the command would start"
)]
pub(in super::super) fn exec(what: &ExecOptions) -> ExitCode {
    let Some(program) = what.command.first() else {
        return ExitCode::from(FAILED);
    };
    if let Err(error) = SigSet::all().thread_unblock() {
        eprintln!("eci-fs: {}", Error::io("unblock", "signals", error));
        return ExitCode::from(FAILED);
    }
    let errno = become_command(program, &what.command);
    eprintln!("eci-fs: {}", Error::io("execute", program, errno));
    ExitCode::from(if errno == Errno::ENOENT {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    })
}

/// Executes a program as execvp(3) does, except that a file in an unknown format is not given to a shell.
fn become_command(program: &str, command: &[String]) -> Errno {
    let Ok(arguments) = command
        .iter()
        .map(|word| CString::new(word.as_str()))
        .collect::<Result<Vec<_>, _>>()
    else {
        return Errno::EINVAL;
    };
    let path = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.to_owned()]
    } else {
        path.split(':')
            .map(|dir| format!("{dir}/{program}"))
            .collect()
    };
    let mut failed = Errno::ENOENT;
    for candidate in candidates {
        let Ok(candidate) = CString::new(candidate) else {
            return Errno::EINVAL;
        };
        let Err(errno) = execv(&candidate, &arguments);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => {}
            // Another directory may have a program that can be executed.
            Errno::EACCES => failed = errno,
            _ => return errno,
        }
    }
    failed
}
