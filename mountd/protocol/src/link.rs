//! The link between the daemon and the server that it started.
//!
//! The daemon speaks, and the server answers. The server is treated as hostile, so its answers are checked before use.
//! Descriptors go from the daemon to the server. Only those that a server held for the next daemon go back.
//!
//! A server that holds descriptors outlives the link. It serves on, and waits at its rendezvous for the next daemon,
//! which begins with [`ToServer::Adopt`]. A server that holds none ends with the link.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::choices::Choices;
pub use crate::choices::{CpuIds, CpuQuota};
use crate::facts::Facts;
use crate::host_sysctl::HostSysctl;

/// The version of this protocol.
pub const VERSION: u32 = 2;

/// The number of descriptors that a server holds for the next daemon. The daemon of a single command has no next one.
pub const HELD: u32 = 4;

/// The number of slots. A slot is a part of 24 bits of each node id, and 0 is no container's.
pub const SLOTS: u64 = 1 << 24;
/// The version of the broker: the requests of [`BrokerRequest`] that a daemon answers. The broker of version 0.1.0 has
/// number 0, and knows none of [`BrokerRequest::Watch`], [`BrokerRequest::WriteNetwork`] and [`BrokerRequest::Host`].
/// A request that a broker does not know ends its channel, so a server makes none.
pub const BROKER: u32 = 1;

/// The user and the group that a server is after its start, and the ones that it is in a user namespace whose map has not
/// the first: those of nobody. It has no other group, and no file.
///
/// The first number lies between the ranges that containers, users and services have: systemd gives out none from 1879048192 to
/// 2147352575, ranges of /etc/subuid end at 600100000 unless somebody has written others, and directories that compute
/// numbers for their users end at 2000200000.
pub const SERVER_USERS: [u32; 2] = [0x7ec1_f500, 65534];

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
    /// The generation of all nodes of the container, by which the kernel tells a file handle from one that was guessed.
    /// It never changes, because the kernel takes a node with another generation for another file. It is 0 for a
    /// container that was attached by version 0.1.0 or served by a server of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u32,
}

impl Secrets {
    /// Returns a new boot_id and a new generation beside the secret of the host.
    pub fn new(host_secret: [u8; 32]) -> std::io::Result<Self> {
        let mut boot_id: [u8; 16] = random()?;
        boot_id[6] = boot_id[6] & 0x0f | 0x40;
        boot_id[8] = boot_id[8] & 0x3f | 0x80;
        Ok(Self {
            boot_id,
            host_secret,
            generation: new_generation()?,
        })
    }
}

/// Returns a generation that cannot be guessed.
pub fn new_generation() -> std::io::Result<u32> {
    random().map(|bytes| u32::from_ne_bytes(bytes).max(1))
}

/// Returns the name of the directory of a container in the root of both connections. With a generation the name cannot be
/// guessed: a program that reaches a root by a file handle finds no container there.
pub fn directory_name(slot: u64, generation: u32) -> String {
    match generation {
        0 => slot.to_string(),
        _ => format!("{slot}-{generation:08x}"),
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
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
        /// The answers that the INIT requests have got, which the server must give too; empty on new connections, where
        /// the server chooses. A daemon of version 0.1.0 does not send it, and wants the answers of that version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replies: Option<Vec<Vec<u8>>>,
        /// [`BROKER`] of the daemon.
        #[serde(default, skip_serializing_if = "is_zero")]
        broker: u32,
    },
    /// The first packet of a daemon to a server whose own has died, at the rendezvous. It carries the server's end of a
    /// new channel of the broker. The answer is [`FromServer::Held`]; from then on this is the link.
    Adopt {
        /// [`VERSION`] of the daemon.
        version: u32,
        /// True if the daemon keeps the generations of containers. A server that has given any lets no other daemon
        /// have its containers.
        #[serde(default, skip_serializing_if = "is_false")]
        generations: bool,
        /// [`BROKER`] of the daemon.
        #[serde(default, skip_serializing_if = "is_zero")]
        broker: u32,
    },
    /// The daemon asks what can be grafted into a container that the server has. The answer is [`FromServer::Added`].
    Catalogue {
        /// The slot of the container.
        slot: u64,
    },
    /// The daemon asks whether the server answers.
    Ping,
    /// The daemon asks how many requests of readers have been answered on each connection. The answer is [`FromServer::Progress`]. A server
    /// that does not know this packet answers [`FromServer::Failed`].
    Progress,
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
        /// The process behind the pidfd, in the pid namespace of the daemon. A daemon of version 0.1.0 does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        process: Option<u32>,
    },
    /// A container is going to be in this slot. Until it is added, a path to each view that a container can have can be
    /// walked there, and nothing can be read. A server that does not know this packet answers [`FromServer::Failed`].
    Expect {
        /// The number of its directory.
        slot: u64,
        /// The generation that the container is going to have ([`Secrets::generation`]).
        #[serde(default, skip_serializing_if = "is_zero")]
        generation: u32,
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
        /// True if the broker answers [`BrokerRequest::UserNamespace`].
        #[serde(default, skip_serializing_if = "is_false")]
        user_namespaces: bool,
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
        /// True if the server gives generations ([`Secrets::generation`]).
        #[serde(default, skip_serializing_if = "is_false")]
        generations: bool,
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
        /// True if the server gives generations ([`Secrets::generation`]).
        #[serde(default, skip_serializing_if = "is_false")]
        generations: bool,
    },
    /// The work that is left.
    Left {
        /// Session threads that have not left, and requests that are not answered. A reader that waits in poll(2) does
        /// not count: it was answered, and is told later.
        busy: u64,
    },
    /// The requests of readers that the server has answered since it began.
    Progress {
        /// Requests that were answered on each of [`Connection::ALL`].
        answered: Vec<u64>,
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

/// A request of the server to the broker of the daemon, over a channel of its own. Requests are answered in any order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        /// The number of the question, which its reply has too ([`BrokerReply::Numbered`]); none from a server of a
        /// release before numbers. A daemon of such a release passes it over, and answers in order.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
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
        /// The number of the question, which its reply has too ([`BrokerReply::Numbered`]); none from a server of a
        /// release before numbers. A daemon of such a release passes it over, and answers in order.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
    },
    /// A thread is to be looked at. The server may not see which user namespace it is in, and namespaces inside of each
    /// other can have the same map of users. A server asks only the daemon that says that it answers
    /// ([`ToServer::HostSysctls`]).
    UserNamespace {
        /// The container's slot.
        slot: u64,
        /// The thread, in the pid namespace of the host.
        pid: u32,
        /// The number of the question, as that of the others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
    },
    /// A file of a container's network namespace is to be looked at.
    Network {
        /// The container's slot.
        slot: u64,
        /// The path below /proc/sys/net.
        path: String,
        /// The access that is wanted.
        access: Access,
        /// The number of the question, which its reply has too ([`BrokerReply::Numbered`]); none from a server of a
        /// release before numbers. A daemon of such a release passes it over, and answers in order.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
    },
    /// A file of a container's network namespace is to be written to. The kernel asks who writes, and that is to be root
    /// without capabilities. It is answered with [`BrokerReply::Written`].
    WriteNetwork {
        /// The container's slot.
        slot: u64,
        /// The path below /proc/sys/net.
        path: String,
        /// The offset in the file.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
        /// The number of the question, as that of the others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
    },
    /// Writes to limits are to be reported. The packet carries an inotify descriptor of the server, and then cgroup
    /// directories of which it has the files watched. It is answered with [`BrokerReply::Watched`].
    Watch {
        /// The files.
        files: Vec<WatchedFile>,
        /// The number of the question, as that of the others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
    },
    /// A file of the host that only root may read is to be read. It is answered with a descriptor of a copy of its text.
    Host {
        /// The absolute path.
        path: String,
        /// The number of the question, as that of the others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
    },
}

