//! A run: containers, readers, and what happens to them meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Daemon, Scene, Signal, let_time_pass, mounts_of};

use crate::crowd::{self, Member};
use crate::reader::{At, Reader};
use crate::scale::Scale;
use crate::seen::Seen;

const READERS: usize = 8;

/// How long one text may take, whatever happens to the server meanwhile.
const PATIENCE: Duration = Duration::from_secs(15);

/// Servers that may die in [`WINDOW`], by the daemon's own rule, before it gives up.
const DEATHS: u32 = 9;
const WINDOW: Duration = Duration::from_millis(10_100);

/// What is done to the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// SIGKILL of the server.
    KillServer,
}

impl Disturbance {
    /// How often, in a run.
    fn times(self, scale: &Scale) -> u32 {
        let room = scale.span.as_secs_f64() / WINDOW.as_secs_f64() * f64::from(DEATHS);
        let times = match self {
            Self::KillServer => scale.times(200, 8),
        };
        times.min((room * 0.9) as u32).max(1)
    }
}

/// Have readers read while `disturbances` happen at random moments, and look whether anybody noticed.
#[track_caller]
pub(crate) fn soak(disturbances: &[Disturbance]) {
    let scale = Scale::read();
    println!("seed {}", scale.seed);
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let before = mounts_of("thread-self");
    let daemon = scene.daemon(&[]);
    let mut containers = crowd::start(&scene);
    let grafts: Vec<_> = containers.iter().map(|(c, _)| c.grafts()).collect();
    let each = containers.iter().enumerate();
    let crowd: Vec<Member> = each
        .map(|(number, (container, began))| Member::look(number, container, *began))
        .collect();
    let seen = Seen::default();
    let mut run = Run {
        scale: &scale,
        daemon,
        random: fastrand::Rng::with_seed(scale.seed),
        deaths: Vec::new(),
    };
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
    println!("{disturbances:?}: {} servers killed", run.deaths.len());
    seen.print();
    assert_eq!(
        seen.failed(),
        0,
        "seed {}: {:#?}",
        scale.seed,
        seen.failures()
    );
    for ((container, _), grafts) in containers.iter().zip(grafts) {
        assert_eq!(container.grafts(), grafts);
        scene.detach(container);
        assert_eq!(container.grafts(), Vec::<String>::new());
    }
    assert!(scene.list().is_empty());
    drop(containers);
    run.daemon.end();
    assert_eq!(mounts_of("thread-self"), before);
}

/// What a process in a container sees, in all ways of reading.
fn inside(container: &mut support::Container, member: &Member, seen: &Seen) {
    // So that counters count.
    container.ask(&["burn", "5"]);
    let path = "/proc/meminfo";
    let answer = container.ask(&["ways", path]);
    let ways = answer[path]["ways"].as_object().unwrap();
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

struct Run<'a> {
    scale: &'a Scale,
    daemon: Daemon,
    random: fastrand::Rng,
    deaths: Vec<Instant>,
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
        match disturbance {
            Disturbance::KillServer => {
                self.room_for_a_death();
                self.daemon.signal_server(Signal::KILL);
                self.deaths.push(Instant::now());
            }
        }
    }

    /// The daemon gives up a server that dies again and again: that is not what is tested.
    fn room_for_a_death(&self) {
        if let Some(oldest) = self.deaths.iter().rev().nth(DEATHS as usize - 1) {
            let_time_pass(WINDOW.saturating_sub(oldest.elapsed()));
        }
    }
}
