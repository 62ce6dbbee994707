//! Views below /proc/sys.

pub mod kernel;
