//! `eci-runc`: the part of `eci-fs` that engines call, as a separate program.
//!
//! An engine executes it several times for each container, and a larger program takes longer to start. This program
//! contains neither the server nor the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    eci_fs::cli::eci_runc_main()
}
