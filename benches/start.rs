//! The time that the hook adds to the start of a container: `cargo bench --bench start [-- STARTS]`.
//!
//! A container is started (`run --detach`) in three ways: without eci-fs, with the hooks in its bundle, and through
//! `eci-runc`, which adds the hooks each time. The three take turns, so that other load on the host affects all alike.
//! Needs root, runc, crun and youki.
#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints its figures"
)]

use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use support::{Bundle, Engine, Limits, Ran, Scene, find_program};

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
    let config = scene.dir().join("config.toml");
    let run = scene.runtime_dir();
    if let Err(error) = std::fs::write(&config, format!("[hook]\nruntime-dir = {run:?}\n")) {
        panic!("{} cannot be written: {error}", config.display());
    }
    println!("start of a container, {count} of each, taking turns");
    for engine in Engine::RUNTIMES {
        let name = engine.program();
        let real = find_program(name).display().to_string();
        let bundle = || {
            let bundle = Bundle::new(&scene, engine, &Limits::default(), false);
            bundle.program(&["/bin/busybox", "true"]);
            bundle
        };
        let (plain, hooked, mut wrapped) = (bundle(), bundle(), bundle());
        hooked.hook(&scene, &[]);
        let text = |path: &std::path::Path| path.display().to_string();
        let (program, config) = (text(&wrapper), text(&config));
        let options = ["--eci-runtime-path", &real, "--eci-config", &config];
        wrapped.wrap(&[&[program.as_str()][..], &options].concat());
        let mut times: [Vec<Duration>; 3] = Default::default();
        let bundles = [&plain, &hooked, &wrapped];
        for turn in 0..count * bundles.len() {
            // Each runs equally often after each other one, because the kernel still takes down the container before
            // it.
            let (round, place) = (turn / bundles.len(), turn % bundles.len());
            let which = (if round % 2 == 0 { place } else { 2 - place } + round) % bundles.len();
            // An engine writes the configuration anew for each container.
            wrapped.change(|config| config["hooks"] = serde_json::Value::Null);
            times[which].push(start(bundles[which]));
        }
        let [plain, hooked, wrapped] = times.map(median);
        let line = |what: &str, median: f64| {
            let added = median - plain;
            println!("{name:5} {what:22} {median:>8.2} ms median {added:>+8.2} ms added");
        };
        line("without", plain);
        line("with hooks", hooked);
        line("through eci-runc", wrapped);
    }
    daemon.end();
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

/// Returns the median in milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times
        .get(times.len() / 2)
        .map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
