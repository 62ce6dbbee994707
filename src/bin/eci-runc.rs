//! `eci-runc`: of `eci-fs` what engines call, as a program of its own.
//!
//! An engine executes it several times for each container, and a program takes time by its size before it begins: this
//! one has neither the server in it nor the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    eci_fs::cli::called_by_engines()
}
