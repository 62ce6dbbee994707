//! The daemon: one event loop, one thread a control connection, one grafter.
//!
//! [`operations`] are what can be done to containers, one at a time; `exposures` those on directories of the host,
//! `lifecycle` what happens of itself. [`run`](run()) is the loop that hears of
//! new connections, signals, and the ends of containers and of the server. [`options`] is its command line.

mod backoff;
mod exposures;
mod inherit;
mod lifecycle;
mod listen;
pub mod operations;
pub mod options;
mod restore;
mod run;
mod serve_control;
mod standard_streams;
mod successor;
mod timer;
mod upgrade;
mod watch;
mod watchdog;

pub use options::Options;
pub use run::{main, run};
