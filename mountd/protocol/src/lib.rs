//! The protocols of the programs: [`control`] between a command and the daemon, [`link`] between the daemon and the
//! server, [`handover`] between a daemon and its successor. All of them use a [`channel`].
//!
//! This crate holds values and their encoding, and nothing of any side's internals. The order of its modules is
//! `control, handover, link, vet -> error, facts, choices, locks -> channel, host_sysctl, capabilities, root_only`: each uses only those after it.

pub mod capabilities;
pub mod channel;
pub mod choices;
pub mod control;
pub mod error;
pub mod facts;
pub mod handover;
pub mod host_sysctl;
pub mod link;
pub mod locks;
pub mod root_only;
pub mod vet;
