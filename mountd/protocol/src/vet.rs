//! The channel between the daemon and the supervisor of system calls (`eci-vet`).
//!
//! A *listener* is the descriptor at which the kernel reports the trapped calls of the processes with one filter. The daemon
//! keeps every listener, and so does the supervisor: whichever of the two dies, the other one has them. The *journal* is a
//! memfd into which the kernel writes each request that the supervisor takes, so that the next supervisor knows those which
//! were taken and not answered. A listener has a slot in it.
//!
//! A supervisor outlives its daemon. It waits at its rendezvous for the next one, which begins with [`ToVet::HandOver`].

use serde::{Deserialize, Serialize};

/// The version of this protocol.
pub const VERSION: u32 = 1;

/// The number of listeners: there is a slot of the journal for each.
pub const LISTENERS: u32 = 4096;

/// The bytes of a slot of the journal.
pub const SLOT_BYTES: usize = 256;

/// The most listeners that one packet carries.
pub const PAGE: usize = 48;

/// The user that a supervisor is after its start. It is that of no other process.
pub const USER: u32 = 0x7ec1_f501;

/// The container of a listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Container {
    /// The process id of its init.
    pub pid: i32,
    /// The id that the runtime has for it.
    pub id: String,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The number of the slot of the journal for its requests.
    pub slot: u32,
    /// The container whose calls it reports.
    pub container: Container,
}

/// A packet of the daemon.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToVet {
    /// The first packet. It carries the journal, and the listening socket of the rendezvous. The answer is
    /// [`FromVet::Started`].
    Start {
        /// [`VERSION`] of the daemon.
        version: u32,
        /// The time for which figures are used again, in milliseconds.
        freshness_ms: u64,
        /// The CPU time that the supervisor spends for one container in the long run, in percent of one CPU; 0 for no limit.
        cpu_share: u32,
    },
    /// A listener, which the packet carries.
    Listen(Listener),
    /// The answer to [`FromVet::FindViews`]. The packet carries the files meminfo, uptime and loadavg of the container, as
    /// places (`O_PATH`); none when there is no such container.
    Views(Container),
    /// The daemon that comes next takes over what the supervisor has. The answers are [`FromVet::Held`].
    HandOver {
        /// [`VERSION`] of the daemon.
        version: u32,
    },
    /// The daemon has everything, and the supervisor ends.
    End,
}

/// A packet of the supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromVet {
    /// The supervisor can answer.
    Started,
    /// The supervisor cannot start. The words are for the log.
    Failed {
        /// Why.
        why: String,
    },
    /// The last process with the filter of the listener in this slot has ended.
    Ended {
        /// The slot.
        slot: u32,
    },
    /// The supervisor asks for the views of a container.
    FindViews(Container),
    /// Some of the listeners, which the packet carries in this order. The first packet carries the journal before them.
    Held {
        /// The listeners.
        listeners: Vec<Listener>,
        /// True if no other packet follows.
        last: bool,
    },
}
