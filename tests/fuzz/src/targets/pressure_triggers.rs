//! The pressure triggers of several containers: they are armed, polled, fire, are closed, and are taken over.
//!
//! The answers are those of a model of one open file each. Nothing that was closed stays open, and no container has more triggers
//! than it may.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use eci_fs::server::broker::BrokerClient;
use eci_fs::server::error::Errno;
use eci_fs::server::ids::{Handle, Request};
use eci_fs::server::psi::{Done, MAX_TRIGGERS, Polled, TriggerSet, Triggers};
use eci_fs::server::state::{self, State};
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::link::{BROKER, BrokerReply, BrokerRequest, Resource};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::made_up;
use crate::served::state_file;

/// The time in which another thread does what it has to.
const PATIENCE: Duration = Duration::from_secs(15);

/// The descriptors of the process, which are far more than a container may have triggers.
const DESCRIPTORS: u64 = 1 << 16;

/// The containers and the open files of one input.
const CONTAINERS: u64 = 3;
const FILES: u64 = 64;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    /// Writes a trigger.
    Arm {
        file: u8,
        resource: u8,
        trigger: &'a [u8],
        again: bool,
    },
    /// Writes triggers to many files at once.
    Burst {
        container: u8,
        count: u8,
    },
    Poll {
        file: u8,
        wake: Option<u32>,
    },
    /// The kernel has news.
    Fire(u8),
    /// The cgroup goes.
    End(u8),
    Close(u8),
    Remove(u8),
    /// The next server takes over.
    TakeOver,
}

/// What lives as long as the process.
struct Process {
    triggers: Arc<Triggers>,
    /// The triggers that the daemon has opened, in the order in which it did.
    opened: Arc<Mutex<Vec<Opened>>>,
    /// The numbers that were woken.
    woken: Arc<Mutex<Vec<u64>>>,
}

/// A trigger of the kernel: a pair of sockets. An urgent byte from the kernel's end is news.
struct Opened {
    kernels: OwnedFd,
    /// The server has the same.
    servers: OwnedFd,
}

static PROCESS: LazyLock<Process> = LazyLock::new(|| {
    let (daemon, server) = Channel::pair().unwrap();
    let opened = Arc::<Mutex<Vec<Opened>>>::default();
    let opening = Arc::clone(&opened);
    std::thread::spawn(move || {
        while let Ok(Some((request, _))) = daemon.recv::<BrokerRequest>() {
            answer(&daemon, request, &opening);
        }
    });
    let woken = Arc::<Mutex<Vec<u64>>>::default();
    let waking = Arc::clone(&woken);
    let broker = Arc::new(BrokerClient::new(Channel::new(server.into_inner()), BROKER));
    let triggers = Triggers::start(
        TriggerSet::new().unwrap(),
        broker,
        Box::new(move |poll| waking.lock().push(poll)),
        Arc::new(State::open(state_file()).unwrap()),
        DESCRIPTORS,
    );
    Process {
        triggers: triggers.unwrap(),
        opened,
        woken,
    }
});

/// The number of the first open file of the next input.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Answers as a daemon.
fn answer(daemon: &Channel, request: BrokerRequest, opened: &Mutex<Vec<Opened>>) {
    let number = request.number();
    let BrokerRequest::Trigger { trigger, .. } = request else {
        panic!("{request:?}");
    };
    let (reply, file) = match refusal(&trigger) {
        Some(errno) => (BrokerReply::Refused { errno: errno.0 }, None),
        None => {
            let (kernels, servers) = rustix::net::socketpair(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )
            .unwrap();
            let sent = servers.try_clone().unwrap();
            opened.lock().push(Opened { kernels, servers });
            (BrokerReply::Opened, Some(sent))
        }
    };
    let reply = match number {
        Some(number) => BrokerReply::Numbered {
            number,
            reply: Box::new(reply),
        },
        None => reply,
    };
    let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
    daemon.send(&reply, &files).unwrap();
}

/// Returns the error with which the daemon refuses a trigger.
fn refusal(trigger: &[u8]) -> Option<Errno> {
    (trigger.first()? % 4 == 3).then_some(Errno(libc::EINVAL))
}

/// Takes the bytes for what happens to triggers.
pub fn run(bytes: &[u8]) {
    let Some(input) = made_up::decode::<Input<'_>>(bytes) else {
        return;
    };
    let mut case = Case {
        first: NEXT.fetch_add(1 << 16, Ordering::Relaxed),
        armed: BTreeMap::new(),
        burst: 0,
    };
    PROCESS.woken.lock().clear();
    for step in &input.steps {
        case.take(step);
    }
    case.end();
}

/// A trigger that is armed.
struct Armed {
    container: u64,
    resource: Resource,
    trigger: Vec<u8>,
    /// The kernel's trigger; none after its cgroup has gone.
    kernel: Option<Opened>,
    poll: Option<u64>,
    /// True if it has fired. The server may have heard of that more than once.
    fired: bool,
}

