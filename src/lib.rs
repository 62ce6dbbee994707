//! eci-fs: the commands, what engines call, and the FUSE server that shows containers their own /proc and /sys.
//!
//! A folder says which process its code runs in: [`cli`] and [`oci`] run in the process of a command or of an engine's
//! call, [`isolation`] in the process that becomes a runtime, [`server`] in the confined server, [`vet`] in the supervisor of
//! system calls. Both confine themselves by `confinement`. The mount daemon is another crate, and what the programs say to each other is a third.

pub mod cli;
mod confinement;
pub mod isolation;
pub mod oci;
pub mod server;
pub mod vet;
