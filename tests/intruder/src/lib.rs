//! Makes system calls inside the confined server, as code would that has taken it over.
//!
//! [`inside::Inside`] stops one thread of the server and has it make system calls. [`attempts`] tries everything that such code
//! could want, and returns what was allowed. Registers are those of x86_64.

#![cfg(target_arch = "x86_64")]

mod attempts;
mod inside;
mod victims;

pub use attempts::{Allowed, attempts};
pub use inside::Inside;
