//! The targets, one file each.

pub mod cpu_sets;
pub mod device_requests;
pub mod engine_input;
pub mod fuse_requests;
pub mod packets_to_daemon;
pub mod packets_to_server;
pub mod pressure_triggers;
pub mod process_files;
pub mod state_file;
pub mod tunable_writes;
pub mod views;
