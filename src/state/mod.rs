//! The state that outlives a server, in a memory file that the daemon made.

mod lock;

pub use lock::Lock;
