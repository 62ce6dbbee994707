//! The file system of the server as it is served, without a kernel at the other end: a daemon that answers its broker's
//! questions, containers, and replies that are waited for.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use eci_fs::server::broker::BrokerClient;
use eci_fs::server::container::{Attached, Watcher};
use eci_fs::server::error::Errno;
use eci_fs::server::fs::{
    Attr, Backlog, Dispatcher, Entry, FileSystem, FsRequest, KernelCache, Listing, Opened, Replies,
    Reply, Services,
};
use eci_fs::server::host_sysctls::HostSysctls;
use eci_fs::server::ids::NodeId;
use eci_fs::server::in_flight::InFlight;
use eci_fs::server::progress::Progress;
use eci_fs::server::psi::{Polled, TriggerSet, Triggers};
use eci_fs::server::state::State;
use eci_fs::server::workers::Workers;
use eci_fs_emulators::Settings;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::facts::{Facts, HierarchyFacts, NetworkFacts};
use eci_fs_protocol::link::{
    Access, BROKER, BrokerReply, BrokerRequest, Connection, Secrets, UserNamespace,
};
use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, OFlags, memfd_create};

use crate::recorded::Recorded;

/// The time that a reply is waited for. One that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(15);

/// The root of the container in a slot, on the host.
pub fn uid_of(slot: u64) -> u32 {
    100_000 + 1000 * u32::try_from(slot % 1000).unwrap_or(0)
}

/// The text of each file of a container's network namespace. No other container may read it.
pub fn mark_of(slot: u64) -> String {
    format!("namespace of {slot}\n")
}

/// What lives as long as the process: the threads of the server, and a daemon.
struct Process {
    broker: Arc<BrokerClient>,
    triggers: Arc<Triggers>,
    workers: Arc<Workers>,
}

static PROCESS: LazyLock<Process> = LazyLock::new(|| {
    let (daemon, server) = Channel::pair().unwrap();
    std::thread::spawn(move || {
        while let Ok(Some((request, _))) = daemon.recv::<BrokerRequest>() {
            answer(&daemon, &request);
        }
    });
    let broker = Arc::new(BrokerClient::new(Channel::new(server.into_inner()), BROKER));
    let state = Arc::new(State::open(state_file()).unwrap());
    let triggers = {
        let set = TriggerSet::new().unwrap();
        Triggers::start(set, Arc::clone(&broker), Box::new(drop), state, 1024).unwrap()
    };
    Process {
        broker,
        triggers,
        workers: Workers::start(Box::new(|| false)).unwrap(),
    }
});

/// Returns a new file for a state.
pub fn state_file() -> OwnedFd {
    eci_fs_mountd::state_file::create().unwrap()
}

/// Answers as a daemon. A container's network namespace has a file or a directory at each path, with its mark.
fn answer(daemon: &Channel, request: &BrokerRequest) {
    let refused = |errno| (BrokerReply::Refused { errno }, None);
    let (reply, file) = match request {
        BrokerRequest::Trigger { trigger, .. } if trigger.len() % 3 == 0 => refused(libc::EINVAL),
        BrokerRequest::Trigger { .. } => {
            let file = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
            (BrokerReply::Opened, Some(file))
        }
        BrokerRequest::SetHostSysctl { .. } => (BrokerReply::HostSysctlSet, None),
        BrokerRequest::UserNamespace { .. } => {
            let namespace = UserNamespace::Container;
            (BrokerReply::UserNamespace { namespace }, None)
        }
        BrokerRequest::WriteNetwork { bytes, .. } => {
            let count = bytes.len() as u64;
            (BrokerReply::Written { count }, None)
        }
        BrokerRequest::Watch { files, .. } => {
            let watches = vec![None; files.len()];
            (BrokerReply::Watched { watches }, None)
        }
        BrokerRequest::Host { path, .. } => (BrokerReply::Opened, Some(file(path))),
        BrokerRequest::Network {
            access: Access::List,
            slot,
            path,
            ..
        } => match path.matches('/').count() {
            0..4 => {
                let entries = [("all", true), ("somaxconn", false), ("gc_thresh3", false)];
                let mut entries = entries.map(|(name, is)| (name.to_owned(), is)).to_vec();
                entries.push((format!("of-{slot}"), true));
                (BrokerReply::Listed { entries }, None)
            }
            _ => refused(libc::ENOTDIR),
        },
        BrokerRequest::Network { slot, path, .. } => {
            let name = path.rsplit('/').next().unwrap_or_default();
            let is_directory =
                matches!(name, "neigh" | "core" | "vs" | "ipv4" | "all") || name.starts_with("of-");
            match name.len() % 7 {
                0 => refused(libc::ENOENT),
                _ if is_directory => (BrokerReply::Opened, Some(directory())),
                _ => (BrokerReply::Opened, Some(file(&mark_of(*slot)))),
            }
        }
    };
    let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
    let _ = daemon.send(&reply, &files);
}

