//! The link between the daemon and the server that it started.
//!
//! The daemon speaks, the server answers; the server is treated as hostile, so what it answers is
//! checked before use. Descriptors go from the daemon to the server, but for those that a server kept for the next
//! daemon and hands back to it.
//!
//! A server that was given descriptors to keep outlives the link: it serves on, and waits at its rendezvous for the
//! next daemon, which begins with [`ToServer::Adopt`]. One that was given none ends with the link.

use serde::{Deserialize, Serialize};

use super::choices::Choices;
use super::host_sysctl::HostSysctl;
use crate::facts::Facts;

/// The version of this protocol.
pub const VERSION: u32 = 2;

/// Descriptors that a server keeps for the next daemon; the daemon of a single command has no next one.
pub const HELD: u32 = 4;

/// One of the two FUSE connections.
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

    /// "cached" or "live".
    pub fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Live => "live",
        }
    }
}

/// What an administrator can set about the views.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// How old a view may be, in milliseconds; 0 puts every view on the live connection.
    pub freshness_ms: u64,
    /// Whether views whose numbers vary in width are padded to a constant size; without, they are live.
    pub padding: bool,
    /// Whether MemAvailable is never more than what the machine has left.
    pub host_clamp: bool,
    /// Whether CPUs keep their physical ids or are renumbered from 0.
    pub cpu_ids: CpuIds,
}

/// How CPUs are numbered in every view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuIds {
    /// As `sched_getaffinity` numbers them.
    Physical,
    /// 0 to n-1.
    Dense,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            freshness_ms: 10,
            padding: true,
            host_clamp: true,
            cpu_ids: CpuIds::Physical,
        }
    }
}

/// What makes one container's identity, and keeps it from being guessed.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// The container's own boot_id: a random UUID (RFC 9562, version 4).
    pub boot_id: [u8; 16],
    /// A secret of the machine, made once a boot.
    pub machine_secret: [u8; 32],
}

impl Secrets {
    /// A new boot_id beside the secret of the machine.
    pub fn new(machine_secret: [u8; 32]) -> std::io::Result<Self> {
        let mut boot_id: [u8; 16] = random()?;
        boot_id[6] = boot_id[6] & 0x0f | 0x40;
        boot_id[8] = boot_id[8] & 0x3f | 0x80;
        Ok(Self {
            boot_id,
            machine_secret,
        })
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // They are not for logs.
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// What the daemon says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToServer {
    /// The first packet. Carries the `/dev/fuse` descriptors of [`Connection::ALL`] to serve by, the server's end of the
    /// channel over which it asks, the memfd of its state, and then those to keep for the next daemon. A state that it
    /// cannot read is [`FromServer::Failed`]; it is read at [`ToServer::Serve`], because until then another server
    /// may write to it.
    Start {
        /// [`VERSION`] of the daemon.
        version: u32,
        /// The INIT request of each connection, as the kernel sent it once.
        init: Vec<Vec<u8>>,
        /// The settings of the host.
        settings: Settings,
        /// How many descriptors are to be kept: none, or [`HELD`]. Those are the `/dev/fuse` descriptors of
        /// [`Connection::ALL`] as they were opened, the mount namespace of the source mounts, and the listening
        /// socket of the rendezvous.
        held: u32,
    },
    /// The first packet of a daemon to a server whose own has died, at the rendezvous. Carries the server's end of
    /// a new channel over which it asks. Answered with [`FromServer::Held`]; from then on this is the link.
    Adopt {
        /// [`VERSION`] of the daemon.
        version: u32,
    },
    /// What can be grafted into a container that the server has? Answered with [`FromServer::Added`].
    Catalogue {
        /// Its slot.
        slot: u64,
    },
    /// Are you there?
    Ping,
    /// Take no more requests: another server is about to. Each session thread leaves after the request that it is
    /// blocked for, so the daemon makes requests until all have left. What has been taken is still answered.
    Drain,
    /// After [`ToServer::Drain`]: what is left? Answered with [`FromServer::Left`]. After an answer of none the server
    /// writes to its state no more.
    Drained,
    /// A new container. Carries a directory descriptor for each of `facts.hierarchies`, and the container's pidfd.
    Add {
        /// The number of its directory.
        slot: u64,
        /// What it is known by.
        secrets: Secrets,
        /// What is known of it.
        facts: Box<Facts>,
        /// What is set for it alone.
        #[serde(default)]
        choices: Choices,
    },
    /// A container is going to be in this slot. Until it is added, all that could be grafted into one can be walked to
    /// there, and nothing read. A server of before this could be said answers [`FromServer::Failed`].
    Expect {
        /// The number of its directory.
        slot: u64,
    },
    /// A container is gone.
    Remove {
        /// Its slot.
        slot: u64,
    },
    /// Begin to answer requests. Until then they wait in the kernel, so that a server that takes over knows all its
    /// containers before it is asked about one. After [`ToServer::Drain`], begin again: the other server could not
    /// begin, or has ended.
    Serve {
        /// Whether to write FUSE_NOTIFY_RESEND to both connections: the server before this one is dead.
        resend: bool,
    },
    /// From now on tell what containers set these tunables to, and have set them to already ([`BrokerRequest::SetHostSysctl`]). A server
    /// of before this could be said answers [`FromServer::Failed`], and one that was not told tells nothing.
    #[serde(rename = "raise")]
    HostSysctls {
        /// All that may be raised on the host.
        tunables: Vec<HostSysctl>,
    },
}

/// What the server answers, one packet to each of [`ToServer`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromServer {
    /// It can serve both connections.
    Started {
        /// Its answers to the INIT requests, in the same order.
        replies: Vec<Vec<u8>>,
    },
    /// What can be grafted into the container.
    Added {
        /// One row for each view that exists for it.
        catalogue: Vec<Row>,
    },
    /// Done.
    Done,
    /// What it kept for the next daemon. Carries the `/dev/fuse` descriptors of [`Connection::ALL`] as they were opened,
    /// the mount namespace of the source mounts, the memfd of its state, and the socket of the rendezvous.
    Held {
        /// [`VERSION`] of the server.
        version: u32,
        /// The INIT request of each connection.
        init: Vec<Vec<u8>>,
        /// Its answers to them.
        replies: Vec<Vec<u8>>,
        /// The settings that it serves with.
        settings: Settings,
        /// The containers that it serves.
        slots: Vec<u64>,
    },
    /// What is left of its work.
    Left {
        /// Session threads that have not left, and requests that are not answered. A reader that waits in poll(2)
        /// is none: it was answered, and is told later.
        busy: u64,
    },
    /// It could not; the words are for the log and for the person who asked.
    Failed {
        /// Why.
        why: String,
        /// The errno of what failed, as the kernel numbers it; none where it is no system call's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errno: Option<i32>,
    },
}

