//! The parts that tests with mounts and containers share.
//!
//! A test begins with a [`Scene`]: its own mount namespace and directory, in which it starts containers, daemons and
//! commands. At its end the scene looks for mounts, processes and cgroups that are left, and fails the test if it
//! finds any. No name here is shared by two tests. Nothing sleeps: tests wait for pipes and pidfds.
//!
//! A missing requirement fails the test, and the message says what to install.

mod agent;
mod bundle;
mod cgroup;
mod command;
mod config;
mod container;
mod daemon;
pub mod engines;
mod logged;
mod process;
mod program;
pub mod promises;
mod scene;
mod stuck;
mod text;
mod turns;

pub use agent::Agent;
pub use bundle::{Bundle, give_engines_capabilities};
pub use cgroup::{Cgroup, Limits};
pub use command::Ran;
pub use container::{Builder, Container, Engine};
pub use daemon::{Daemon, Pending};
pub use logged::Logged;
pub use process::{
    children_of, end_within, has_ended, let_time_pass, mounts_of, open_pidfd, reap, signal,
    status_field, try_pidfd, wait_for_end,
};
pub use program::find as find_program;
pub use program::probe as build_probe;
pub use rustix::process::Signal;
pub use scene::Scene;
pub use text::{count_cpus, cpu_list, form, number_after, uptime};
pub use turns::in_turn;

/// The time limit for anything that normally takes milliseconds.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
