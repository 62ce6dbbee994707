//! A run: containers, readers, and what happens to them meanwhile.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use support::{
    Daemon, Logged, Scene, Signal, children_of, let_time_pass, mounts_of, open_pidfd, signal,
    wait_for_end,
};

use crate::crowd::{self, Member};
use crate::reader::{At, Reader};
use crate::scale::Scale;
use crate::seen::Seen;

const READERS: usize = 8;

/// How long one text may take, whatever happens to the server meanwhile.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lines of the log that a failure shows.
const LAST_LINES: usize = 60;

/// How long there is no daemon, at most.
const NO_DAEMON: Duration = Duration::from_millis(500);

/// How long a daemon needs to start, at most.
const STARTING: Duration = Duration::from_millis(150);

/// What the log says of servers with a fault.
#[cfg(debug_assertions)]
const PANICKED: &str = "the server panicked";
#[cfg(debug_assertions)]
const HANGS: &str = "the server does not answer";

/// What is done to the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Disturbance {
    /// SIGKILL of the server.
    KillServer,
    /// SIGKILL of eci-mountd, and the start of another by whoever looks after services.
    KillDaemon,
    /// SIGSTOP of the server: it lives, and answers nothing.
    StopServer,
    /// Other programs in the place of one of those that run, or of both.
    Upgrade,
    /// Servers that panic at a moment of their lives, one after the other.
    #[cfg(debug_assertions)]
    Panic,
    /// Servers that stop at a moment of their lives to answer what comes there.
    #[cfg(debug_assertions)]
    Hang,
}

impl Disturbance {
    /// How often, in a run.
    fn times(self, scale: &Scale) -> u32 {
        match self {
            Self::KillServer => scale.times(200, 5),
            Self::KillDaemon => scale.times(50, 3),
            Self::StopServer => scale.times(20, 1),
            Self::Upgrade => scale.times(30, 3),
            #[cfg(debug_assertions)]
            Self::Panic | Self::Hang => scale.times(10, 1),
        }
    }
}

/// Have readers read while `disturbances` happen at random moments, and look whether anybody noticed.
#[track_caller]
pub(crate) fn soak(disturbances: &[Disturbance]) {
    let scale = Scale::read(disturbances.len() > 1);
    println!("seed {}", scale.seed);
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let before = mounts_of("thread-self");
    let seen = Seen::default();
    let mut run = Run {
        scale: &scale,
        scene: &scene,
        daemons: vec![scene.daemon(&[])],
        stopped: None,
        random: fastrand::Rng::with_seed(scale.seed),
        happened: BTreeMap::new(),
    };
    let mut containers = crowd::start(&scene, scale.containers);
    let grafts: Vec<_> = containers.iter().map(|(c, _)| c.grafts()).collect();
    let each = containers.iter().enumerate();
    let crowd: Vec<Member> = each
        .map(|(number, (container, began))| Member::look(number, container, *began))
        .collect();

    let (stop, at) = (
        AtomicBool::new(false),
        [(); READERS].map(|()| At::default()),
    );
    std::thread::scope(|scope| {
        for (number, at) in at.iter().enumerate() {
            let reader = Reader::new(number, &crowd, &seen, at, scale.seed);
            let stop = &stop;
            scope.spawn(move || reader.run(stop));
        }
        let _guard = Stop(&stop);
        let mut plan = run.plan(disturbances);
        let began = Instant::now();
        while let Some((moment, disturbance)) = plan.pop() {
            let_time_pass(moment.saturating_sub(began.elapsed()));
            run.disturb(disturbance);
            let number = run.random.usize(..containers.len());
            let container = &mut containers[number].0;
            inside(container, &crowd[number], &seen);
            for at in &at {
                if let Some(what) = at.stuck(PATIENCE) {
                    seen.fail(what);
                }
            }
            if seen.failed() > 0 {
                break;
            }
        }
        if seen.failed() == 0 {
            let_time_pass(scale.span.saturating_sub(began.elapsed()));
        }
    });
    drop(crowd);
    println!("{:?}", run.happened);
    seen.print();
    if seen.failed() > 0 {
        let (seed, log) = (scale.seed, run.log());
        panic!("seed {seed}: {:#?}\n{log}", seen.failures());
    }
    run.heal();
    for ((container, _), grafts) in containers.iter().zip(grafts) {
        assert_eq!(container.grafts(), grafts);
        scene.detach(container);
        assert_eq!(container.grafts(), Vec::<String>::new());
    }
    assert!(scene.list().is_empty());
    drop(containers);
    run.end();
    assert_eq!(mounts_of("thread-self"), before);
}

