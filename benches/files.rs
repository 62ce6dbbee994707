//! The time that files take in an isolated container: `cargo bench --bench files [-- ROUNDS]`.
//!
//! Two containers of one image, each on an overlay, do the same with files: one as its engine made it, the other isolated,
//! whose overlay is of ID-mapped layers. They take turns, so that other load on the host affects both alike. Needs root and
//! runc.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark prints its figures, and ends when something fails"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;
use support::{Bundle, Container, Engine, Limits, Ran, Scene};

/// The size of the file that is read.
const BIG: usize = 256 * 4096;

fn main() {
    // `cargo bench` passes --bench; a number is the count.
    let rounds: usize = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(41);
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    mount("tmpfs", scene.dir(), "tmpfs", MountFlags::empty(), None).unwrap();
    let daemon = scene.daemon(&[]);
    let layer = scene.dir().join("layer");
    for dir in ["srv", "home/u/d", "tmp"] {
        std::fs::create_dir_all(layer.join(dir)).unwrap();
    }
    std::fs::write(layer.join("srv/big"), vec![1; BIG]).unwrap();
    std::fs::write(layer.join("home/u/d/f"), "f\n").unwrap();

    let plain = bundle(&scene, "plain");
    let mut isolated = bundle(&scene, "isolated");
    isolated.isolate(&scene, env!("CARGO_BIN_EXE_eci-runc").as_ref(), "");

    let mut containers = [plain, isolated].map(Container::of_bundle);
    let map = containers[1].read("/proc/self/uid_map");
    assert!(
        map.split_whitespace().nth(1) != Some("0"),
        "it is not isolated: {map}"
    );
    // By what is done: the nanoseconds of each round without and with isolation.
    let mut times: BTreeMap<String, [Vec<f64>; 2]> = BTreeMap::new();
    for turn in 0..rounds * 2 {
        let which = (turn + turn / 2) % 2;
        let answer = containers[which].ask(&["time-files"]);
        for (name, time) in answer.as_object().unwrap() {
            let all = times.entry(name.clone()).or_default();
            all[which].push(time.as_f64().unwrap());
        }
    }
    println!(
        "| {rounds} rounds in turn | plain, ns: median, least | isolated | ratio of medians, of the least |"
    );
    println!("|---|---|---|---|");
    for (name, times) in times {
        let [(plain, plain_least), (isolated, isolated_least)] = times.map(median_and_least);
        println!(
            "| {name} | {plain:.0}, {plain_least:.0} | {isolated:.0}, {isolated_least:.0} | {:.2}, {:.2} |",
            isolated / plain,
            isolated_least / plain_least
        );
    }
    drop(containers);
    daemon.end();
    for name in ["plain", "isolated"] {
        let _ = unmount(scene.dir().join(name).join("root"), UnmountFlags::DETACH);
    }
}

/// Returns a bundle whose root is an overlay of its own, as an engine mounts it.
fn bundle(scene: &Scene, name: &str) -> Bundle {
    let dir = scene.dir().join(name);
    let at = |part: &str| -> PathBuf { dir.join(part) };
    for part in ["upper", "work", "root"] {
        std::fs::create_dir_all(at(part)).unwrap();
    }
    let options = format!(
        "lowerdir={}:{},upperdir={},workdir={}",
        scene.dir().join("layer").display(),
        scene.root().display(),
        at("upper").display(),
        at("work").display()
    );
    let mut command = Command::new("mount");
    command.args(["-t", "overlay", "overlay", "-o", &options]);
    Ran::run(command.arg(at("root"))).ok();
    let bundle = Bundle::new(scene, Engine::Runc, &Limits::default(), false);
    bundle.change(|config| config["root"] = json!({ "path": at("root") }));
    bundle
}

/// Returns the median and the least. On a busy host the least says more.
fn median_and_least(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    (at(times.len() / 2), at(0))
}
