//! The only folder that knows the FUSE library: requests come in, values of [`crate::tree`] go out.

mod adapter;
mod session;

pub use session::{Kernel, Prepared, Reply, prepare, resend};
