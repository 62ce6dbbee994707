//! Requests of the kernel for several containers, which come, go, and are taken over by the next server.
//!
//! Each request is answered once, and no answer has anything of another container's.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use arbitrary::Arbitrary;
use eci_fs::server::fs::{Caller, FsRequest, Operation};
use eci_fs::server::ids::{Handle, NodeId, Request};
use eci_fs_emulators::TUNABLES;
use eci_fs_protocol::link::Connection;

use crate::made_up;
use crate::recorded::{FIXTURES, Recorded};
use crate::served::{Answer, Served, Way, Ways, attach, mark_of, state_file, uid_of};

/// The most containers that one input attaches.
const CONTAINERS: u64 = 5;

/// The most nodes, names and open files that are remembered.
const KNOWN: usize = 512;

/// The most bytes that the kernel asks for in one READ.
const MOST: u32 = 1 << 20;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    fixture: u8,
    is_fresh: bool,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    /// A request; without `wait` the next one does not wait for its answer.
    Ask {
        live: bool,
        node: Node,
        what: What<'a>,
        wait: bool,
    },
    /// Looks up a path that the catalogue of a container has, one name after the other.
    Walk {
        container: u8,
        row: u8,
    },
    Attach,
    Detach(u8),
    Prepare(u8),
    Distrust(u8),
    /// The next server takes over.
    TakeOver,
}

#[derive(Debug, Arbitrary)]
enum Node {
    /// One that an answer had.
    Known(u16),
    Raw(u64),
    /// The entry of a container that is attached.
    Of(u8, u64),
    Root,
}

#[derive(Debug, Arbitrary)]
enum Name<'a> {
    /// One that a listing or a catalogue had.
    Known(u16),
    Raw(&'a [u8]),
    Slot(u8),
}

#[derive(Debug, Arbitrary)]
enum Fh {
    Known(u16),
    Raw(u64),
    None,
    Paged,
}

#[derive(Debug, Arbitrary)]
enum Who {
    Root,
    Container(u8),
    Raw(u32, u32, u32),
}

#[derive(Debug, Arbitrary)]
enum What<'a> {
    Lookup(Name<'a>),
    Attr(Option<Fh>),
    SetAttr(Option<Fh>, bool),
    ReadLink,
    Open(Who, i32, Option<u64>),
    Read(Fh, i32, u64, u32),
    Write(Fh, Who, i32, u64, &'a [u8], Option<u64>),
    Poll(Fh, Option<u64>),
    Release(Fh),
    Entries,
}

thread_local! {
    static RECORDED: RefCell<[Option<(Recorded, Texts)>; 2]> = const { RefCell::new([const { None }; 2]) };
}

/// The texts of tunables that nobody has written, by path.
type Texts = BTreeMap<&'static str, Vec<u8>>;

/// Takes the bytes for requests, and what happens between them.
pub fn run(bytes: &[u8]) {
    let Some(input) = made_up::decode::<Input<'_>>(bytes) else {
        return;
    };
    RECORDED.with_borrow_mut(|all| {
        let index = usize::from(input.fixture % 2);
        let (recorded, first) = all[index].get_or_insert_with(|| first(FIXTURES[index]));
        let freshness = Duration::from_millis(if input.is_fresh { 0 } else { 10 });
        let mut case = Case::new(recorded, freshness);
        for step in &input.steps {
            case.take(step);
        }
        case.end(first);
    });
}

/// Returns a fixture, and the texts of tunables with which a container begins.
fn first(fixture: &str) -> (Recorded, Texts) {
    let recorded = Recorded::unpack(fixture);
    let served = Served::new(&recorded, Duration::ZERO, state_file()).unwrap();
    attach(&served.fs, &recorded, 1);
    let texts = texts(&served, 1);
    assert!(texts.len() > 20, "{} tunables", texts.len());
    (recorded, texts)
}

