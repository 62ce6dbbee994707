//! What a daemon says to the one that takes its place, on the standard input of that.

use serde::{Deserialize, Serialize};

/// The version of this protocol.
pub const VERSION: u32 = 1;

/// What the daemon that was there says first. Carries, in this order, the lock of the runtime directory, the control
/// socket, the `/dev/fuse` descriptors of both connections, the mount namespace of the source mounts, the state, the
/// rendezvous, the link to the server, and the daemon's end of the channel over which the server asks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// [`VERSION`] of the daemon that was there.
    pub version: u32,
    /// The INIT request of each connection.
    pub init: Vec<Vec<u8>>,
    /// The answers to them.
    pub replies: Vec<Vec<u8>>,
    /// The server's process.
    pub server: i32,
    /// The containers that it serves.
    pub slots: Vec<u64>,
}

/// What the other answers. Then the daemon that was there ends without undoing anything, and when it has, the other
/// one begins.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// It can go on with that.
    Yes {
        /// Its version, for the person who asked.
        release: String,
    },
    /// It cannot.
    No {
        /// Why.
        why: String,
    },
}
