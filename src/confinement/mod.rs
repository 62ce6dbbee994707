//! What a program of ours does to be worth little to whoever takes it over. The server and the supervisor of system calls call
//! it, each with what it needs itself.

pub(crate) mod capabilities;
pub(crate) mod filter;
pub(crate) mod user;