/// Returns the texts of a container's tunables.
fn texts(served: &Served, slot: u64) -> Texts {
    let paths = TUNABLES.iter().copied().flatten().map(|row| row.path());
    let text = |path| Some((path, served.fs.text(slot, path).ok()?));
    paths.filter_map(text).collect()
}

/// A container that is attached.
struct Attached {
    slot: u64,
    /// The paths of its catalogue.
    paths: Vec<String>,
    /// True after it has written to a tunable.
    has_written: bool,
}

/// One run of an input.
struct Case<'a> {
    recorded: &'a Recorded,
    freshness: Duration,
    state: OwnedFd,
    served: Served,
    attached: Vec<Attached>,
    last: u64,
    prepared: BTreeSet<u64>,
    nodes: Vec<NodeId>,
    names: Vec<String>,
    open: Vec<Handle>,
    /// The nodes of the requests that are not answered yet, by the numbers of their answers.
    asked: BTreeMap<u64, (NodeId, bool)>,
}

impl<'a> Case<'a> {
    fn new(recorded: &'a Recorded, freshness: Duration) -> Self {
        let state = state_file();
        let served = Served::new(recorded, freshness, state.try_clone().unwrap()).unwrap();
        assert!(served.fs.begin().unwrap());
        let mut this = Self {
            recorded,
            freshness,
            state,
            served,
            attached: Vec::new(),
            last: 0,
            prepared: BTreeSet::new(),
            nodes: vec![NodeId::ROOT],
            names: Vec::new(),
            open: Vec::new(),
            asked: BTreeMap::new(),
        };
        this.attach();
        this.attach();
        this
    }

    fn take(&mut self, step: &Step<'_>) {
        if !matches!(step, Step::Ask { .. }) {
            self.check_answers();
        }
        match step {
            Step::Ask {
                live,
                node,
                what,
                wait,
            } => {
                self.ask(*live, node, what);
                if *wait {
                    self.check_answers();
                }
            }
            Step::Walk { container, row } => self.walk(*container, *row),
            Step::Attach => self.attach(),
            Step::Detach(index) => {
                if !self.attached.is_empty() {
                    let index = usize::from(*index) % self.attached.len();
                    self.served.fs.remove(self.attached.swap_remove(index).slot);
                }
            }
            Step::Prepare(ahead) => {
                let slot = self.last + 1 + u64::from(ahead % 2);
                self.served.fs.prepare(slot, slot as u32);
                self.prepared.insert(slot);
            }
            Step::Distrust(index) => {
                if let Some(slot) = self.slot(*index) {
                    self.served.fs.distrust(slot);
                }
            }
            Step::TakeOver => self.take_over(),
        }
    }

    fn attach(&mut self) {
        if self.last < CONTAINERS {
            self.last += 1;
            let slot = self.last;
            let paths = attach(&self.served.fs, self.recorded, slot);
            self.prepared.remove(&slot);
            self.attached.push(Attached {
                slot,
                paths,
                has_written: false,
            });
        }
    }

    /// Has another server go on with the state. The tunables of all containers stay as they are.
    fn take_over(&mut self) {
        let before: Vec<Texts> = self.all_texts();
        self.served.fs.end();
        let state = self.state.try_clone().unwrap();
        self.served = Served::new(self.recorded, self.freshness, state).unwrap();
        self.prepared.clear();
        for attached in &self.attached {
            attach(&self.served.fs, self.recorded, attached.slot);
        }
        assert!(self.served.fs.begin().unwrap());
        assert_eq!(self.all_texts(), before);
    }

    fn all_texts(&self) -> Vec<Texts> {
        let attached = self.attached.iter();
        attached
            .map(|attached| texts(&self.served, attached.slot))
            .collect()
    }

    fn slot(&self, index: u8) -> Option<u64> {
        let count = self.attached.len();
        (count > 0).then(|| self.attached[usize::from(index) % count].slot)
    }