fn directory() -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/proc", flags, rustix::fs::Mode::empty()).unwrap()
}

fn file(text: &str) -> OwnedFd {
    let mut file = File::from(memfd_create("made-up", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

/// A kernel that caches nothing.
#[derive(Debug)]
struct NoCache;

impl KernelCache for NoCache {
    fn distrust(&self, _: Connection, _: NodeId) {}
}

/// A file system that is served.
#[derive(Debug)]
pub struct Served {
    /// The file system.
    pub fs: Arc<FileSystem>,
    /// Takes the requests.
    pub dispatcher: Arc<Dispatcher>,
    replied: Arc<Replied>,
    asked: u64,
}

/// Connections on which nobody waits.
#[derive(Debug)]
struct NoBacklog;

impl Backlog for NoBacklog {
    fn is_waiting(&self, _connection: Connection) -> bool {
        false
    }
}

impl Served {
    /// Serves views of a host, with what the server before left in the file `state`.
    pub fn new(recorded: &Recorded, freshness: Duration, state: OwnedFd) -> Option<Self> {
        let Process {
            broker,
            triggers,
            workers,
        } = &*PROCESS;
        let in_flight = InFlight::default();
        let services = Services {
            broker: Arc::clone(broker),
            triggers: Arc::clone(triggers),
            host_sysctls: HostSysctls::new(Arc::clone(broker)),
            watcher: Watcher::new().unwrap(),
            state: Arc::new(State::open(state).ok()?),
            kernel: Arc::new(NoCache),
            in_flight: in_flight.clone(),
        };
        let host = recorded.host();
        let fs = FileSystem::new(host, Some(services), Settings::default(), freshness);
        let dispatcher = Dispatcher::new(
            Arc::clone(&fs),
            Arc::clone(workers),
            Arc::new(NoBacklog),
            in_flight,
            Progress::default(),
        );
        Some(Self {
            fs,
            dispatcher: Arc::new(dispatcher),
            replied: Arc::default(),
            asked: 0,
        })
    }

    /// Returns the way back of the next answer, and its number.
    pub fn way(&mut self) -> (u64, Way) {
        self.asked += 1;
        let way = Way {
            number: self.asked,
            replied: Arc::clone(&self.replied),
            sent: false,
        };
        (self.asked, way)
    }

    /// Hands over a request.
    pub fn ask(&self, request: FsRequest<'_, Ways>) {
        self.dispatcher.submit(request);
    }

    /// Waits until all that was asked is answered, and returns the answers with their numbers.
    ///
    /// # Panics
    /// When an answer is lost, or one comes twice.
    pub fn answers(&mut self) -> Vec<(u64, Answer)> {
        let mut replied = self.replied.answers.lock();
        let wanted = |answers: &Vec<(u64, Answer)>| answers.len() as u64;
        while wanted(&replied.0) < self.asked - replied.1 {
            let late = self
                .replied
                .came
                .wait_for(&mut replied, PATIENCE)
                .timed_out();
            assert!(!late, "a reply is lost");
        }
        replied.1 = self.asked;
        let mut answers = std::mem::take(&mut replied.0);
        answers.sort_by_key(|(number, _)| *number);
        let twice = answers.windows(2).any(|pair| pair[0].0 == pair[1].0);
        assert!(!twice, "a request was answered twice");
        answers
    }
}

/// The answers that have come, and the number of those that were taken before.
#[derive(Debug, Default)]
struct Replied {
    answers: Mutex<(Vec<(u64, Answer)>, u64)>,
    came: Condvar,
}

/// An answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// Of a lookup, a GETATTR or a SETATTR.
    Attr(Attr),
    /// Of an open.
    Opened(Opened),
    /// Of a read.
    Data(Vec<u8>),
    /// Of a write: the number of bytes.
    Written(usize),
    /// Of a listing.
    Entries(Listing),
    /// Of a poll.
    Polled(Polled),
    /// Of a release.
    Done,
    /// An error.
    Failed(Errno),
    /// The way back was dropped, which to the kernel is EIO.
    Dropped,
}

/// The way back of an answer.
#[derive(Debug)]
pub struct Way {
    number: u64,
    replied: Arc<Replied>,
    sent: bool,
}

impl Way {
    fn put(&mut self, answer: Answer) {
        self.sent = true;
        self.replied.answers.lock().0.push((self.number, answer));
        self.replied.came.notify_all();
    }

    fn answer<T>(mut self, answer: Result<T, Errno>, known: impl FnOnce(T) -> Answer) {
        self.put(answer.map_or_else(Answer::Failed, known));
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if !self.sent {
            self.put(Answer::Dropped);
        }
    }
}

impl Reply<(Attr, Duration)> for Way {
    fn send(self, answer: Result<(Attr, Duration), Errno>) {
        self.answer(answer, |(attr, _)| Answer::Attr(attr));
    }
}

impl Reply<Entry> for Way {
    fn send(self, answer: Result<Entry, Errno>) {
        self.answer(answer, |entry| Answer::Attr(entry.attr));
    }
}

impl Reply<Opened> for Way {
    fn send(self, answer: Result<Opened, Errno>) {
        self.answer(answer, Answer::Opened);
    }
}

impl Reply<&[u8]> for Way {
    fn send(self, answer: Result<&[u8], Errno>) {
        self.answer(answer, |bytes| Answer::Data(bytes.to_vec()));
    }
}

impl Reply<usize> for Way {
    fn send(self, answer: Result<usize, Errno>) {
        self.answer(answer, Answer::Written);
    }
}

impl Reply<Listing> for Way {
    fn send(self, answer: Result<Listing, Errno>) {
        self.answer(answer, Answer::Entries);
    }
}

impl Reply<Polled> for Way {
    fn send(self, answer: Result<Polled, Errno>) {
        self.answer(answer, Answer::Polled);
    }
}

impl Reply<()> for Way {
    fn send(self, answer: Result<(), Errno>) {
        self.answer(answer, |()| Answer::Done);
    }
}

/// All ways back are the same.
#[derive(Debug)]
pub struct Ways;

impl Replies for Ways {
    type Entry = Way;
    type Attr = Way;
    type Open = Way;
    type Data = Way;
    type Entries = Way;
    type Written = Way;
    type Poll = Way;
    type Released = Way;
}

/// Returns the facts about a container in a slot, whose cgroups are the recorded ones, and the directories of these.
pub fn facts(recorded: &Recorded, slot: u64) -> (Facts, Vec<OwnedFd>) {
    let hierarchies = recorded.hierarchies().map(|(known, dir)| {
        let hierarchy = HierarchyFacts {
            version: known.version,
            controllers: known.controllers.clone(),
            depth: known.depth,
        };
        (hierarchy, dir)
    });
    let (hierarchies, dirs) = hierarchies.unzip();
    let facts = Facts {
        id: format!("made-up-{slot}"),
        start_nsec: slot,
        boottime_offset_nsec: None,
        pid_level: 1,
        pid_max_is_own: true,
        network: Some(NetworkFacts {
            settable: vec!["/proc/sys/net/core/somaxconn".to_owned()],
            groups: vec![(0, 100_000, 65_536)],
        }),
        disks: Vec::new(),
        uid: uid_of(slot),
        gid: uid_of(slot) + 1,
        hierarchies,
        can_measure_cpus: false,
    };
    (facts, dirs)
}

/// Attaches a container to a file system.
pub fn attach(fs: &FileSystem, recorded: &Recorded, slot: u64) -> Vec<String> {
    let (facts, dirs) = facts(recorded, slot);
    let secrets = Secrets {
        boot_id: [slot as u8; 16],
        host_secret: [7; 32],
        generation: slot as u32,
    };
    let mut attached = Attached::new(&facts, &secrets, dirs).unwrap();
    attached.choose(&Choices::default(), fs.settings());
    let rows = fs.add(slot, attached).into_iter();
    rows.map(|row| row.path).collect()
}
