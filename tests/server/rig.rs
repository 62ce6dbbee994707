//! A daemon in the hands of the test: two connections, mounted in the mount namespace of the test, and servers.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eci_fs::server::state::{Begin, Record, State};
use eci_fs_mountd::container::describe;
use eci_fs_mountd::container::procfs::Proc;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::CgroupChoice;
use eci_fs_protocol::facts::Facts;
use eci_fs_protocol::link::{
    self, BrokerReply, BrokerRequest, Connection, FromServer, HELD, Resource, Row, Secrets,
    Settings, ToServer,
};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use support::{Container, PATIENCE, Scene};

/// Bytes of the state.
const STATE: u64 = 64 << 20;

/// The slot of the first container.
pub(crate) const SLOT: u64 = 1;

/// The connections and what else outlives a server. Its mounts go with it.
pub(crate) struct Rig {
    pub(crate) scene: Scene,
    dirs: [PathBuf; 2],
    fuse: [OwnedFd; 2],
    init: Vec<Vec<u8>>,
    answered: bool,
    /// The answers to the INIT requests, once there are any.
    replies: Vec<Vec<u8>>,
    /// False for a daemon of version 0.1.0, which does not tell them.
    pub(crate) tells_replies: bool,
    /// The generation of containers.
    pub(crate) generation: u32,
    pub(crate) state: OwnedFd,
    rendezvous: OwnedFd,
    pub(crate) settings: Settings,
    /// The version of the broker. As in version 0.1.0: most tests answer no questions of a server that is another user.
    pub(crate) broker: u32,
    /// What the next server does on purpose.
    pub(crate) fault: Option<&'static str>,
}

/// A server, and the daemon's ends of its channels. It is killed with the value.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) link: Channel,
    pub(crate) asks: Channel,
}