/// What the server asks of the daemon, over a channel of its own.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerRequest {
    /// Set a pressure trigger on the cgroup of a container. Answered with the descriptor to poll.
    Trigger {
        /// The container's slot.
        slot: u64,
        /// Of which resource.
        resource: Resource,
        /// What the container wrote.
        trigger: Vec<u8>,
    },
    /// A container has set a tunable that may be raised on the machine ([`ToServer::HostSysctls`]).
    #[serde(rename = "raise")]
    SetHostSysctl {
        /// The container's slot.
        slot: u64,
        /// Which.
        tunable: HostSysctl,
        /// To which value.
        value: u64,
    },
    /// Look at what the kernel has for a container's network namespace.
    Network {
        /// The container's slot.
        slot: u64,
        /// Where, below /proc/sys/net.
        path: String,
        /// What for.
        access: Access,
    },
}

/// What something of a network namespace is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// To see what it is. Answered with a descriptor that can do nothing else.
    Look,
    /// To know what lies in a directory. Answered with [`BrokerReply::Listed`].
    List,
    /// To read it.
    Read,
    /// To write to it.
    Write,
}

/// What the daemon answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerReply {
    /// The descriptor travels beside.
    Opened,
    /// What lies in the directory: names, and whether each is a directory.
    Listed {
        /// In the kernel's order.
        entries: Vec<(String, bool)>,
    },
    /// The machine's value is as high as that, or as the daemon lets it be.
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
    /// The resource of a view below /proc/pressure.
    pub fn of_view(path: &str) -> Option<Self> {
        match path {
            "/proc/pressure/cpu" => Some(Self::Cpu),
            "/proc/pressure/memory" => Some(Self::Memory),
            "/proc/pressure/io" => Some(Self::Io),
            "/proc/pressure/irq" => Some(Self::Irq),
            _ => None,
        }
    }

    /// Its file in a v2 cgroup.
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
    /// Whether it can be written to; all others are grafted read-only.
    #[serde(default)]
    pub writable: bool,
    /// Whether it is a directory.
    #[serde(default)]
    pub directory: bool,
}
