//! The link between the daemon and the server that it started.
//!
//! The daemon speaks, and the server answers. The server is treated as hostile, so its answers are checked before use.
//! Descriptors go from the daemon to the server. Only those that a server held for the next daemon go back.
//!
//! A server that holds descriptors outlives the link. It serves on, and waits at its rendezvous for the next daemon,
//! which begins with [`ToServer::Adopt`]. A server that holds none ends with the link.

use serde::{Deserialize, Serialize};

use crate::choices::Choices;
pub use crate::choices::{CpuIds, CpuQuota};
use crate::facts::Facts;
use crate::host_sysctl::HostSysctl;

/// The version of this protocol.
pub const VERSION: u32 = 2;

/// The number of descriptors that a server holds for the next daemon. The daemon of a single command has no next one.
pub const HELD: u32 = 4;

/// A FUSE connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connection {
    /// Synthesized views that the kernel's page cache may hold for as long as their freshness.
    Cached,
    /// Direct I/O: a snapshot an open.
    Live,
}

impl Connection {
    /// Both, in the order in which descriptors are passed.
    pub const ALL: [Self; 2] = [Self::Cached, Self::Live];

    /// Returns "cached" or "live".
    pub fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Live => "live",
        }
    }
}

/// The settings of the views, which an administrator chooses. A setting of another version is passed over, as `padding` is,
/// which version 0.1.0 has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Settings {
    /// The age that a view may have, in milliseconds; 0 puts every view on the live connection.
    pub freshness_ms: u64,
    /// True if MemAvailable is never more than what the host has left.
    pub host_clamp: bool,
    /// The numbering of CPUs: their physical ids, or numbers from 0.
    pub cpu_ids: CpuIds,
    /// The effect of a CPU quota. Without one, it is ignored for containers that can measure CPUs
    /// ([`Facts::can_measure_cpus`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<CpuQuota>,
    /// The CPU time that the server spends for one container in the long run, in percent of one CPU; 0 for no limit.
    pub cpu_share: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            freshness_ms: 10,
            host_clamp: true,
            cpu_ids: CpuIds::Physical,
            cpu_quota: None,
            cpu_share: 25,
        }
    }
}

/// The values that make the identity of a container, and keep it from being guessed.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// The container's own boot_id: a random UUID (RFC 9562, version 4).
    pub boot_id: [u8; 16],
    /// A secret of the host, made once a boot.
    #[serde(rename = "machine_secret")]
    pub host_secret: [u8; 32],
}

impl Secrets {
    /// Returns a new boot_id beside the secret of the host.
    pub fn new(host_secret: [u8; 32]) -> std::io::Result<Self> {
        let mut boot_id: [u8; 16] = random()?;
        boot_id[6] = boot_id[6] & 0x0f | 0x40;
        boot_id[8] = boot_id[8] & 0x3f | 0x80;
        Ok(Self {
            boot_id,
            host_secret,
        })
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // They are not for logs.
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// Returns random bytes from the kernel.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// A packet of the daemon.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToServer {
    /// The first packet. It carries the `/dev/fuse` descriptors of [`Connection::ALL`] to serve by, the server's end of
    /// the broker's channel, the memfd of its state, and then those to hold for the next daemon. The answer to a state
    /// that the server cannot read is [`FromServer::Failed`]. The state is read at [`ToServer::Serve`], because until
    /// then another server may write to it.
    Start {
        /// [`VERSION`] of the daemon.
        version: u32,
        /// The INIT request of each connection, as the kernel sent it once.
        init: Vec<Vec<u8>>,
        /// The settings of the host.
        settings: Settings,
        /// The number of descriptors that the server holds for the next daemon: none, or [`HELD`]. They are the
        /// `/dev/fuse` descriptors of [`Connection::ALL`] as they were opened, the mount namespace of the source
        /// mounts, and the listening socket of the rendezvous.
        held: u32,
    },
    /// The first packet of a daemon to a server whose own has died, at the rendezvous. It carries the server's end of a
    /// new channel of the broker. The answer is [`FromServer::Held`]; from then on this is the link.
    Adopt {
        /// [`VERSION`] of the daemon.
        version: u32,
    },
    /// The daemon asks what can be grafted into a container that the server has. The answer is [`FromServer::Added`].
    Catalogue {
        /// The slot of the container.
        slot: u64,
    },
    /// The daemon asks whether the server answers.
    Ping,
    /// The server takes no more requests: another server is about to. Each session thread leaves after the request that
    /// it is blocked for, so the daemon makes requests until all have left. Requests that have been taken are still
    /// answered.
    Drain,
    /// After [`ToServer::Drain`], the daemon asks what is left. The answer is [`FromServer::Left`]. After an answer of
    /// none the server writes to its state no more.
    Drained,
    /// A new container. The packet carries a directory descriptor for each of `facts.hierarchies`, and the container's
    /// pidfd.
    Add {
        /// The number of its directory.
        slot: u64,
        /// The values that make its identity.
        secrets: Secrets,
        /// The facts about it.
        facts: Box<Facts>,
        /// The settings of this container alone.
        #[serde(default)]
        choices: Choices,
    },
    /// A container is going to be in this slot. Until it is added, a path to each view that a container can have can be
    /// walked there, and nothing can be read. A server that does not know this packet answers [`FromServer::Failed`].
    Expect {
        /// The number of its directory.
        slot: u64,
    },
    /// The daemon asks what the server has done for containers. The answer is [`FromServer::Usage`]. A server that does not
    /// know this packet answers [`FromServer::Failed`].
    Usage {
        /// The slots of the containers.
        slots: Vec<u64>,
    },
    /// A container is gone.
    Remove {
        /// The slot of the container.
        slot: u64,
    },
    /// The server begins to answer requests. Until then they wait in the kernel, so that a server that takes over knows
    /// all its containers before it is asked about one. After [`ToServer::Drain`] it begins again: the other server
    /// could not begin, or has ended.
    Serve {
        /// True if the server before this one is dead, so that FUSE_NOTIFY_RESEND is written to both connections.
        resend: bool,
    },
    /// The server tells from now on what containers set these sysctls to, and what they have set already
    /// ([`BrokerRequest::SetHostSysctl`]). A server that does not know this packet answers [`FromServer::Failed`]. A
    /// server that was not told tells nothing.
    #[serde(rename = "raise")]
    HostSysctls {
        /// All sysctls that may be raised on the host.
        tunables: Vec<HostSysctl>,
    },
}

/// An answer of the server: one packet to each of [`ToServer`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromServer {
    /// The server can serve both connections.
    Started {
        /// The answers of the server to the INIT requests, in the same order.
        replies: Vec<Vec<u8>>,
    },
    /// The entries that can be grafted into the container.
    Added {
        /// One row for each view that exists for it.
        catalogue: Vec<Row>,
    },
    /// Done.
    Done,
    /// The descriptors that the server held for the next daemon. The packet carries the `/dev/fuse` descriptors of
    /// [`Connection::ALL`] as they were opened, the mount namespace of the source mounts, the memfd of the state, and
    /// the socket of the rendezvous.
    Held {
        /// [`VERSION`] of the server.
        version: u32,
        /// The INIT request of each connection.
        init: Vec<Vec<u8>>,
        /// The answers of the server to them.
        replies: Vec<Vec<u8>>,
        /// The settings that it serves with.
        settings: Settings,
        /// The containers that it serves.
        slots: Vec<u64>,
    },
    /// The work that is left.
    Left {
        /// Session threads that have not left, and requests that are not answered. A reader that waits in poll(2) does
        /// not count: it was answered, and is told later.
        busy: u64,
    },
    /// What the server has done, for each of the containers that it has among those asked about.
    Usage {
        /// Slots, each with the figures of the container in it.
        containers: Vec<(u64, Usage)>,
    },
    /// The server failed. The words are for the log and for the person who asked.
    Failed {
        /// Why.
        why: String,
        /// The errno of what failed, as the kernel numbers it; none where it is no system call's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errno: Option<i32>,
    },
}

