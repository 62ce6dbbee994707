//! The bytes of requests as they come from /dev/fuse: with arguments that are cut, names that do not end, and sizes of all kinds.
//!
//! Each request is answered once, with its own number, and the session goes on. The kernel writes the header and
//! counts the bytes of a WRITE, so these lengths are always right.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arbitrary::Arbitrary;
use eci_fs::server::fuse::{Backend, KernelNotifier, Negotiated, Serving, prepare};
use eci_fs_protocol::link::Connection;
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::made_up;
use crate::recorded::{FIXTURES, Recorded};
use crate::served::{Served, attach, mark_of, state_file, uid_of};

/// The time that an answer is waited for. One that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(15);

/// The slots of the containers.
const SLOTS: [u64; 2] = [1, 2];

/// The most bytes that the kernel asks for in one request: 32 pages, as was negotiated.
const MOST: u32 = 32 * 4096;

/// The bytes of `struct fuse_in_header` and `struct fuse_out_header`.
const HEADER: usize = 40;
const REPLY_HEADER: usize = 16;

/// The bit of a number that says that the request is sent again (FUSE_UNIQUE_RESEND).
const AGAIN: u64 = 1 << 63;

/// The operations of include/uapi/linux/fuse.h.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const SETXATTR: u32 = 21;
const INIT: u32 = 26;
const READDIR: u32 = 28;
const DESTROY: u32 = 38;
const IOCTL: u32 = 39;
const POLL: u32 = 40;
const BATCH_FORGET: u32 = 42;
const READDIRPLUS: u32 = 44;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    live: bool,
    requests: Vec<Made<'a>>,
}

#[derive(Debug, Arbitrary)]
struct Made<'a> {
    node: Node,
    owner: Owner,
    again: bool,
    what: What<'a>,
    /// The bytes that the arguments lack at the end.
    cut: u8,
}

#[derive(Debug, Arbitrary)]
enum Node {
    /// One that an answer to a LOOKUP had.
    Known(u8),
    /// An entry of a container.
    Of(bool, u16),
    Raw(u64),
    Root,
}

#[derive(Debug, Arbitrary)]
enum Owner {
    Root,
    Container(bool),
    Raw(u32, u32),
}

#[derive(Debug, Arbitrary)]
enum What<'a> {
    /// The name of a container's directory, or one of those on the way.
    Walk(u8),
    Lookup(&'a [u8]),
    GetAttr(u32, u64),
    Open(u32),
    Read(u64, u64, u32),
    Write(u64, u64, &'a [u8]),
    ReadDir(u64, u32, bool),
    Poll(u64, u64, u32),
    Release(u64),
    Forget(u32, &'a [u8]),
    Raw(u32, &'a [u8]),
}

thread_local! {
    static SERVED: RefCell<Option<(Recorded, Served)>> = const { RefCell::new(None) };
}

/// Takes the bytes for the requests of a connection.
pub fn run(bytes: &[u8]) {
    let Some(input) = made_up::decode::<Input<'_>>(bytes) else {
        return;
    };
    SERVED.with_borrow_mut(|served| {
        let (_, served) = served.get_or_insert_with(|| {
            let recorded = Recorded::unpack(FIXTURES[0]);
            let freshness = Duration::from_millis(10);
            let served = Served::new(&recorded, freshness, state_file()).unwrap();
            for slot in SLOTS {
                attach(&served.fs, &recorded, slot);
            }
            assert!(served.fs.begin().unwrap());
            (recorded, served)
        });
        let mut kernel = Kernel::new(served, input.live);
        for made in &input.requests {
            kernel.ask(made);
        }
        kernel.end();
    });
}

/// The kernel's end of a connection.
struct Kernel {
    socket: OwnedFd,
    serving: Serving,
    ended: mpsc::Receiver<()>,
    known: Vec<u64>,
    number: u64,
}

impl Kernel {
    fn new(served: &Served, live: bool) -> Self {
        let backend = Backend {
            dispatcher: Arc::clone(&served.dispatcher),
            notifier: Arc::new(KernelNotifier::default()),
            threads: 1,
        };
        let connection = match live {
            true => Connection::Live,
            false => Connection::Cached,
        };
        let (socket, servers) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).unwrap();
        let (prepared, _) =
            prepare(&backend, connection, &servers, &init(), Negotiated::Nothing).unwrap();
        let (sender, ended) = mpsc::channel();
        let serving = prepared.serve(move || sender.send(()).unwrap_or_default());
        Self {
            socket,
            serving: serving.unwrap(),
            ended,
            known: SLOTS.map(|slot| slot << 40 | 1 << 16).to_vec(),
            number: 0,
        }
    }

    /// Sends a request, and waits for its answer.
    fn ask(&mut self, made: &Made<'_>) {
        let node = match made.node {
            Node::Known(index) => self.known[usize::from(index) % self.known.len()],
            Node::Of(first, entry) => slot(first) << 40 | u64::from(entry),
            Node::Raw(raw) => raw,
            Node::Root => 1,
        };
        let (operation, mut arguments) = arguments(&made.what);
        arguments.truncate(arguments.len().saturating_sub(usize::from(made.cut)));
        // The kernel sends the first two once in the life of a connection. It counts the bytes of the last two, which
        // nobody takes, and the library trusts that.
        if matches!(operation, DESTROY | INIT | SETXATTR | IOCTL) {
            return;
        }
        if matches!(operation, READ | READDIR | READDIRPLUS) && arguments.len() >= 20 {
            let size = u32::from_ne_bytes(arguments[16..20].try_into().unwrap()).min(MOST);
            arguments[16..20].copy_from_slice(&size.to_ne_bytes());
        }
        if operation == WRITE && arguments.len() >= 40 {
            let size = u32::try_from(arguments.len() - 40).unwrap();
            arguments[16..20].copy_from_slice(&size.to_ne_bytes());
        }
        self.number += 2;
        let number = self.number | if made.again { AGAIN } else { 0 };
        // These have no answer, or one that the kernel ignores if their arguments are wrong.
        let is_forget = matches!(operation, FORGET | BATCH_FORGET);
        let number = number | u64::from(is_forget);
        let request = request(operation, number, node, &made.owner, &arguments);
        rustix::net::send(&self.socket, &request, SendFlags::NOSIGNAL).unwrap();
        if is_forget {
            return;
        }
        let mut reply = vec![0; 2 * MOST as usize];
        let mut length = self.receive(made, &mut reply);
        while length >= REPLY_HEADER && reply[8] & 1 == 1 {
            length = self.receive(made, &mut reply);
        }
        assert!(length >= REPLY_HEADER, "{made:?} ends the session");
        let reply = &reply[..length];
        let word = |at: usize| u32::from_ne_bytes(reply[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(reply[at..at + 8].try_into().unwrap());
        assert_eq!(word(0) as usize, length);
        assert_eq!(long(8), number, "{made:?}");
        let error = word(4) as i32;
        assert!((-4095..=0).contains(&error), "{made:?}: {error}");
        assert!(error == 0 || length == REPLY_HEADER);
        let asked = node >> 40;
        for other in SLOTS.into_iter().filter(|other| *other != asked) {
            for mark in [mark_of(other), format!("of-{other}")] {
                let mark = mark.as_bytes();
                let found = reply.windows(mark.len()).any(|part| part == mark);
                assert!(!found, "{asked} has what {other} has: {made:?}");
            }
        }
        if operation == LOOKUP && error == 0 && self.known.len() < 256 {
            self.known.push(long(REPLY_HEADER));
        }
    }

    /// Waits for a packet of the server, and returns its length.
    fn receive(&self, made: &Made<'_>, reply: &mut [u8]) -> usize {
        // The alarm of libFuzzer interrupts.
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, &mut *reply, RecvFlags::empty())
        });
        match received {
            Ok((length, _)) => length,
            Err(error) => panic!("{made:?} has no answer: {error}"),
        }
    }

    /// Closes the connection, and waits until the session has ended.
    fn end(self) {
        assert!(self.serving.is_busy());
        drop(self.socket);
        self.ended.recv_timeout(PATIENCE).unwrap();
    }
}

