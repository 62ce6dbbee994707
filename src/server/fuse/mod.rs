//! The only folder that knows the FUSE library: requests come in, values of [`crate::server::fs`] go out.

mod adapter;
mod backlog;
mod convert;
mod drain;
mod init;
mod notifier;
mod refused;
mod reply;
mod session;

pub use backlog::KernelBacklog;
pub use init::Negotiated;
pub use notifier::{KernelNotifier, resend};
pub use session::{Backend, InitReply, Prepared, Serving, count_threads, prepare, threads};