/// A file of a cgroup whose writes the server wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedFile {
    /// The directory, by its place among those that travel beside.
    pub dir: u32,
    /// The name, with "../" for each directory above.
    pub name: String,
}

/// The lanes of questions that are no container's.
const NO_CONTAINER: u64 = 1 << 63;

/// The lanes of pressure triggers, by slot.
const TRIGGERS: u64 = 1 << 62;

/// The lanes of sysctls of the host, by slot.
const HOST_SYSCTLS: u64 = 1 << 61;

impl BrokerRequest {
    /// Returns the lane of the question. One question of a lane is answered at a time. A container has
    /// one for its network namespace, and one each for pressure triggers and for sysctls of the host. A file of the host has a lane of its own, so that one which is read slowly keeps nobody
    /// waiting but its readers.
    pub fn lane(&self) -> u64 {
        match self {
            Self::UserNamespace { slot, .. }
            | Self::Network { slot, .. }
            | Self::WriteNetwork { slot, .. } => *slot,
            // One thread of the server asks for all containers, and may not wait for other questions of one of them.
            Self::Trigger { slot, .. } => TRIGGERS | *slot,
            Self::SetHostSysctl { slot, .. } => HOST_SYSCTLS | *slot,
            Self::Watch { .. } => NO_CONTAINER,
            Self::Host { path, .. } => {
                let mut hasher = DefaultHasher::new();
                path.hash(&mut hasher);
                NO_CONTAINER | hasher.finish()
            }
        }
    }

    /// Returns the number of the question, if it has one.
    pub fn number(&self) -> Option<u64> {
        let (Self::Trigger { number, .. }
        | Self::SetHostSysctl { number, .. }
        | Self::UserNamespace { number, .. }
        | Self::Network { number, .. }
        | Self::WriteNetwork { number, .. }
        | Self::Watch { number, .. }
        | Self::Host { number, .. }) = self;
        *number
    }

    /// Returns the same request with a number.
    #[must_use]
    pub fn numbered(&self, number: u64) -> Self {
        let mut this = self.clone();
        let (Self::Trigger { number: its, .. }
        | Self::SetHostSysctl { number: its, .. }
        | Self::UserNamespace { number: its, .. }
        | Self::Network { number: its, .. }
        | Self::WriteNetwork { number: its, .. }
        | Self::Watch { number: its, .. }
        | Self::Host { number: its, .. }) = &mut this;
        *its = Some(number);
        this
    }
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

/// A user namespace, as a container and its server tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespace {
    /// The host's.
    Host,
    /// The container's.
    Container,
    /// Neither of the two, or one that cannot be looked at.
    Other,
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
    /// The user namespace of the thread.
    UserNamespace {
        /// The namespace.
        namespace: UserNamespace,
    },
    /// The host's value is as high as that, or as the daemon lets it be.
    #[serde(rename = "raised")]
    HostSysctlSet,
    /// The kernel took that many bytes.
    Written {
        /// Bytes.
        count: u64,
    },
    /// The files are watched.
    Watched {
        /// The number of each watch, in the order of the files; none for a file that is not there.
        watches: Vec<Option<i32>>,
    },
    /// The errno that the container gets.
    Refused {
        /// As the kernel numbers it.
        errno: i32,
    },
    /// The reply to a question that has a number. A question without one is answered without this.
    Numbered {
        /// The number of the question.
        number: u64,
        /// The reply.
        reply: Box<BrokerReply>,
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
