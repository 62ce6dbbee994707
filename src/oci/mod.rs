//! What OCI runtimes hand over and take: the state of a container, its bundle, its annotations, their command lines.
//!
//! None of this runs in the daemon: hook and runtime read what an engine wrote, decide, and ask the daemon for one
//! thing only. What decides about a container is [`decision::decide`], for all of them.

pub mod annotations;
pub mod bundle;
pub mod command_line;
pub mod decision;
pub mod edit;
pub mod runtime_log;
pub mod state;
