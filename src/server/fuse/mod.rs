//! The only folder that knows the FUSE library: requests come in, values of [`crate::server::fs`] go out.

mod adapter;
mod convert;
mod drain;
mod kernel;
mod refused;
mod session;
mod unanswered;

pub use kernel::{Kernel, resend};
pub use session::{Means, Prepared, Reply, Serving, count_threads, prepare};
pub use unanswered::Unanswered;
