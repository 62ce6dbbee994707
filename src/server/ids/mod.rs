//! The numbers by which the kernel knows what is served: node ids and file handles.
//!
//! They are the lowest floor of the server. Everything else may name them, and they name nothing else.

mod handle;
mod node;
mod paths;
mod request;

pub use handle::Handle;
pub use node::{Node, NodeId, Owner};
pub(in crate::server) use paths::{Known, Paths, fnv};
pub use request::Request;
