//! The time that eci-fs adds to `docker run` and `podman run`: `cargo bench --bench engines [-- STARTS]`.
//!
//! A container that does nothing is run to its end and removed, without eci-fs, with its views, and under docker with
//! views and isolation, in turns, so that other load on the host affects all alike. The engine does far more than starting
//! the container; the difference is the result. Needs root, docker and podman.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    reason = "a benchmark prints its figures, and ends when something fails; it shares a file with the tests"
)]

#[path = "../tests/engines/host.rs"]
mod host;

use std::process::Command;
use std::time::{Duration, Instant};

use host::Host;
use serde_json::{Value, json};
use support::engines::{CommandLine, Docker};
use support::{Ran, Scene, in_turn};

fn main() {
    // `cargo bench` passes --bench; a number is the count.
    let count: usize = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(50);
    println!("run of a container that does nothing, {count} of each in turn");
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let host = Host::new(&scene);
    {
        let docker = docker(&host, &scene);
        let run =
            |runtime: &str| docker.run_command(&["--rm", "--network=none", runtime], &["true"]);
        let ways = [
            ("without", run("--runtime=runc")),
            ("with", run("--runtime=eci")),
            ("with isolation", run("--runtime=eci-isolated")),
        ];
        measure("docker", count, &ways);
    }
    let mut podman = host.podman();
    let hooks = podman.hooks(None);
    let run = |podman: &support::engines::Podman| podman.run_command(&["--rm"], &["true"]);
    let plain = run(&podman);
    podman.hooks(hooks.as_deref());
    let wired = run(&podman);
    measure("podman", count, &[("without", plain), ("with", wired)]);
}

/// Returns a docker with our runtime, once without isolation and once with it.
fn docker(host: &Host<'_>, scene: &Scene) -> Docker {
    let file = host.install("docker", &[]).join("etc/docker/daemon.json");
    let mut settings: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for (runtime, isolates) in [("eci", false), ("eci-isolated", true)] {
        let config = scene.dir().join(format!("{runtime}.toml"));
        std::fs::write(&config, format!("[isolation]\nenabled = {isolates}\n")).unwrap();
        settings["runtimes"][runtime] = json!({
            "path": settings["runtimes"]["eci"]["path"],
            "runtimeArgs": ["--eci-config", config],
        });
    }
    Docker::start(scene, &settings)
}

/// Returns a copy of the command.
fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    copy
}

/// Times the commands, and prints the medians, and what each takes more than the first.
fn measure(name: &str, count: usize, ways: &[(&str, Command)]) {
    let mut times = vec![Vec::new(); ways.len()];
    for which in in_turn(ways.len(), count) {
        let mut command = again(&ways[which].1);
        let begun = Instant::now();
        let ran = Ran::run(&mut command);
        times[which].push(begun.elapsed());
        ran.ok();
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    for ((way, _), time) in ways.iter().zip(&medians) {
        let added = time - medians[0];
        println!("{name:8} {way:16} {time:>8.2} ms median {added:>+8.2} ms added");
    }
}

/// Returns the median in milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    let middle = times.get(times.len() / 2);
    middle.map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
