//! The numbers by which the kernel and programs know what is served: node ids, inode numbers and file handles.
//!
//! They are the lowest floor of the server. Everything else may name them, and they name nothing else.

mod handle;
mod node;
mod paths;
mod request;

pub use handle::Handle;
pub use node::{Node, NodeId, Owner};
pub(in crate::server) use paths::{BYTES as PATH_BYTES, FLOOR as PATH_FLOOR, Known, Paths, fnv};
pub use request::Request;
