//! The server process alone, by the link: the test is its daemon, mounts the connections, and reads them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod again;
mod fair;
mod leaving;
mod names;
mod orphan;
mod raise;
mod remembered;
mod rig;
mod sizes;
mod user;