/// What a process in a container sees, in all ways of reading.
fn inside(container: &mut support::Container, member: &Member, seen: &Seen) {
    // So that counters count.
    container.ask(&["burn", "5"]);
    let path = "/proc/meminfo";
    let answer = container.ask(&["ways", path]);
    let Some(ways) = answer[path]["ways"].as_object() else {
        return seen.fail(format!("in container {}: {answer}", member.number));
    };
    for (way, outcome) in ways {
        seen.count(&seen.inside);
        let file = member.files.iter().find(|file| file.path == path).unwrap();
        let judged = match outcome["text"].as_str() {
            Some(text) => member.judge_mixed(file, text),
            None => Err(outcome.to_string()),
        };
        if let Err(why) = judged {
            seen.fail(format!("in container {}, {way}: {why}", member.number));
        }
    }
}

/// Stops the readers, however the run ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether a child of a daemon is a server; another one may take the daemon's own place.
fn is_server(pid: u32) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split('\0').nth(1) == Some("serve")
}

struct Run<'a> {
    scale: &'a Scale,
    scene: &'a Scene,
    /// Those that the test has started, of which the last one may run.
    daemons: Vec<Daemon>,
    /// A server that was stopped, and may still be there.
    stopped: Option<OwnedFd>,
    random: fastrand::Rng,
    happened: BTreeMap<Disturbance, u32>,
}

