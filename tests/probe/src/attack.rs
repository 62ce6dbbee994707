//! Attackers: any number of threads that ask for the same thing as quickly as they can.
//!
//! `attack KIND THREADS [ARGUMENT]` makes the threads, which rest at first. Each line on standard input changes what all
//! of them do: `control` has them read a file of the kernel, `attack` has them do what `KIND` says, and `rest` lets them
//! finish and wait. So both are done by the same threads in the same container, and one can be compared with the other.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Advice, AtFlags, CWD, OFlags, StatxFlags, fadvise, readlinkat, statx};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::answer::{self, Answer, wrong};

/// The bytes of the stack of each thread. There can be 14,000.
const STACK: usize = 32 * 1024;

/// The time in which threads that are told to rest must have finished what they do.
const REST: Duration = Duration::from_secs(20);

/// The longest time that threads which are told to do something are given to begin.
const BEGIN: Duration = Duration::from_secs(1);

/// A size in bytes that none of these views reaches.
const PLENTY: usize = 8 * 1024;

/// Any stall of 1 ms in 2 s.
const TRIGGER: &[u8] = b"some 1000 2000000\0";

const MEMINFO: &str = "/proc/meminfo";
const VMSTAT: &str = "/proc/vmstat";
const SWAPPINESS: &str = "/proc/sys/vm/swappiness";
const PRESSURE: &str = "/proc/pressure/cpu";
const CPUS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";
const NODE_MEMINFO: &str = "/sys/devices/system/node/node0/meminfo";
const NEIGHBOURS: &str = "/proc/sys/net/ipv4/neigh";

/// What a thread does again and again.
type Attack = fn(&mut Hand) -> io::Result<()>;

/// All kinds of attacks, by name.
const ATTACKS: &[(&str, Attack)] = &[
    // The cached connection.
    ("open-cached", |_| open_and_read(MEMINFO)),
    ("force-attributes", |_| force_attributes(MEMINFO)),
    ("drop-pages", drop_pages),
    ("count-threads", count_threads),
    // The live connection.
    ("read-live", |hand| hand.read(VMSTAT)),
    ("open-live", |_| open_and_read(VMSTAT)),
    ("poll-pressure", poll_pressure),
    ("make-triggers", |_| make_trigger()),
    ("open-tunable", |_| open_and_read(SWAPPINESS)),
    ("write-tunable", |hand| hand.write(SWAPPINESS, b"33\n")),
    // Directory grafts, and what lies below them.
    ("list-cpus", |_| list(CPUS)),
    ("list-nodes", |_| list(NODES)),
    ("stat-node", |_| fs::metadata(NODE_MEMINFO).map(drop)),
    ("open-node", |_| open_and_read(NODE_MEMINFO)),
    ("odd-names", odd_names),
    ("read-links", read_links),
    ("list-devices", |_| list(NEIGHBOURS)),
    ("find-devices", find_devices),
    // No file of a connection: the server hears of each change of a limit.
    ("write-limit", write_limit),
    // The mounts on which the files lie.
    ("change-mounts", change_mounts),
];

/// One thread of an attacker.
#[derive(Debug)]
struct Hand {
    /// Its number among the threads.
    number: u64,
    /// The number of things that it has done.
    turns: u64,
    /// The file that it holds open, after the first turn.
    held: Option<File>,
    /// The argument of the attack.
    argument: &'static str,
}

impl Hand {
    fn held(&mut self, open: impl FnOnce() -> io::Result<File>) -> io::Result<&File> {
        if self.held.is_none() {
            self.held = Some(open()?);
        }
        self.held.as_ref().ok_or_else(|| wrong("nothing is held"))
    }

    /// Reads a file that is held open from its beginning.
    fn read(&mut self, path: &str) -> io::Result<()> {
        let mut buffer = [0; PLENTY];
        self.held(|| File::open(path))?
            .read_at(&mut buffer, 0)
            .map(drop)
    }

    /// Writes to a file that is held open.
    fn write(&mut self, path: &str, what: &[u8]) -> io::Result<()> {
        self.held(|| File::options().write(true).open(path))?
            .write_at(what, 0)
            .map(drop)
    }

    /// Returns a number that is another one in each turn of each thread.
    fn next(&mut self) -> u64 {
        self.turns += 1;
        self.turns.wrapping_mul(1 << 20).wrapping_add(self.number)
    }
}

fn open_and_read(path: &str) -> io::Result<()> {
    let mut buffer = [0; PLENTY];
    File::open(path)?.read_at(&mut buffer, 0).map(drop)
}