    fn walk(&mut self, container: u8, row: u8) {
        let Some(slot) = self.slot(container) else {
            return;
        };
        let attached = self.attached.iter().find(|attached| attached.slot == slot);
        let Some(attached) = attached.filter(|attached| !attached.paths.is_empty()) else {
            return;
        };
        let path = attached.paths[usize::from(row) % attached.paths.len()].clone();
        for connection in Connection::ALL {
            let mut at = NodeId::ROOT;
            for name in format!("{slot}{path}").split('/') {
                match self.served.fs.find(connection, at, name) {
                    Ok(found) => at = found,
                    Err(_) => break,
                }
                self.learn_node(at);
                self.learn_name(name);
            }
        }
    }

    fn learn_node(&mut self, id: NodeId) {
        if self.nodes.len() < KNOWN && !self.nodes.contains(&id) {
            self.nodes.push(id);
        }
    }

    fn learn_name(&mut self, name: &str) {
        if self.names.len() < KNOWN && !self.names.iter().any(|known| known == name) {
            self.names.push(name.to_owned());
        }
    }

    fn node(&self, node: &Node) -> NodeId {
        match node {
            Node::Known(index) => self.nodes[usize::from(*index) % self.nodes.len()],
            Node::Raw(raw) => NodeId::from_raw(*raw),
            Node::Of(index, entry) => {
                NodeId::from_raw((self.slot(*index).unwrap_or(9) << 40) | (entry % (1 << 40)))
            }
            Node::Root => NodeId::ROOT,
        }
    }

    fn handle(&self, handle: &Fh) -> Handle {
        match handle {
            Fh::Known(index) if !self.open.is_empty() => {
                self.open[usize::from(*index) % self.open.len()]
            }
            Fh::Known(_) | Fh::None => Handle::NONE,
            Fh::Raw(raw) => Handle(*raw),
            Fh::Paged => Handle::PAGED,
        }
    }

