//! Programs that everybody uses, run in a container: what they report is the container's.
//!
//! Every test runs one program in the same containers twice: with the views grafted, and after detaching, when it
//! reads the files of the kernel. What it is found to say is a row of the table in docs/conformance.md, and a test
//! whose row is not there fails, so that the table stays true.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod affinity;
mod beside;
mod built;
mod case;
mod cpus;
mod devices;
mod lxcfs;
mod measuring;
mod monitors;
mod offline;
mod procps;
mod runtimes;
mod said;
mod shell;
mod table;
mod terminal;
mod topology;

use case::{Case, Program, Seen};
use said::{Means, Said};
use shell::Shell;