impl Rig {
    /// With all views on the live connection, or as a daemon without options has them.
    pub(crate) fn new(live: bool) -> Self {
        let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
        let dirs = ["cached", "live"].map(|name| scene.dir().join(name));
        let fuse = dirs.each_ref().map(|dir| {
            std::fs::create_dir(dir).unwrap();
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let fuse = rustix::fs::open("/dev/fuse", flags, Mode::empty()).unwrap();
            let options = format!(
                "fd={},rootmode=40555,user_id=0,group_id=0,allow_other,default_permissions",
                fuse.as_raw_fd()
            );
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let options = CString::new(options).unwrap();
            mount("eci-fs", dir, "fuse", flags, options.as_c_str()).unwrap();
            fuse
        });
        let init = fuse.each_ref().map(|fuse| {
            let mut init = vec![0; 64 << 10];
            let length = File::from(fuse.try_clone().unwrap())
                .read(&mut init)
                .unwrap();
            init.truncate(length);
            init
        });
        let state = rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&state, STATE).unwrap();
        let rendezvous = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let path = scene.dir().join("server.sock");
        rustix::net::bind(&rendezvous, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&rendezvous, 8).unwrap();
        let mut settings = Settings::default();
        if live {
            settings.freshness_ms = 0;
        }
        Self {
            scene,
            dirs,
            fuse,
            init: init.into(),
            answered: false,
            replies: Vec::new(),
            tells_replies: true,
            generation: 0,
            state,
            rendezvous,
            settings,
            broker: 0,
            fault: None,
        }
    }

    /// A server that is ready to serve, and whether it outlives its link.
    pub(crate) fn start(&mut self, outlives: bool) -> Server {
        self.try_start(outlives).unwrap()
    }

    /// The same; the words of one that could not start.
    pub(crate) fn try_start(&mut self, outlives: bool) -> Result<Server, String> {
        let (link, theirs) = Channel::pair().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_eci-fs"));
        command.arg("serve").stdin(Stdio::from(theirs.into_inner()));
        if let Some(fault) = self.fault.take() {
            command.env("ECI_FS_FAULT", fault);
        }
        let child = command.spawn().unwrap();
        link.set_timeout(Some(PATIENCE)).unwrap();
        let (asks, theirs) = Channel::pair().unwrap();
        asks.set_timeout(Some(PATIENCE)).unwrap();
        let server = Server { child, link, asks };
        let [cached, live] = &self.fuse;
        let mut fds = vec![
            cached.as_fd(),
            live.as_fd(),
            theirs.as_fd(),
            self.state.as_fd(),
        ];
        // A mount namespace is any file here.
        let namespace = File::open("/proc/self/ns/mnt").unwrap();
        if outlives {
            fds.extend([
                cached.as_fd(),
                live.as_fd(),
                namespace.as_fd(),
                self.rendezvous.as_fd(),
            ]);
        }
        let start = ToServer::Start {
            version: link::VERSION,
            init: self.init.clone(),
            settings: self.settings.clone(),
            held: if outlives { HELD } else { 0 },
            replies: self.tells_replies.then(|| self.replies.clone()),
            broker: self.broker,
        };
        let replies = match server.call(&start, &fds) {
            (FromServer::Started { replies, .. }, _) => replies,
            (FromServer::Failed { why, .. }, _) => return Err(why),
            other => panic!("{other:?}"),
        };
        if !std::mem::replace(&mut self.answered, true) {
            for (fuse, reply) in self.fuse.iter().zip(&replies) {
                let mut fuse = File::from(fuse.try_clone().unwrap());
                fuse.write_all(reply).unwrap();
            }
            self.replies = replies;
        } else {
            assert_eq!(replies, self.replies);
        }
        Ok(server)
    }

    /// Hand a container to a server, as the one in `slot`.
    pub(crate) fn add(&self, server: &Server, slot: u64, container: &Container) -> Vec<Row> {
        self.add_with(server, slot, container, |_| {})
    }

    /// Hand a container to a server as if it had been started this long ago.
    pub(crate) fn add_of_age(
        &self,
        server: &Server,
        slot: u64,
        container: &Container,
        age: Duration,
    ) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = Duration::try_from(now).unwrap();
        self.add_with(server, slot, container, |facts| {
            let start = now.checked_sub(age).unwrap_or_default();
            facts.start_nsec = u64::try_from(start.as_nanos()).unwrap();
        });
    }

    /// The answers to the INIT requests.
    pub(crate) fn replies(&self) -> &[Vec<u8>] {
        &self.replies
    }

    /// The facts about a container.
    pub(crate) fn facts(&self, container: &Container) -> Facts {
        let pidfd = support::open_pidfd(container.pid());
        let choice = CgroupChoice::NamespaceRoot;
        let proc = Proc::open().unwrap();
        let described = describe(&proc, pidfd.as_fd(), None, choice, None);
        described.unwrap().facts
    }

    fn add_with(
        &self,
        server: &Server,
        slot: u64,
        container: &Container,
        change: impl FnOnce(&mut Facts),
    ) -> Vec<Row> {
        let pidfd = support::open_pidfd(container.pid());
        let proc = Proc::open().unwrap();
        let choice = CgroupChoice::NamespaceRoot;
        let mut described = describe(&proc, pidfd.as_fd(), None, choice, None).unwrap();
        change(&mut described.facts);
        let secrets = Secrets {
            boot_id: [1; 16],
            host_secret: [2; 32],
            generation: self.generation,
        };
        let mut fds: Vec<BorrowedFd<'_>> = described.dirs.iter().map(AsFd::as_fd).collect();
        fds.push(described.subject.pidfd.as_fd());
        let add = ToServer::Add {
            slot,
            secrets,
            facts: Box::new(described.facts),
            choices: Choices::default(),
            process: None,
        };
        match server.call(&add, &fds).0 {
            FromServer::Added { catalogue } => catalogue,
            other => panic!("{other:?}"),
        }
    }

    /// A server with one container that serves. The one before it is dead.
    pub(crate) fn serve(&mut self, container: &Container) -> Server {
        let first = !self.answered;
        let server = self.start(true);
        self.add(&server, SLOT, container);
        server.serve(!first);
        server
    }

    /// How many of these records are remembered, while no server serves.
    pub(crate) fn remembered(&self, is_one: fn(&Record) -> bool) -> usize {
        let state = State::open(self.state.try_clone().unwrap()).unwrap();
        let Begin::Read(remembered) = state.begin(|_| true).unwrap() else {
            panic!("a server serves");
        };
        let records = remembered.iter().map(|one| &one.record);
        records.filter(|record| is_one(record)).count()
    }

    /// Where a view of the container in `slot` is.
    pub(crate) fn path(&self, connection: Connection, slot: u64, view: &str) -> PathBuf {
        let [cached, live] = &self.dirs;
        let dir = match connection {
            Connection::Cached => cached,
            Connection::Live => live,
        };
        let top = link::directory_name(slot, self.generation);
        dir.join(format!("{top}{view}"))
    }

    /// A view of the container in `slot`, to be opened as often as one likes without walking to it: as a graft.
    pub(crate) fn graft(&self, connection: Connection, slot: u64, view: &str) -> Graft {
        let path = self.path(connection, slot, view);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Graft(rustix::fs::open(path, flags, Mode::empty()).unwrap())
    }

    /// Read a view of the first container.
    pub(crate) fn read(&self, connection: Connection, view: &str) -> String {
        std::fs::read_to_string(self.path(connection, SLOT, view)).unwrap()
    }

    /// Make a request of each connection, whose answer changes nothing.
    pub(crate) fn poke(&self) {
        for dir in &self.dirs {
            assert!(!dir.join("nobody").exists());
        }
    }

    /// Make a request of each connection, for a thread of a server that is to leave. One that nobody is left for is answered
    /// by the next server.
    pub(crate) fn call_away(&self) {
        for dir in self.dirs.clone() {
            std::thread::spawn(move || dir.join("nobody").exists());
        }
    }

    /// A new daemon comes to the rendezvous.
    pub(crate) fn connect(&self) -> Channel {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let path = self.scene.dir().join("server.sock");
        rustix::net::connect(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        let link = Channel::new(socket);
        link.set_timeout(Some(PATIENCE)).unwrap();
        link
    }
}

