//! eci-fs: the commands, and the FUSE server that shows containers their own /proc and /sys.
//!
//! The dependencies run `fuse -> tree -> container -> emulators`; the mount daemon is another crate, of which only
//! the protocol, the options and the entry point are used here.

pub mod asks;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod container;
pub mod error;
pub mod faults;
pub mod fuse;
pub mod oci;
pub mod program;
pub mod raises;
pub mod sandbox;
pub mod server;
pub mod state;
pub mod tree;
pub mod triggers;
pub mod workers;