fn force_attributes(path: &str) -> io::Result<()> {
    let flags = AtFlags::STATX_FORCE_SYNC;
    Ok(statx(CWD, path, flags, StatxFlags::BASIC_STATS).map(drop)?)
}

fn drop_pages(hand: &mut Hand) -> io::Result<()> {
    let file = hand.held(|| File::open(MEMINFO))?;
    fadvise(file, 0, None, Advice::DontNeed)?;
    hand.read(MEMINFO)
}

/// The first thread has the others counted, which do nothing.
fn count_threads(hand: &mut Hand) -> io::Result<()> {
    if hand.number > 0 {
        thread::park();
        return Ok(());
    }
    open_and_read("/proc/loadavg")?;
    open_and_read("/proc/stat")
}

fn poll_pressure(hand: &mut Hand) -> io::Result<()> {
    let file = hand.held(|| File::open(PRESSURE))?;
    let mut fds = [PollFd::new(file, PollFlags::PRI)];
    Ok(poll(&mut fds, Some(&Timespec::default())).map(drop)?)
}

/// Makes a trigger, and closes it.
fn make_trigger() -> io::Result<()> {
    let mut options = File::options();
    let mut file = options.read(true).write(true).open(PRESSURE)?;
    file.write_all(TRIGGER)
}

fn list(path: &str) -> io::Result<()> {
    fs::read_dir(path)?.try_for_each(|entry| entry.map(drop))
}

