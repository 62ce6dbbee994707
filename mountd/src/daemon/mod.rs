//! The daemon: one event loop, one thread a control connection, one grafter.
//!
//! | what | where |
//! |---|---|
//! | what can be done to containers, one at a time; on directories of the host | [`operations`], `exposures` |
//! | the loop that hears of connections, signals, and the ends of containers and of the server | [`run`](run()), `watch`, `timer` |
//! | what happens of itself: a container ends, the server dies, the daemon ends | `lifecycle`, `backoff`, `watchdog` |
//! | where the connections come from at the start, and the containers of the daemon before | `inherit`, `restore` |
//! | another version in the place of the one that runs | `upgrade` (the server), `successor` (the daemon) |
//! | who knocks, and what they say | `listen`, `serve_control`, `standard_streams` |
//! | the command line | [`options`] |

mod backoff;
mod exposures;
mod inherit;
mod lifecycle;
mod listen;
pub mod operations;
pub mod options;
mod ready;
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
