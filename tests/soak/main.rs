//! Readers in many containers, while the programs that serve them are killed at random moments. No reader may notice.
//!
//! A run is short by default, and long by `cargo xtask soak --minutes N`. Its moments come from a seed, which is
//! printed, and can be set with `--seed` or `ECI_FS_SOAK_SEED`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it has measured"
)]

mod crowd;
mod disturb;
mod footprint;
mod hygiene;
mod judge;
mod reader;
mod scale;
mod seen;
mod ways;

use disturb::{Disturbance, soak};

#[test]
fn privileged_no_reader_notices_that_the_server_is_killed() {
    soak(&[Disturbance::KillServer]);
}

#[test]
fn privileged_no_reader_notices_that_the_daemon_is_killed() {
    soak(&[Disturbance::KillDaemon]);
}

#[test]
fn privileged_no_reader_notices_that_the_server_hangs() {
    soak(&[Disturbance::StopServer]);
}

#[test]
fn privileged_no_reader_notices_an_upgrade() {
    soak(&[Disturbance::Upgrade]);
}

// There are faults on purpose in builds with debug assertions only.
#[cfg(debug_assertions)]
#[test]
fn privileged_no_reader_notices_that_servers_panic() {
    soak(&[Disturbance::Panic]);
}

#[cfg(debug_assertions)]
#[test]
fn privileged_no_reader_notices_that_servers_stop_to_answer() {
    soak(&[Disturbance::Hang]);
}

#[test]
fn privileged_no_reader_notices_all_of_that_together() {
    soak(&[
        Disturbance::KillServer,
        Disturbance::KillDaemon,
        Disturbance::StopServer,
        Disturbance::Upgrade,
    ]);
}