/// Asks for a name that is not there.
fn odd_names(hand: &mut Hand) -> io::Result<()> {
    let name = format!("{CPUS}/cpu0/odd-{:x}", hand.next());
    match fs::symlink_metadata(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// Reads a symbolic link by a descriptor, for which nothing is looked up.
fn read_links(hand: &mut Hand) -> io::Result<()> {
    let link = hand.held(|| {
        let flags = (OFlags::PATH | OFlags::NOFOLLOW).bits() as i32;
        let mut options = File::options();
        let path = format!("{CPUS}/cpu0/subsystem");
        options.read(true).custom_flags(flags).open(path)
    })?;
    Ok(readlinkat(link, "", Vec::new()).map(drop)?)
}

/// Asks for each of the devices `d0`, `d1` ... in turn. The argument is their number.
fn find_devices(hand: &mut Hand) -> io::Result<()> {
    let devices: u64 = hand.argument.parse().map_err(io::Error::other)?;
    // Neighbouring threads ask for different ones.
    let turn = hand.turns;
    hand.turns += 1;
    let device = (hand.number * 97 + turn) % devices.max(1);
    fs::metadata(format!("{NEIGHBOURS}/d{device}/retrans_time_ms")).map(drop)
}

/// Writes one of two limits to the file in the argument.
fn write_limit(hand: &mut Hand) -> io::Result<()> {
    hand.turns += 1;
    let limit: &[u8] = match hand.turns % 2 {
        0 => b"2147483648",
        _ => b"2147487744",
    };
    let path = hand.argument;
    hand.write(path, limit)
}

/// Covers, replaces and shares parts of /proc and /sys, and takes that back: each thread other ones.
fn change_mounts(hand: &mut Hand) -> io::Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let over = |fstype: &str, path: &str| mount(fstype, path, fstype, plain, None::<&CStr>);
    let uncover = |path: &str| unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    match hand.number % 5 {
        0 => {
            mount_bind("/dev/null", MEMINFO)?;
            uncover(MEMINFO)?;
        }
        1 => {
            over("proc", "/proc")?;
            uncover("/proc")?;
        }
        2 => {
            over("tmpfs", "/sys/devices/system")?;
            uncover("/sys/devices/system")?;
        }
        3 => {
            mount_change(
                "/",
                MountPropagationFlags::REC | MountPropagationFlags::SHARED,
            )?;
            mount_change(
                "/",
                MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
            )?;
        }
        _ => {
            mount_bind_recursive("/sys", "/proc")?;
            uncover("/proc")?;
        }
    }
    Ok(())
}

/// What all threads are to do.
const REST_MODE: u8 = 0;
const CONTROL_MODE: u8 = 1;
const ATTACK_MODE: u8 = 2;

/// What the threads share.
#[derive(Debug)]
struct Shared {
    mode: AtomicU8,
    attack: Attack,
    tally: Mutex<Tally>,
    /// The number of threads that rest. It is no part of the tally: thousands of threads that begin would wait for the lock.
    resting: AtomicUsize,
    /// The thread that hears the commands.
    main: Thread,
}

/// What the threads have done since they last rested.
#[derive(Debug, Default)]
struct Tally {
    done: u64,
    errors: BTreeMap<String, u64>,
}

impl Shared {
    fn mode(&self) -> u8 {
        self.mode.load(Ordering::Relaxed)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        self.resting.fetch_sub(1, Ordering::Relaxed);
        self.main.unpark();
    }

    fn rest(&self) {
        self.resting.fetch_add(1, Ordering::Release);
        self.main.unpark();
    }

    /// Returns whether that many threads rest within the time, and no others.
    fn wait_for_resting(&self, threads: usize, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.resting.load(Ordering::Acquire) != threads {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
        true
    }

    /// Does what the mode says, for ever.
    fn work(&self, mut hand: Hand, mut control: Hand) {
        self.rest();
        loop {
            let mode = self.mode();
            if mode == REST_MODE {
                thread::park();
                continue;
            }
            self.begin();
            let (mut done, mut errors) = (0, BTreeMap::<String, u64>::new());
            while self.mode() == mode {
                let result = match mode {
                    CONTROL_MODE => control.read("/proc/version"),
                    _ => (self.attack)(&mut hand),
                };
                match result {
                    Ok(()) => done += 1,
                    Err(error) => *errors.entry(answer::name(&error)).or_default() += 1,
                }
            }
            let mut tally = self.tally();
            tally.done += done;
            for (name, count) in errors {
                *tally.errors.entry(name).or_default() += count;
            }
            drop(tally);
            self.rest();
        }
    }
}

/// Runs `attack KIND THREADS [ARGUMENT]` until standard input ends.
pub(crate) fn attack(arguments: &[String]) -> ExitCode {
    let result = start(arguments).and_then(|(shared, threads)| {
        println!("{}", answer::line(&Ok(json!({ "threads": threads.len() }))));
        for line in io::stdin().lines() {
            println!("{}", answer::line(&obey(shared, &threads, &line?)));
        }
        Ok(())
    });
    if let Err(error) = result {
        println!("{}", answer::line(&Err(error)));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn start(arguments: &[String]) -> io::Result<(&'static Shared, Vec<Thread>)> {
    let [kind, threads, rest @ ..] = arguments else {
        return Err(wrong("attack: name a kind and the number of threads"));
    };
    let attack = ATTACKS.iter().find(|(name, _)| name == kind);
    let (_, attack) = attack.ok_or_else(|| wrong(format!("no such attack: {kind}")))?;
    let count: usize = threads.parse().map_err(io::Error::other)?;
    // Each thread holds files.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    // The threads never end, so what they share need not either.
    let argument = rest.first().cloned().unwrap_or_default().leak();
    let shared: &Shared = Box::leak(Box::new(Shared {
        mode: AtomicU8::new(REST_MODE),
        attack: *attack,
        tally: Mutex::default(),
        resting: AtomicUsize::new(0),
        main: thread::current(),
    }));
    let hand = |number| Hand {
        number,
        turns: 0,
        held: None,
        argument,
    };
    let mut threads = Vec::with_capacity(count);
    for number in 0..count as u64 {
        let (attacking, control) = (hand(number), hand(number));
        let thread = thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || shared.work(attacking, control));
        let thread = thread.map_err(|error| wrong(format!("after {number} threads: {error}")))?;
        threads.push(thread.thread().clone());
    }
    if !shared.wait_for_resting(count, REST) {
        return Err(wrong("not all threads have started"));
    }
    Ok((shared, threads))
}

/// Does what a line says. The answer to `rest` says what was done since the last rest, and with how much CPU time.
fn obey(shared: &Shared, threads: &[Thread], line: &str) -> Answer {
    let mode = match line {
        "rest" => REST_MODE,
        "control" => CONTROL_MODE,
        "attack" => ATTACK_MODE,
        _ => return Err(wrong(format!("no such mode: {line}"))),
    };
    shared.mode.store(mode, Ordering::Relaxed);
    for thread in threads {
        thread.unpark();
    }
    if mode != REST_MODE {
        // Thousands of threads take a while to begin. Those of a control keep the CPU until the others have their turn.
        return Ok(json!(shared.wait_for_resting(0, BEGIN)));
    }
    let rested = shared.wait_for_resting(threads.len(), REST);
    let mut tally = shared.tally();
    let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime));
    let answer = json!({
        "rested": rested,
        "done": std::mem::take(&mut tally.done),
        "errors": std::mem::take(&mut tally.errors),
        "cpu_us": used.map_err(io::Error::other)?.as_micros() as u64,
    });
    Ok(answer)
}