impl Run<'_> {
    /// What happens when, the last first.
    fn plan(&mut self, disturbances: &[Disturbance]) -> Vec<(Duration, Disturbance)> {
        let mut plan = Vec::new();
        for disturbance in disturbances {
            for _ in 0..disturbance.times(self.scale) {
                let moment = self.scale.span.mul_f64(self.random.f64());
                plan.push((moment, *disturbance));
            }
        }
        plan.sort_by_key(|(moment, _)| std::cmp::Reverse(*moment));
        plan
    }

    #[track_caller]
    fn disturb(&mut self, disturbance: Disturbance) {
        *self.happened.entry(disturbance).or_default() += 1;
        match disturbance {
            Disturbance::KillServer => drop(self.signal_server(Signal::KILL)),
            Disturbance::StopServer => self.stopped = Some(self.signal_server(Signal::STOP)),
            Disturbance::KillDaemon => {
                self.wait_for_server();
                self.another_daemon(None);
            }
            #[cfg(debug_assertions)]
            Disturbance::Panic => self.faults("panic", PANICKED),
            #[cfg(debug_assertions)]
            Disturbance::Hang => self.faults("hang", HANGS),
            Disturbance::Upgrade => {
                self.wait_for_server();
                let programs = [&["daemon"][..], &["server"], &[]];
                let only = self.random.choice(programs).unwrap();
                let only = only.iter().flat_map(|program| ["--only", *program]);
                let said = self
                    .scene
                    .eci_fs(&["upgrade"].into_iter().chain(only).collect::<Vec<_>>());
                if said.code != Some(0) {
                    panic!("seed {}: {said:?}\n{}", self.scale.seed, self.log());
                }
            }
        }
    }

    /// Kill the daemon and start another one, whose servers have a fault.
    #[track_caller]
    fn another_daemon(&mut self, fault: Option<String>) {
        let daemon = self.daemon_pid();
        let pidfd = open_pidfd(daemon);
        signal(daemon, Signal::KILL);
        wait_for_end(&pidfd);
        let_time_pass(NO_DAEMON.mul_f64(self.random.f64()));
        if self.random.bool() {
            // Another one that does not get far.
            let short = Logged::start(self.scene.command(&["mountd"]));
            let_time_pass(STARTING.mul_f64(self.random.f64()));
            signal(short.pid(), Signal::KILL);
        }
        let mut command = self.scene.command(&["mountd"]);
        command.envs(fault.map(|fault| ("ECI_FS_FAULT", fault)));
        self.daemons.push(self.scene.daemon_of(command));
    }

    /// From now on have servers that panic or hang after so many requests, or so many of one kind.
    #[cfg(debug_assertions)]
    #[track_caller]
    fn faults(&mut self, what: &str, words: &str) {
        let places = [
            ("request", 2000..8000),
            ("render", 200..1500),
            ("open", 200..1000),
            ("write", 20..100),
        ];
        let (place, times) = self.random.choice(places).unwrap();
        let fault = format!("{what}@{place}:{}", self.random.u32(times));
        println!("{fault}");
        self.wait_for_server();
        self.another_daemon(Some(fault));
        // The server that it has taken over has none.
        self.signal_server(Signal::KILL);
        if let Some(daemon) = self.daemons.last_mut() {
            daemon.wait_for(words);
        }
    }

    /// How many servers have had a fault on purpose.
    #[cfg(debug_assertions)]
    fn count_faults(&mut self) -> usize {
        let lines = self.daemons.iter_mut().flat_map(Daemon::log_lines);
        lines
            .filter(|line| [PANICKED, HANGS].iter().any(|words| line.contains(words)))
            .count()
    }

    /// Have programs without faults again.
    #[track_caller]
    fn heal(&mut self) {
        #[cfg(debug_assertions)]
        if self.happened.contains_key(&Disturbance::Panic)
            || self.happened.contains_key(&Disturbance::Hang)
        {
            println!("{} servers had a fault", self.count_faults());
            self.another_daemon(None);
            wait_for_end(&self.signal_server(Signal::KILL));
            self.wait_for_server();
        }
    }

    /// The last words of the programs.
    fn log(&mut self) -> String {
        let lines: Vec<&String> = self
            .daemons
            .iter_mut()
            .flat_map(Daemon::log_lines)
            .collect();
        let last = lines.len().saturating_sub(LAST_LINES);
        lines[last..]
            .iter()
            .fold(String::new(), |log, line| log + line + "\n")
    }

    /// The daemon that runs: the one that was started last, or one that has taken its place.
    #[track_caller]
    fn daemon_pid(&mut self) -> u32 {
        match self.scene.daemon_pid() {
            Some(pid) => pid,
            None => panic!("seed {}: no daemon\n{}", self.scale.seed, self.log()),
        }
    }

    /// Send a signal to the server that runs or is just being started.
    #[track_caller]
    fn signal_server(&mut self, what: Signal) -> OwnedFd {
        loop {
            let mut children = children_of(self.daemon_pid()).into_iter();
            let started = children.rfind(|pid| is_server(*pid));
            let server = started.unwrap_or_else(|| self.scene.wait_for_server());
            // One that has just ended is not there for either.
            let pid = Pid::from_raw(server as i32).unwrap();
            if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
                && pidfd_send_signal(&pidfd, what).is_ok()
            {
                return pidfd;
            }
        }
    }

    /// Wait until there is a server that answers: of a daemon and a server that are both dead nothing is left that
    /// holds the connections.
    #[track_caller]
    fn wait_for_server(&mut self) {
        if let Some(stopped) = self.stopped.take() {
            wait_for_end(&stopped);
        }
        self.scene.wait_for_server();
    }

    /// End the daemon as a service manager would.
    #[track_caller]
    fn end(mut self) {
        let daemon = self.daemon_pid();
        let pidfd = open_pidfd(daemon);
        signal(daemon, Signal::TERM);
        wait_for_end(&pidfd);
        assert!(!self.scene.runtime_dir().join("control.sock").exists());
    }
}