fn slot(first: bool) -> u64 {
    SLOTS[usize::from(!first)]
}

/// Returns the number of an operation, and its arguments.
fn arguments(what: &What<'_>) -> (u32, Vec<u8>) {
    let longs =
        |longs: &[u64]| -> Vec<u8> { longs.iter().flat_map(|long| long.to_ne_bytes()).collect() };
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let ended = |name: &[u8]| [name, &[0]].concat();
    match *what {
        What::Walk(index) => {
            let names = [
                "1-00000001",
                "2-00000002",
                "proc",
                "sys",
                "meminfo",
                "vmstat",
                "pressure",
                "cpu",
                "swappiness",
                "vm",
                "net",
                "core",
                "somaxconn",
                "devices",
                "system",
                "node",
            ];
            (
                LOOKUP,
                ended(names[usize::from(index) % names.len()].as_bytes()),
            )
        }
        What::Lookup(name) => (LOOKUP, ended(name)),
        What::GetAttr(flags, handle) => (GETATTR, longs(&[flags.into(), handle])),
        What::Open(flags) => (OPEN, longs(&[flags.into()])),
        What::Read(handle, offset, size) => (READ, longs(&[handle, offset, size.into(), 0, 0])),
        What::Write(handle, offset, bytes) => {
            let fixed = longs(&[handle, offset, 0, 0, 0]);
            (WRITE, [fixed.as_slice(), bytes].concat())
        }
        What::ReadDir(offset, size, plus) => {
            let operation = if plus { READDIRPLUS } else { READDIR };
            (operation, longs(&[0, offset, size.into(), 0, 0]))
        }
        What::Poll(handle, wake, flags) => (POLL, longs(&[handle, wake, pair(flags, 0)])),
        What::Release(handle) => (RELEASE, longs(&[handle, 0, 0])),
        What::Forget(count, bytes) => (
            BATCH_FORGET,
            [longs(&[count.into()]).as_slice(), bytes].concat(),
        ),
        What::Raw(operation, bytes) => (operation % 64, bytes.to_vec()),
    }
}

/// Returns a request with a header that the kernel could write.
fn request(operation: u32, number: u64, node: u64, owner: &Owner, arguments: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + arguments.len()).unwrap();
    let (uid, gid) = match *owner {
        Owner::Root => (0, 0),
        Owner::Container(first) => (uid_of(slot(first)), uid_of(slot(first)) + 1),
        Owner::Raw(uid, gid) => (uid, gid),
    };
    let mut request = Vec::with_capacity(length as usize);
    request.extend(length.to_ne_bytes());
    request.extend(operation.to_ne_bytes());
    request.extend(number.to_ne_bytes());
    request.extend(node.to_ne_bytes());
    for word in [uid, gid, std::process::id(), 0] {
        request.extend(word.to_ne_bytes());
    }
    request.extend(arguments);
    request
}

/// Returns an INIT request of a kernel that offers everything (`struct fuse_init_in`).
fn init() -> Vec<u8> {
    let mut arguments = vec![0; 64];
    for (at, word) in [7u32, 45, 1 << 17, u32::MAX, u32::MAX]
        .into_iter()
        .enumerate()
    {
        arguments[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    request(INIT, 2, 0, &Owner::Root, &arguments)
}
