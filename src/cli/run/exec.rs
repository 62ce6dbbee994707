//! The step between the init and the command: gives signals their default, and executes the command.
//!
//! The init blocks its signals, and its child inherits that. The init must not unblock them for the moment of the
//! start: the kernel drops signals for which pid 1 has no handler, so a signal that came just then would be lost.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

use clap::Args;
use eci_fs_mountd::output::print_error;
use eci_fs_protocol::error::Error;
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::execv;

use super::super::PROGRAM;
use super::FAILED;
use crate::cli::sigpipe;

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
    command: Vec<OsString>,
}

/// Executes the command in the place of this process. Returns only when that fails.
pub(in super::super) fn exec(what: &ExecOptions) -> ExitCode {
    let Some(program) = what.command.first() else {
        return ExitCode::from(FAILED);
    };
    if let Err(error) = SigSet::all().thread_unblock() {
        print_error(PROGRAM, Error::io("unblock", "signals", error));
        return ExitCode::from(FAILED);
    }
    if let Err(error) = sigpipe::reset() {
        print_error(PROGRAM, Error::io("reset", "SIGPIPE", error));
        return ExitCode::from(FAILED);
    }
    let errno = become_command(program, &what.command);
    print_error(PROGRAM, Error::io("execute", program, errno));
    ExitCode::from(if errno == Errno::ENOENT {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    })
}

/// Executes a program as execvp(3) does, except that a file in an unknown format is not given to a shell.
fn become_command(program: &OsStr, command: &[OsString]) -> Errno {
    let Ok(arguments) = command
        .iter()
        .map(|word| CString::new(word.as_bytes()))
        .collect::<Result<Vec<_>, _>>()
    else {
        return Errno::EINVAL;
    };
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let candidates: Vec<OsString> = if program.as_bytes().contains(&b'/') {
        vec![program.to_owned()]
    } else {
        let dirs = path.as_bytes().split(|byte| *byte == b':');
        dirs.map(|dir| [dir, program.as_bytes()].join(&b'/'))
            .map(OsString::from_vec)
            .collect()
    };
    let mut failed = Errno::ENOENT;
    for candidate in candidates {
        let Ok(candidate) = CString::new(candidate.into_vec()) else {
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
