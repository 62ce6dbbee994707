//! Readers in many containers, while what serves them is killed at random moments: none may notice.
//!
//! A run is short where nothing says otherwise, and long by `cargo xtask soak --minutes N`. Its moments come from a
//! seed, which is printed, and can be set with `--seed` or `ECI_FS_SOAK_SEED`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it has measured"
)]

mod crowd;
mod disturb;
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
