//! Views below /proc/sys.

pub mod fs;
pub mod kernel;
pub mod net;
pub mod vm;
