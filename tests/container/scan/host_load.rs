//! Everything that may be seen of others: work for the CPUs, the disk, the memory and the network, and new processes,
//! cgroups, keys, files, sockets and terminals.

use std::fs::{self, File};
use std::io::Write;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Container, Engine, Scene, find_program};

use crate::limits;

/// The things that are held: files, sockets, terminals, and bytes of memory.
const FILES: usize = 3000;
const SOCKETS: usize = 100;
const TERMINALS: usize = 4;
const MEMORY: usize = 256 << 20;

/// The work that is done once: time of a CPU, bytes that are written, packets that are sent, and processes.
const BUSY: Duration = Duration::from_millis(300);
const WRITTEN: usize = 16 << 20;
const PACKETS: usize = 2000;
const PROCESSES: usize = 30;

/// The load. What it holds is given back when this is dropped.
pub(super) struct HostLoad {
    _files: Vec<File>,
    _sockets: Vec<UdpSocket>,
    _memory: Vec<u8>,
    _containers: [Container; 3],
}

impl HostLoad {
    /// Does all the work, and returns what is held.
    #[track_caller]
    pub(super) fn new(scene: &Scene) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let all = Rlimit {
            current: limit.maximum,
            ..limit
        };
        setrlimit(Resource::Nofile, all).unwrap();
        let dir = scene.dir().join("load");
        fs::create_dir(&dir).unwrap();
        let file = |number: usize| File::create(dir.join(number.to_string())).unwrap();
        let mut files: Vec<File> = (0..FILES).map(file).collect();
        files.extend((0..TERMINALS).filter_map(|_| File::open("/dev/ptmx").ok()));
        // Each has new namespaces, cgroups, a key ring and mounts.
        let container = |engine| {
            let container = scene.container().engine(engine);
            container.limits(limits(64, 0.5)).start()
        };
        let containers = [Engine::Runc, Engine::Runc, Engine::Plain].map(container);
        work(&dir);
        Self {
            _files: files,
            _sockets: (0..SOCKETS).map(|_| socket()).collect(),
            _memory: vec![1; MEMORY],
            _containers: containers,
        }
    }
}

#[track_caller]
fn work(dir: &std::path::Path) {
    let end = Instant::now() + BUSY;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    let mut written = File::create(dir.join("written")).unwrap();
    written.write_all(&vec![1; WRITTEN]).unwrap();
    written.sync_all().unwrap();
    let (one, other) = (socket(), socket());
    for _ in 0..PACKETS {
        let sent = one.send_to(&[1; 1000], other.local_addr().unwrap());
        assert_eq!(sent.unwrap(), 1000);
    }
    for _ in 0..PROCESSES {
        let mut command = Command::new(find_program("true"));
        assert!(command.stdin(Stdio::null()).status().unwrap().success());
    }
}

#[track_caller]
fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}
