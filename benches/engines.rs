//! The time that eci-fs adds to `docker run` and `podman run`: `cargo bench --bench engines [-- STARTS]`.
//!
//! A container that does nothing is run to its end and removed, without eci-fs and with it in turns, so that other
//! load on the host affects both alike. The engine does far more than starting the container; the difference is the
//! result. Needs root, docker and podman.
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
use support::engines::CommandLine;
use support::{Ran, Scene};

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
        let docker = host.docker(&[]);
        let run = |runtime| docker.run_command(&["--rm", "--network=none", runtime], &["true"]);
        measure(
            "docker",
            count,
            || run("--runtime=runc"),
            || run("--runtime=eci"),
        );
    }
    let mut podman = host.podman();
    let hooks = podman.hooks(None);
    let run = |podman: &support::engines::Podman| podman.run_command(&["--rm"], &["true"]);
    let plain = run(&podman);
    podman.hooks(hooks.as_deref());
    let wired = run(&podman);
    measure("podman", count, || again(&plain), || again(&wired));
}

/// Returns a copy of the command.
fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    copy
}

/// Times both commands, and prints the medians and their difference.
fn measure(name: &str, count: usize, plain: impl Fn() -> Command, wired: impl Fn() -> Command) {
    let mut times: [Vec<Duration>; 2] = Default::default();
    for turn in 0..count * 2 {
        // Each command runs equally often after the other one and after itself.
        let which = (turn + turn / 2) % 2;
        let mut command = if which == 0 { plain() } else { wired() };
        let begun = Instant::now();
        let ran = Ran::run(&mut command);
        times[which].push(begun.elapsed());
        ran.ok();
    }
    let [plain, wired] = times.map(median);
    println!("{name:8} without  {plain:>8.2} ms median");
    println!(
        "{name:8} with     {wired:>8.2} ms median {:>+8.2} ms added",
        wired - plain
    );
}

/// Returns the median in milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    let middle = times.get(times.len() / 2);
    middle.map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
