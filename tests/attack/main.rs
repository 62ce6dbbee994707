//! Hostile containers, and what their neighbours notice of them.
//!
//! `rows` has one test for each attack that was found to delay others. Each runs the attack, and in turn with it a
//! control: the same threads read a file of the kernel instead. A test fails if a read of the neighbour fails, if a
//! container does not start, or if the server is replaced. How much longer the neighbour waits than beside the control
//! is printed. `cargo xtask attack` measures that for longer, and judges it.
//!
//! The other files have the attacks that are no matter of time.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it has measured"
)]

mod attacker;
mod control_socket;
mod figures;
mod frozen;
mod mount_races;
mod neighbour;
mod odd_calls;
mod prefer;
mod round;
mod rows;
mod scale;
mod starts;

use support::Scene;

/// The surroundings of one test.
#[track_caller]
fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_eci-fs"))
}
