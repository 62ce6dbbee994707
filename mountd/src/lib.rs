//! The mount daemon of eci-fs.
//!
//! It is privileged, small and long-running: it opens and mounts the two FUSE connections, holds every
//! descriptor that must outlive a server, keeps the list of containers, grafts into their mount namespaces,
//! and starts the server. It parses its own protocol, from root peers, and what the kernel says of a process;
//! it reads nothing that a container wrote, and knows neither the server's internals nor the emulators.

pub mod broker;
pub mod config;
pub mod connections;
pub mod container;
pub mod daemon;
pub mod grafts;
pub mod host_sysctls;
pub mod registry;
pub mod runtime_dir;
pub mod service_manager;
pub mod state_file;
pub mod supervisor;
pub mod telemetry;
