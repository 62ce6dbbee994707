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
        // A long run has a second control: the same attack on a server that the neighbour does not use.
        let other = scale.is_long().then(crate::scene);
        let other = other.map(|scene| (scene.daemon(&[]), scene));
        let mut best = None;
        for tries in 1..=TRIES {
            let other = other.as_ref().map(|(_, scene)| scene);
            let figures = measure((&scene, &daemon), other, row, threads, &scale);
            figures.print(row.attack, threads);
            let fair = figures.are_fair();
            best = Some((figures, tries));
            // Only a long run is judged.
            if fair || !scale.is_long() {
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

/// The attacker of one server, which is replaced where a half needs a new one.
struct Place<'a> {
    scene: &'a Scene,
    row: Row,
    threads: usize,
    is_long: bool,
    attacker: Option<Attacker>,
    /// False until its threads have done something.
    used: bool,
}

impl<'a> Place<'a> {
    fn new(scene: &'a Scene, row: Row, threads: usize, scale: &Scale) -> Self {
        Self {
            scene,
            row,
            threads,
            is_long: scale.is_long(),
            attacker: None,
            used: false,
        }
    }

    /// Ends the attacker. The next half starts another one: two of them may be more threads than the host can have.
    fn end(&mut self) {
        self.attacker = None;
    }

    /// Returns the attacker, which is started if there is none.
    #[track_caller]
    fn attacker(&mut self) -> &mut Attacker {
        self.attacker.get_or_insert_with(|| {
            let (attack, needs) = (self.row.attack, self.row.needs);
            let attacker = Attacker::start(self.scene, attack, self.threads, needs);
            if self.is_long {
                prefer(attacker.container());
            }
            attacker
        })
    }
}

#[track_caller]
fn measure(
    (scene, daemon): (&Scene, &Daemon),
    other: Option<&Scene>,
    row: Row,
    threads: usize,
    scale: &Scale,
) -> Figures {
    let server = daemon.server();
    let mut neighbour = Neighbour::start(scene);
    if scale.is_long() {
        prefer(neighbour.container());
    }
    let place = |scene| Place::new(scene, row, threads, scale);
    let (mut here, mut there) = (Some(place(scene)), other.map(place));
    for place in [&mut here, &mut there].into_iter().flatten() {
        place.attacker();
    }
    let starts = Starts::new(scene);
    let mut figures = Figures::default();
    for _ in 0..scale.rounds {
        figures.idle.add(neighbour.measure(scale.span));
        let halves = [
            ("control", false, &mut figures.control),
            ("attack", true, &mut figures.elsewhere),
            ("attack", false, &mut figures.attack),
        ];
        for (mode, elsewhere, half) in halves {
            let attackers = if elsewhere { &mut there } else { &mut here };
            let Some(place) = attackers else {
                continue;
            };
            if row.anew && place.used {
                place.end();
            }
            place.used = true;
            let attacker = place.attacker();
            let before = server_time(server);
            attacker.begin(mode);
            let mut measured = neighbour.measure(scale.span);
            starts.measure(scale.starts, &mut measured);
            half.add(measured);
            let done = attacker.rest();
            half.server_usec += server_time(server) - before;
            if !done.rested {
                // What its threads wait for would be counted in the other half.
                place.end();
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