/// One run of an input. No other input has its containers and its files.
struct Case {
    first: u64,
    armed: BTreeMap<u64, Armed>,
    /// The number of files that bursts have used.
    burst: u64,
}

impl Case {
    fn take(&mut self, step: &Step<'_>) {
        match step {
            Step::Arm {
                file,
                resource,
                trigger,
                again,
            } => {
                let file = self.file(*file);
                let answer = self.write(file, resource_of(*resource), trigger, *again);
                let wanted = match self.armed.get(&file) {
                    Some(armed) if *again && armed.trigger == *trigger => Ok(()),
                    Some(_) => Err(Errno(libc::EBUSY)),
                    None => match refusal(trigger) {
                        _ if self.count(self.container(file)) >= MAX_TRIGGERS => {
                            Err(Errno(libc::EMFILE))
                        }
                        Some(errno) => Err(errno),
                        None => Ok(()),
                    },
                };
                assert_eq!(answer.err(), wanted.err());
                if wanted.is_ok() && !self.armed.contains_key(&file) {
                    self.learn(file, resource_of(*resource), trigger);
                }
            }
            Step::Burst { container, count } => self.write_many(*container, *count),
            Step::Poll { file, wake } => self.poll(self.file(*file), *wake),
            Step::Fire(file) => self.fire(self.file(*file)),
            Step::End(file) => self.end_cgroup(self.file(*file)),
            Step::Close(file) => {
                let file = self.file(*file);
                PROCESS.triggers.disarm(Handle(file));
                self.closed(|number, _| number == file);
            }
            Step::Remove(container) => {
                let slot = self.slot(*container);
                PROCESS.triggers.remove_slot(slot);
                self.closed(|_, armed| armed.container == slot);
            }
            Step::TakeOver => self.take_over(),
        }
    }

    fn file(&self, file: u8) -> u64 {
        self.first + u64::from(file) % FILES
    }

    fn slot(&self, container: u8) -> u64 {
        self.first + u64::from(container) % CONTAINERS
    }

    /// Returns the container that has a file open.
    fn container(&self, file: u64) -> u64 {
        self.first + (file - self.first) % CONTAINERS
    }

    fn count(&self, container: u64) -> u64 {
        let armed = self.armed.values();
        armed.filter(|armed| armed.container == container).count() as u64
    }

    /// Writes a trigger, and returns the answer.
    fn write(
        &self,
        file: u64,
        resource: Resource,
        trigger: &[u8],
        again: bool,
    ) -> Result<(), Errno> {
        let (done, answer) = once();
        let request = Request { number: 1, again };
        let slot = self.container(file);
        PROCESS
            .triggers
            .arm(slot, Handle(file), resource, trigger, request, done);
        answer.recv_timeout(PATIENCE).expect("no answer")
    }

    /// Writes triggers to files of a container without waiting, and closes these files.
    fn write_many(&mut self, container: u8, count: u8) {
        let slot = self.slot(container);
        let before = self.count(slot);
        let mut answers = Vec::new();
        for _ in 0..count {
            self.burst += 1;
            let handle = Handle(self.first + FILES + self.burst);
            let (done, answer) = once();
            let request = Request {
                number: 1,
                again: false,
            };
            let resource = resource_of(container);
            PROCESS
                .triggers
                .arm(slot, handle, resource, b"full 1 2", request, done);
            answers.push((handle, answer));
        }
        let mut armed = Vec::new();
        for (handle, answer) in answers {
            match answer.recv_timeout(PATIENCE).expect("no answer") {
                Ok(()) => armed.push(handle),
                Err(errno) => assert!(matches!(errno.0, libc::EMFILE | libc::EAGAIN)),
            }
        }
        assert!(before + armed.len() as u64 <= MAX_TRIGGERS);
        assert!(before >= MAX_TRIGGERS || count == 0 || !armed.is_empty());
        let opened = std::mem::take(&mut *PROCESS.opened.lock());
        assert_eq!(opened.len(), armed.len());
        for handle in armed {
            PROCESS.triggers.disarm(handle);
        }
        opened.into_iter().for_each(Opened::wait_until_closed);
    }

    /// Remembers a trigger that the daemon has just opened.
    fn learn(&mut self, file: u64, resource: Resource, trigger: &[u8]) {
        let mut opened = PROCESS.opened.lock();
        let kernel = opened.pop();
        assert!(kernel.is_some() && opened.is_empty());
        let armed = Armed {
            container: self.container(file),
            resource,
            trigger: trigger.to_vec(),
            kernel,
            poll: None,
            fired: false,
        };
        self.armed.insert(file, armed);
    }