/// The figures of what a server has done for a container since it has that: since the container was attached, or this server
/// was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of the server, in microseconds.
    pub cpu_usec: u64,
    /// Requests, answered or not.
    pub requests: u64,
    /// Requests that wait in the server at this moment.
    pub waiting: u64,
    /// Requests that got EAGAIN, because too many waited.
    pub refused: u64,
}

/// A request of the server to the broker of the daemon, over a channel of its own.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerRequest {
    /// A pressure trigger is to be set on the cgroup of a container. It is answered with the descriptor to poll.
    Trigger {
        /// The container's slot.
        slot: u64,
        /// The resource.
        resource: Resource,
        /// The bytes that the container wrote.
        trigger: Vec<u8>,
    },
    /// A container has set a sysctl that may be raised on the host ([`ToServer::HostSysctls`]).
    #[serde(rename = "raise")]
    SetHostSysctl {
        /// The container's slot.
        slot: u64,
        /// The sysctl.
        tunable: HostSysctl,
        /// The value that the container has set.
        value: u64,
    },
    /// A file of a container's network namespace is to be looked at.
    Network {
        /// The container's slot.
        slot: u64,
        /// The path below /proc/sys/net.
        path: String,
        /// The access that is wanted.
        access: Access,
    },
}

/// The access to a file of a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// To see what it is. The descriptor that answers can do nothing else.
    Look,
    /// To know the entries of a directory. The answer is [`BrokerReply::Listed`].
    List,
    /// To read it.
    Read,
    /// To write to it.
    Write,
}

/// A reply of the broker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerReply {
    /// The file is open, and its descriptor travels beside.
    Opened,
    /// The entries of the directory: names, each with true if it is a directory.
    Listed {
        /// In the kernel's order. Where they do not fit a packet there are none here, and a file that travels beside holds
        /// the same array.
        entries: Vec<(String, bool)>,
    },
    /// The host's value is as high as that, or as the daemon lets it be.
    #[serde(rename = "raised")]
    HostSysctlSet,
    /// The errno that the container gets.
    Refused {
        /// As the kernel numbers it.
        errno: i32,
    },
}

/// A resource that the kernel accounts pressure for (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// Input and output.
    Io,
    /// Interrupts (Linux 6.1).
    Irq,
}

impl Resource {
    /// Returns the name of its file in a v2 cgroup.
    pub fn file(self) -> &'static str {
        match self {
            Self::Cpu => "cpu.pressure",
            Self::Memory => "memory.pressure",
            Self::Io => "io.pressure",
            Self::Irq => "irq.pressure",
        }
    }
}

/// One entry that can be grafted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The path in the container: "/proc/meminfo".
    pub path: String,
    /// Where it is served.
    pub connection: Connection,
    /// True if it can be written to. All others are grafted read-only.
    #[serde(default)]
    pub writable: bool,
    /// True if it is a directory.
    #[serde(default)]
    pub directory: bool,
}
