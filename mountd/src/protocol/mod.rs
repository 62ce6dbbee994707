//! What the programs say to each other: [`control`] between a command and the daemon, [`link`]
//! between the daemon and the server, both over [`channel`].
//!
//! This module holds values and their encoding, and nothing of either side's internals.

pub mod channel;
pub mod choices;
pub mod control;
pub mod handover;
pub mod link;
pub mod raisable;
