//! Rounds: a control and an attack in turn, and what the neighbour measures meanwhile.

use procfs::process::Process;
use support::{Daemon, Scene};

use crate::attacker::{Attacker, Needs};
use crate::figures::{Figures, Half};
use crate::neighbour::Neighbour;
use crate::prefer::{Preferred, prefer};
use crate::scale::Scale;
use crate::scene;
use crate::starts::Starts;

/// An attack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Its name in tests/probe.
    pub(crate) attack: &'static str,
    /// What the threads do, for the table.
    pub(crate) says: &'static str,
    /// What it needs in its container.
    pub(crate) needs: Needs,
    /// Whether each round has a container of its own, because something is done only once in a container.
    pub(crate) anew: bool,
}

/// How often figures that are beyond a bound are measured again: another program may have had the CPUs.
const TRIES: usize = 3;

/// What the log of a daemon says of a server that is replaced.
const REPLACED: [&str; 3] = [
    "the server does not answer",
    "the server died",
    "the server panicked",
];

/// Runs an attack with each number of threads. In a short run these are `threads`.
///
/// # Panics
/// When a read of the neighbour fails, a container does not start, or the server is replaced.
#[track_caller]
pub(crate) fn attack(row: Row, threads: &[usize]) {
    let scale = Scale::read(threads);
    for &threads in &scale.threads {
        let scene = scene();
        let preferred = scale.is_long().then(|| {
            let container = scene.container().start();
            Preferred::beside(&prefer(&container))
        });
        let mut daemon = scene.daemon(&[]);
        let other = scale.apart.then(crate::scene);
        let other = other.map(|scene| (scene.daemon(&[]), scene));
        let mut best = None;
        for tries in 1..=TRIES {
            let attacked = match &other {
                Some((daemon, scene)) => (scene, daemon),
                None => (&scene, &daemon),
            };
            let figures = measure(&scene, attacked, row, threads, &scale);
            figures.print(row.attack, threads);
            let holds = figures.hold();
            best = Some((figures, tries));
            // Only a long run is judged.
            if holds || !scale.is_long() {
                break;
            }
        }
        let (figures, tries) = best.unwrap();
        if let Some(dir) = &scale.figures {
            figures.write(dir, &row, threads, tries);
        }
        let failures = figures.failures();
        assert!(failures.is_empty(), "{threads} threads: {failures:#?}");
        let attack = &figures.attack;
        let tried = attack.done > 0 || attack.waits || !attack.errors.is_empty();
        assert!(tried, "{threads} threads did nothing");
        let lines = daemon.log_lines();
        let is_replaced = |line: &&String| REPLACED.iter().any(|words| line.contains(words));
        let replaced: Vec<_> = lines.iter().filter(is_replaced).collect();
        assert!(replaced.is_empty(), "{threads} threads: {replaced:#?}");
        daemon.end();
        if let Some((daemon, _)) = other {
            daemon.end();
        }
        drop(preferred);
    }
}

#[track_caller]
fn measure(
    scene: &Scene,
    (attacked, daemon): (&Scene, &Daemon),
    row: Row,
    threads: usize,
    scale: &Scale,
) -> Figures {
    let server = daemon.server();
    let start = || {
        let attacker = Attacker::start(attacked, row.attack, threads, row.needs);
        if scale.is_long() {
            prefer(attacker.container());
        }
        attacker
    };
    let mut neighbour = Neighbour::start(scene);
    if scale.is_long() {
        prefer(neighbour.container());
    }
    let mut attacker = start();
    let starts = Starts::new(scene);
    let mut figures = Figures::default();
    for round in 0..scale.rounds {
        figures.idle.add(neighbour.measure(scale.span));
        for (mode, half) in [
            ("control", &mut figures.control),
            ("attack", &mut figures.attack),
        ] {
            if row.anew && (round > 0 || mode == "attack") {
                drop(attacker);
                attacker = start();
            }
            let before = server_time(server);
            attacker.begin(mode);
            let mut measured = neighbour.measure(scale.span);
            starts.measure(scale.starts, &mut measured);
            half.add(measured);
            let done = attacker.rest();
            half.server_usec += server_time(server) - before;
            if !done.rested {
                // What its threads wait for would be counted in the other half.
                drop(attacker);
                attacker = start();
            }
            half.note(done);
        }
    }
    assert_eq!(daemon.server(), server, "the server was replaced");
    figures
}

impl Half {
    fn note(&mut self, done: crate::attacker::Done) {
        self.done += done.number;
        self.waits |= !done.rested;
        self.attacker_usec += done.cpu_usec;
        if done.errors.as_object().is_some_and(|all| !all.is_empty()) {
            self.errors.push(done.errors);
        }
    }
}

/// Returns the microseconds of CPU time of the server.
#[track_caller]
fn server_time(pid: u32) -> u64 {
    let stat = Process::new(pid as i32).and_then(|process| process.stat());
    let stat = stat.expect("the server lives");
    (stat.utime + stat.stime) * 1_000_000 / procfs::ticks_per_second()
}