    fn poll(&mut self, file: u64, wake: Option<u32>) {
        // No number of another input.
        let wake = wake.map(|wake| (self.first << 32) | u64::from(wake));
        let polled = PROCESS.triggers.poll(Handle(file), wake);
        let wanted = match self.armed.get_mut(&file) {
            Some(armed) if armed.kernel.is_some() => {
                armed.poll = wake.or(armed.poll);
                match armed.fired {
                    true if polled == Polled::Fired => return,
                    _ => Polled::Quiet,
                }
            }
            _ => Polled::Error,
        };
        assert_eq!(polled, wanted);
    }

    /// Has the kernel say that a trigger has fired: whoever polls is told once.
    fn fire(&mut self, file: u64) {
        let Some(armed) = self.armed.get_mut(&file) else {
            return;
        };
        let Some(kernel) = &armed.kernel else { return };
        // A kernel before 5.15 has no urgent bytes on such sockets.
        if rustix::net::send(&kernel.kernels, &[0], SendFlags::OOB).is_err() {
            return;
        }
        wait_for("a trigger does not fire", || {
            match PROCESS.triggers.poll(Handle(file), None) {
                Polled::Fired => true,
                Polled::Quiet => false,
                Polled::Error => panic!("a trigger that fires is broken"),
            }
        });
        armed.fired = true;
        // As the kernel's trigger, it is quiet after that.
        rustix::net::recv(&kernel.servers, &mut [0], RecvFlags::OOB).unwrap();
        if let Some(poll) = armed.poll {
            wait_for("nobody is woken", || PROCESS.woken.lock().contains(&poll));
        }
    }

    /// Has the kernel say that the cgroup of a trigger has gone.
    fn end_cgroup(&mut self, file: u64) {
        let Some(armed) = self.armed.get_mut(&file) else {
            return;
        };
        if let Some(kernel) = armed.kernel.take() {
            // To close one end of a pair with bytes that nobody has read is an error at the other.
            rustix::net::send(&kernel.servers, &[0], SendFlags::empty()).unwrap();
            drop(kernel);
            wait_for("a trigger lives on", || {
                PROCESS.triggers.poll(Handle(file), None) == Polled::Error
            });
        }
    }

    /// Forgets triggers, and waits until they are closed.
    fn closed(&mut self, which: impl Fn(u64, &Armed) -> bool) {
        let all = std::mem::take(&mut self.armed).into_iter();
        let (gone, kept): (BTreeMap<_, _>, _) = all.partition(|(file, armed)| which(*file, armed));
        self.armed = kept;
        for (file, armed) in gone {
            assert_eq!(PROCESS.triggers.poll(Handle(file), None), Polled::Error);
            armed.kernel.into_iter().for_each(Opened::wait_until_closed);
        }
    }

    /// Has another server go on with the triggers.
    fn take_over(&mut self) {
        PROCESS.triggers.disarm_all();
        for (file, armed) in &mut self.armed {
            let Some(kernel) = armed.kernel.take() else {
                continue;
            };
            kernel.wait_until_closed();
            PROCESS.triggers.restore(state::Trigger {
                slot: armed.container,
                handle: *file,
                resource: armed.resource,
                trigger: armed.trigger.clone(),
                poll: armed.poll,
                fired: false,
            });
            wait_for("a trigger is not set again", || {
                armed.kernel = PROCESS.opened.lock().pop();
                armed.kernel.is_some()
            });
        }
        // Those whose cgroup has gone are not restored here: the model knows no kernel's end of them.
        self.armed.retain(|_, armed| armed.kernel.is_some());
    }

    /// Closes all files. After that each container can have a trigger.
    fn end(mut self) {
        for file in self.armed.keys() {
            PROCESS.triggers.disarm(Handle(*file));
        }
        self.closed(|_, _| true);
        for container in 0..CONTAINERS {
            let file = self.first + container;
            let (resource, trigger) = (Resource::Cpu, b"full 1 2");
            // The charge is given back just after the descriptor is closed.
            wait_for("no trigger can be set", || {
                self.write(file, resource, trigger, false).is_ok()
            });
            self.learn(file, resource, trigger);
            PROCESS.triggers.remove_slot(self.first + container);
        }
        self.closed(|_, _| true);
    }
}

/// Returns a function to be called once, and what it is called with.
fn once() -> (Done, mpsc::Receiver<Result<(), Errno>>) {
    let (sender, receiver) = mpsc::channel();
    (
        Box::new(move |result| sender.send(result).unwrap()),
        receiver,
    )
}

fn resource_of(number: u8) -> Resource {
    [Resource::Cpu, Resource::Memory, Resource::Io, Resource::Irq][usize::from(number % 4)]
}

impl Opened {
    /// Waits until the server has closed its end.
    fn wait_until_closed(self) {
        let Self { kernels, servers } = self;
        drop(servers);
        let patience = Timespec::try_from(PATIENCE).unwrap();
        let mut poll = [PollFd::new(&kernels, PollFlags::RDHUP)];
        let ready =
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&patience))).unwrap();
        assert_eq!(ready, 1, "a trigger stays open");
    }
}

/// Waits until something is true.
fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}
