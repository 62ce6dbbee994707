//! The tasks of the repository, run as `cargo xtask <task>`: virtual machines with other kernels,
//! recorded fixtures, and the set-up and the run of the tests. The tests call [`vm::Vm`] too.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool of the developers: what it says belongs on its standard streams"
)]

pub mod commands;
pub mod fixture;
pub mod paths;
pub mod process;
pub mod vm;
