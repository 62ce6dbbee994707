//! `eci-fs`: one program with all commands, the server and, if there is no other, the mount daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    eci_fs::cli::main()
}
