//! The mount daemon of eci-fs.
//!
//! The daemon is privileged, small and long-running. It opens and mounts the two FUSE connections, holds every descriptor that
//! must outlive a server, keeps the list of containers, grafts into their mount namespaces, and starts the server. It
//! parses its own protocol, from root peers, and what the kernel says of a process. It reads nothing that a container
//! wrote, and knows neither the server's internals nor the emulators.
//!
//! The modules in their order: each uses only those after it, and the protocol crate.
//!
//! | module | what it has |
//! |---|---|
//! | [`daemon`] | the event loop, the operations, start and end |
//! | [`supervisor`] | the daemon's end of a server |
//! | [`vet`] | the daemon's end of the supervisor of system calls |
//! | [`service_manager`] | what systemd keeps and is told |
//! | [`registry`] | the list of containers |
//! | [`persistent_descriptors`], [`state_file`] | the descriptors that outlive a server |
//! | [`grafts`] | the mounts in containers, and those that they are clones of |
//! | [`connections`] | the two FUSE connections |
//! | [`broker`] | answers what the server asks of the daemon |
//! | [`isolation`] | ranges of ids for containers with a user namespace of their own |
//! | [`host_sysctls`] | sysctls of the host that are raised for containers |
//! | [`config`] | the configuration of the host, for all programs |
//! | [`runtime_dir`], [`regular_file`], [`telemetry`], [`output`] | the runtime directory, files of others, the log, what is printed |
//! | `threads`, `faults` | threads whose end is noticed, and faults for tests |
//! | [`container`] | what the kernel says of a container's process |

pub mod broker;
pub mod config;
pub mod connections;
pub mod container;
pub mod daemon;
#[doc(hidden)]
pub mod faults;
pub mod grafts;
pub mod host_sysctls;
pub mod isolation;
pub mod output;
pub mod persistent_descriptors;
pub mod registry;
pub mod regular_file;
pub mod runtime_dir;
pub mod service_manager;
pub mod state_file;
pub mod supervisor;
pub mod telemetry;
mod threads;
pub mod vet;