/// A view that is found already. The kernel forgets the size of one that it walks to, as nobody does to a graft.
pub(crate) struct Graft(OwnedFd);

impl Graft {
    /// Where it can be opened.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Its text.
    #[track_caller]
    pub(crate) fn read(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // The scene says what is left.
            let _ = unmount(dir, UnmountFlags::DETACH);
        }
    }
}

impl Server {
    /// Say something, and hear the answer.
    pub(crate) fn call(
        &self,
        packet: &ToServer,
        fds: &[BorrowedFd<'_>],
    ) -> (FromServer, Vec<OwnedFd>) {
        call(&self.link, packet, fds)
    }

    /// Say something that is just done.
    #[track_caller]
    pub(crate) fn tell(&self, packet: &ToServer) {
        let (answer, _) = self.call(packet, &[]);
        assert!(matches!(answer, FromServer::Done), "{answer:?}");
    }

    /// Begin to answer.
    #[track_caller]
    pub(crate) fn serve(&self, resend: bool) {
        self.tell(&ToServer::Serve { resend });
    }

    /// What is left of its work after it was told to leave.
    pub(crate) fn busy(&self) -> u64 {
        match self.call(&ToServer::Drained, &[]).0 {
            FromServer::Left { busy } => busy,
            other => panic!("{other:?}"),
        }
    }

    /// Have it leave, and wait until it has.
    pub(crate) fn drain(&self, rig: &Rig) {
        self.tell(&ToServer::Drain);
        for _ in 0..1000 {
            if self.busy() == 0 {
                return;
            }
            rig.call_away();
        }
        panic!("it does not leave");
    }

    /// Hear that it asks for a pressure trigger of the first container, and answer.
    pub(crate) fn open_trigger(&self, fd: BorrowedFd<'_>) -> Vec<u8> {
        let (ask, _) = self.asks.recv::<BrokerRequest>().unwrap().unwrap();
        let BrokerRequest::Trigger {
            slot,
            resource,
            trigger,
            ..
        } = ask
        else {
            panic!("it asks for something else: {ask:?}");
        };
        assert_eq!((slot, resource), (SLOT, Resource::Cpu));
        self.asks.send(&BrokerReply::Opened, &[fd]).unwrap();
        trigger
    }

    /// Kill it, and wait until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Wait for its end, which is about to come.
    pub(crate) fn wait(mut self) -> bool {
        let pidfd = support::open_pidfd(self.child.id());
        support::wait_for_end(&pidfd);
        self.child.wait().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Say something over a link, and hear the answer.
pub(crate) fn call(
    link: &Channel,
    packet: &ToServer,
    fds: &[BorrowedFd<'_>],
) -> (FromServer, Vec<OwnedFd>) {
    link.send(packet, fds).unwrap();
    link.recv().unwrap().unwrap()
}
