//! The time that eci-fs adds to the start of a container: `cargo bench --bench start [-- STARTS [RUNTIME...]]`.
//!
//! A container whose root is an overlay is started (`run --detach`) in four ways: without eci-fs, with the hooks in its
//! bundle, through `eci-runc`, which adds the hooks each time, and through `eci-runc` with isolation. They take turns, so
//! that other load on the host affects all alike. Needs root, and the runtimes: runc, crun and youki if none is named.
#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints its figures"
)]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use support::{Bundle, Engine, Limits, Ran, Scene, find_program, in_turn};

fn main() {
    // `cargo bench` passes --bench; a number is the count.
    let count: usize = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(50);
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    // Engines keep their bundles in /run, which is a tmpfs, too.
    let flags = MountFlags::empty();
    if let Err(error) = mount("tmpfs", scene.dir(), "tmpfs", flags, None) {
        panic!("a tmpfs cannot be mounted: {error}");
    }
    let daemon = scene.daemon(&[]);
    let wrapper = scene.dir().join("eci-runc");
    if let Err(error) = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_eci-runc"), &wrapper) {
        panic!("{} cannot be made: {error}", wrapper.display());
    }
    let run = scene.runtime_dir();
    // youki was built without filters of system calls.
    let configs = [(false, true), (true, true), (true, false)].map(|(isolates, traps)| {
        let path = scene
            .dir()
            .join(format!("isolates-{isolates}-{traps}.toml"));
        let text = format!(
            "[hook]\nruntime-dir = {run:?}\n[isolation]\nenabled = {isolates}\nsystem-calls = {traps}\n"
        );
        if let Err(error) = std::fs::write(&path, text) {
            panic!("{} cannot be written: {error}", path.display());
        }
        path.display().to_string()
    });
    let named: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |engine: &Engine| named.iter().any(|name| name == engine.program());
    let any = Engine::RUNTIMES.iter().any(chosen);
    println!("start of a container, {count} of each, taking turns");
    for engine in Engine::RUNTIMES
        .into_iter()
        .filter(|one| !any || chosen(one))
    {
        let name = engine.program();
        let real = find_program(name).display().to_string();
        let bundle = |way: &str| {
            let bundle = Bundle::new(&scene, engine, &Limits::default(), false);
            bundle.program(&["/bin/busybox", "true"]);
            let root = overlay(&scene, &format!("{name}-{way}"));
            bundle.change(|config| config["root"] = serde_json::json!({ "path": root }));
            bundle
        };
        let [plain, hooked, mut wrapped, mut isolated] =
            ["plain", "hooked", "wrapped", "isolated"].map(bundle);
        hooked.hook(&scene, &[]);
        let program = wrapper.display().to_string();
        let isolating = &configs[if engine == Engine::Youki { 2 } else { 1 }];
        let ways = [(&mut wrapped, &configs[0]), (&mut isolated, isolating)];
        for (bundle, config) in ways {
            let options = ["--eci-runtime-path", &real, "--eci-config", config];
            bundle.wrap(&[&[program.as_str()][..], &options].concat());
        }
        let mut times: [Vec<Duration>; 4] = Default::default();
        let bundles = [&plain, &hooked, &wrapped, &isolated];
        for which in in_turn(bundles.len(), count) {
            // An engine writes the configuration anew for each container.
            for bundle in [&wrapped, &isolated] {
                bundle.change(|config| config["hooks"] = serde_json::Value::Null);
            }
            times[which].push(start(bundles[which]));
        }
        let [plain, hooked, wrapped, isolated] = times.map(Times::of);
        let line = |what: &str, times: &Times| {
            let added = times.median - plain.median;
            println!(
                "{name:5} {what:22} {:>8.2} ms median {added:>+8.2} ms added {:>8.2} ms p99",
                times.median, times.p99
            );
        };
        line("without", &plain);
        line("with hooks", &hooked);
        line("through eci-runc", &wrapped);
        line("with isolation", &isolated);
    }
    daemon.end();
}

/// Mounts an overlay as an engine does, with a layer of the root of the scene. It ends with the process.
fn overlay(scene: &Scene, name: &str) -> PathBuf {
    let dir = scene.dir().join(name);
    let at = |part: &str| dir.join(part);
    for part in ["upper", "work", "root"] {
        if let Err(error) = std::fs::create_dir_all(at(part)) {
            panic!("{} cannot be made: {error}", at(part).display());
        }
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        scene.root().display(),
        at("upper").display(),
        at("work").display()
    );
    let mut command = Command::new("mount");
    command.args(["-t", "overlay", "overlay", "-o", &options]);
    Ran::run(command.arg(at("root"))).ok();
    at("root")
}

/// Starts a container and removes it again. Returns the time of the start.
fn start(bundle: &Bundle) -> Duration {
    let pid_file = bundle.dir().join("pid");
    let mut command = bundle.runtime(&["run", "--detach", "--pid-file"]);
    command.arg(&pid_file).arg("--bundle").arg(bundle.dir());
    command.arg(bundle.name());
    let begun = Instant::now();
    let ran = Ran::run(&mut command);
    let took = begun.elapsed();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let pid = std::fs::read_to_string(&pid_file).map(|text| text.trim().parse());
    match pid {
        Ok(Ok(pid)) => support::reap(pid),
        other => panic!("{} holds no pid: {other:?}", pid_file.display()),
    }
    Ran::run(&mut bundle.runtime(&["delete", bundle.name()])).ok();
    took
}

/// The times of one way, in milliseconds.
struct Times {
    median: f64,
    p99: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |place: usize| {
            let time = times.get(place.min(times.len().saturating_sub(1)));
            time.map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        Self {
            median: at(times.len() / 2),
            p99: at(times.len() * 99 / 100),
        }
    }
}
