//! The descriptors that outlive a server: its state, and what it holds for the next daemon.

use std::os::fd::OwnedFd;

use crate::state_file;
use eci_fs_protocol::error::Result;

/// The descriptors that each server gets besides the connections.
#[derive(Debug)]
pub struct PersistentDescriptors {
    /// The memfd in which servers remember what the next one must know. The daemon never looks into it.
    pub state: OwnedFd,
    /// The descriptors that the server holds for the next daemon; a private daemon has no next one.
    pub held: Option<HeldDescriptors>,
}

/// The descriptors that a server holds for the next daemon, besides the connections and the state.
#[derive(Debug)]
pub struct HeldDescriptors {
    /// The mount namespace of the source mounts.
    pub namespace: OwnedFd,
    /// The socket at which a server that has lost its daemon waits for the next one.
    pub rendezvous: OwnedFd,
}

impl PersistentDescriptors {
    /// Returns those of new connections, with an empty state.
    ///
    /// # Errors
    /// As [`state_file::create`].
    pub fn new(held: Option<HeldDescriptors>) -> Result<Self> {
        let state = state_file::create()?;
        Ok(Self { state, held })
    }

    /// Returns those that another process has kept. What cannot be the state is replaced by an empty one.
    ///
    /// # Errors
    /// As [`state_file::or_new`].
    pub fn kept(state: OwnedFd, held: HeldDescriptors) -> Result<Self> {
        let state = state_file::or_new(state)?;
        Ok(Self {
            state,
            held: Some(held),
        })
    }
}