    fn name<'n>(&'n self, name: &'n Name<'_>) -> Cow<'n, OsStr> {
        match name {
            Name::Known(index) if !self.names.is_empty() => {
                Cow::Borrowed(self.names[usize::from(*index) % self.names.len()].as_ref())
            }
            Name::Known(_) => Cow::Borrowed("proc".as_ref()),
            Name::Raw(bytes) => Cow::Borrowed(OsStr::from_bytes(bytes)),
            Name::Slot(slot) => Cow::Owned(slot.to_string().into()),
        }
    }

    fn caller(&self, who: &Who) -> Caller {
        let pid = std::process::id();
        match who {
            Who::Root => Caller {
                uid: 0,
                gid: 0,
                pid,
            },
            Who::Container(index) => {
                let uid = uid_of(self.slot(*index).unwrap_or(0));
                Caller {
                    uid,
                    gid: uid + 1,
                    pid,
                }
            }
            Who::Raw(uid, gid, pid) => Caller {
                uid: *uid,
                gid: *gid,
                pid: *pid,
            },
        }
    }

    fn ask(&mut self, live: bool, node: &Node, what: &What<'_>) {
        let connection = if live {
            Connection::Live
        } else {
            Connection::Cached
        };
        let id = self.node(node);
        let again = |number: &Option<u64>| Request {
            number: number.unwrap_or(0),
            again: number.is_some(),
        };
        let name = match what {
            What::Lookup(name) => self.name(name).into_owned(),
            _ => Default::default(),
        };
        let (number, reply) = self.served.way();
        let operation = |reply: Way| -> Operation<'_, Ways> {
            match what {
                What::Lookup(_) => Operation::Lookup {
                    name: Cow::Borrowed(&name),
                    reply,
                },
                What::Attr(handle) => Operation::Attr {
                    handle: handle.as_ref().map(|handle| self.handle(handle)),
                    reply,
                },
                What::SetAttr(handle, is_access) => Operation::SetAttr {
                    handle: handle.as_ref().map(|handle| self.handle(handle)),
                    is_access: *is_access,
                    reply,
                },
                What::ReadLink => Operation::ReadLink { reply },
                What::Open(who, flags, number) => Operation::Open {
                    caller: self.caller(who),
                    flags: *flags,
                    request: again(number),
                    reply,
                },
                What::Read(handle, flags, offset, size) => Operation::Read {
                    handle: self.handle(handle),
                    flags: *flags,
                    offset: *offset,
                    size: size % (MOST + 1),
                    reply,
                },
                What::Write(handle, who, flags, offset, bytes, number) => Operation::Write {
                    handle: self.handle(handle),
                    caller: self.caller(who),
                    flags: *flags,
                    offset: *offset,
                    bytes: Cow::Borrowed(bytes),
                    request: again(number),
                    reply,
                },
                What::Poll(handle, wake) => Operation::Poll {
                    handle: self.handle(handle),
                    wake: *wake,
                    reply,
                },
                What::Release(handle) => Operation::Release {
                    handle: self.handle(handle),
                    reply,
                },
                What::Entries => Operation::Entries { reply },
            }
        };
        let request = FsRequest::new(connection, id, operation(reply));
        self.served.ask(request);
        let is_write = matches!(what, What::Write(..));
        self.asked.insert(number, (id, is_write));
    }

    /// Waits for all answers, and checks that they have nothing of another container's.
    fn check_answers(&mut self) {
        for (number, answer) in self.served.answers() {
            let (asked, is_write) = self.asked.remove(&number).unwrap();
            let slot = asked.slot();
            // The root of a connection, and slots that are still empty, are nobody's.
            let is_attached = self.attached.iter().any(|attached| attached.slot == slot);
            match answer {
                Answer::Attr(attr) => {
                    let own = attr.id.slot();
                    assert!(own == slot || asked == NodeId::ROOT, "{asked:?}: {attr:?}");
                    if is_attached {
                        assert_eq!(attr.uid, uid_of(own), "{asked:?}: {attr:?}");
                    }
                    self.learn_node(attr.id);
                }
                Answer::Entries(listing) => {
                    for entry in listing.entries {
                        assert_eq!(entry.id.slot(), slot, "{asked:?}: {entry:?}");
                        self.check_text(slot, entry.name.as_bytes());
                        self.learn_node(entry.id);
                        self.learn_name(&entry.name);
                    }
                }
                Answer::Data(text) => {
                    assert!(text.len() <= MOST as usize);
                    self.check_text(slot, &text);
                }
                Answer::Opened(opened) => {
                    if self.open.len() < KNOWN {
                        self.open.push(opened.handle());
                    }
                }
                Answer::Written(_) => {
                    assert!(is_write);
                    let mut attached = self.attached.iter_mut();
                    if let Some(attached) = attached.find(|attached| attached.slot == slot) {
                        attached.has_written = true;
                    }
                }
                Answer::Failed(errno) => assert!((1..4096).contains(&errno.0), "{errno:?}"),
                Answer::Polled(_) | Answer::Done | Answer::Dropped => {}
            }
        }
        assert!(self.asked.is_empty());
    }

    /// Checks that a text has nothing of another container's.
    fn check_text(&self, slot: u64, text: &[u8]) {
        for other in (1..=self.last).filter(|other| *other != slot) {
            for mark in [mark_of(other), format!("of-{other}")] {
                let mark = mark.as_bytes();
                let found = text.windows(mark.len()).any(|part| part == mark);
                assert!(!found, "{slot} has what {other} has");
            }
        }
    }

    /// Checks that the containers which have written nothing have what they began with, and removes all.
    fn end(mut self, first: &Texts) {
        self.check_answers();
        for attached in self
            .attached
            .iter()
            .filter(|attached| !attached.has_written)
        {
            assert_eq!(&texts(&self.served, attached.slot), first);
        }
        for attached in &self.attached {
            self.served.fs.remove(attached.slot);
        }
    }
}
