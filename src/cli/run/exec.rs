//! The step between the init and the command: unblocks signals, and becomes the command.
//!
//! The init has them blocked, and a child inherits that. They cannot be unblocked in the init for the moment of the
//! start: a signal that came just then would be lost, because the kernel drops what pid 1 has no handler for.

use std::ffi::CString;
use std::process::ExitCode;

use clap::Args;
use eci_fs_protocol::error::Error;
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::execv;

use super::FAILED;

/// The command is there and cannot be executed, and it is not there: as shells exit.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Where programs are looked for without a PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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

/// As execvp(3) looks for a program, but for one thing: a file that is no program is not given to a shell.
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
            // Another directory may have one that can be executed.
            Errno::EACCES => failed = errno,
            _ => return errno,
        }
    }
    failed
}
