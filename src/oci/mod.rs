//! The input of OCI runtimes and engines: the state of a container, its bundle, its annotations, and command lines.
//!
//! None of this runs in the daemon. The hook and the runtime read what an engine wrote, decide, and send one request
//! to the daemon. Both decide by [`decision::decide`].

pub mod annotations;
pub mod bundle;
pub mod command_line;
pub mod decision;
pub mod hooks;
pub mod isolation;
mod keys;
mod raw_object;
pub mod runtime_log;
pub mod saved_state;
pub mod state;
pub mod states;
