//! The text that a program prints: its answer on standard output, its errors on standard error, and its help.
//!
//! `println!` and `eprintln!` panic when nobody reads the pipe any more, or the disk is full. A command has to end then
//! without a message, or with one line. SIGPIPE would do that too, but it would also end a daemon whose peer closes a
//! socket, and every program that is started would inherit that. So SIGPIPE stays ignored, and everything is printed here.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ContextKind;

use eci_fs_protocol::error::Error;

/// The exit code of a command whose reader has closed the pipe: that of a shell for a program that SIGPIPE has ended.
const BROKEN_PIPE: u8 = 141;

/// Standard output. After the first error nothing more is written, but the command goes on: what it has begun to change
/// is brought to its end. [`Self::end`] reports the error.
#[derive(Debug, Default)]
pub struct Output {
    error: Option<io::Error>,
}

impl Output {
    /// Prints a text. `write!` and `writeln!` call this.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) {
        if self.error.is_none() {
            self.error = io::stdout().lock().write_fmt(text).err();
        }
    }

    /// Ends the program `program`, which would end with `code` if all could be printed. Returns its exit code.
    pub fn end(mut self, program: &str, code: ExitCode) -> ExitCode {
        if self.error.is_none() {
            self.error = io::stdout().flush().err();
        }
        let Some(error) = self.error else {
            return code;
        };
        let failed = if error.kind() == io::ErrorKind::BrokenPipe {
            ExitCode::from(BROKEN_PIPE)
        } else {
            print_error(program, Error::io("write to", "standard output", error));
            ExitCode::FAILURE
        };
        if code == ExitCode::SUCCESS {
            failed
        } else {
            code
        }
    }
}

/// Prints an error of the program `program`. If that fails there is nobody left to tell.
pub fn print_error(program: &str, error: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{program}: {error}");
}

/// Parses the command line of the program `program`.
///
/// # Errors
/// The exit code, when the command line is wrong, or asks for the help or the version. That is printed then.
pub fn parse<P: Parser>(program: &str) -> Result<P, ExitCode> {
    P::try_parse().map_err(|error| print_usage(program, error))
}

/// Prints what is wrong with a command line, or the help that it asks for. Returns the exit code.
pub fn print_usage(program: &str, mut error: clap::Error) -> ExitCode {
    // "to pass '--json' as a value, use '-- --json'" is seldom what somebody meant.
    error.remove(ContextKind::Suggested);
    let printed = error.print();
    if error.use_stderr() {
        return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
    }
    let output = Output {
        error: printed.err(),
    };
    output.end(program, ExitCode::SUCCESS)
}
