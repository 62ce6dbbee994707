//! The handover from a daemon to its successor, on the standard input of the successor.

use serde::{Deserialize, Serialize};

/// The version of this protocol. A daemon of version 1 knows no generations of containers, and a server that it starts
/// would break their grafts. So it may be followed by one of version 2, and not follow one.
pub const VERSION: u32 = 2;

/// The oldest version that a daemon can follow.
pub const OLDEST: u32 = 1;

/// The first packet, from the daemon that runs. It carries, in this order, the lock of the runtime directory, the
/// control socket, the `/dev/fuse` descriptors of both connections, the mount namespace of the source mounts, the
/// state, the rendezvous, the link to the server, and the daemon's end of the broker's channel.
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
    /// True if the server gives generations ([`Secrets::generation`](crate::link::Secrets::generation)).
    #[serde(default)]
    pub generations: bool,
}

/// The answer of the successor. After [`Taken::Yes`] the daemon that ran ends without undoing anything, and when it has
/// ended, the successor begins.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// The successor can go on with what it was handed.
    Yes {
        /// The release of the successor, for the person who asked.
        release: String,
    },
    /// The successor cannot go on.
    No {
        /// Why.
        why: String,
    },
}
