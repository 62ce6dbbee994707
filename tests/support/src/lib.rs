//! What the tests with mounts and containers share.
//!
//! A test begins with a [`Scene`]: a mount namespace and a directory of its own, in which it starts containers,
//! daemons and commands. When the scene ends it looks whether a mount, a process or a cgroup is left, and fails
//! the test if one is. Nothing here has a name that two tests could share, and nothing sleeps: what is waited
//! for is a pipe or a pidfd.
//!
//! A requirement that is missing fails the test, and says what to install.

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
mod scene;
mod text;

pub use agent::Agent;
pub use bundle::Bundle;
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

/// How long anything is waited for that takes milliseconds when all is well.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
