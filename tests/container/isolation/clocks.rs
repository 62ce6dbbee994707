//! The clocks of isolated containers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::{Bundle, Container, Engine};
use xtask::vm::newer_runtimes;

use super::rig::{Rig, Style};
use crate::scene;

/// A bundle that goes through the wrapper to the runtime of another release, with the annotations of `change`.
#[track_caller]
fn bundle(rig: &Rig<'_>, engine: Engine, usr: &Path, name: &str) -> Bundle {
    let disk = rig.overlay(Style::Docker, &format!("{engine:?}{name}"));
    rig.bundle_of_release(engine, usr, &disk.root)
}

/// The time namespace of the first process.
#[track_caller]
fn time_namespace(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/time")).unwrap()
}

/// The uptime that a container sees, and the start of its first process, both in seconds.
#[track_caller]
fn uptime_and_start(container: &mut Container) -> (f64, f64) {
    let uptime = container.read("/proc/uptime");
    let uptime = uptime.split(' ').next().unwrap().parse().unwrap();
    let stat = container.read("/proc/1/stat");
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: f64 = fields.split_whitespace().nth(19).unwrap().parse().unwrap();
    (uptime, ticks / 100.0)
}

#[test]
fn privileged_the_clocks_of_an_isolated_container_begin_with_it_where_the_runtime_can() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let newest = newer_runtimes().unwrap();
    let newest = newest.join("usr");
    let own = fs::read_link("/proc/self/ns/time").unwrap();
    for engine in [Engine::Runc, Engine::Crun] {
        let mut first = Container::of_bundle(bundle(&rig, engine, &newest, "new"));
        let its = time_namespace(first.pid());
        assert_ne!(its, own, "{engine:?}");
        let (uptime, start) = uptime_and_start(&mut first);
        assert!(start <= uptime, "{engine:?}: {uptime} {start}");
        // From the making of the namespace to the first process, on a busy host.
        assert!(start < 60.0, "{engine:?}: {start}");

        let joining = bundle(&rig, engine, &newest, "joining");
        let path = format!("/proc/{}/ns/pid", first.pid());
        joining.change(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "pid");
            namespaces.push(json!({ "type": "pid", "path": path }));
        });
        let second = Container::of_bundle(joining);
        assert_eq!(time_namespace(second.pid()), its, "{engine:?}");
        drop(second);

        let asking = bundle(&rig, engine, &newest, "asking");
        asking.change(|config| {
            config["annotations"] = json!({ "eci-fs.time-namespace": "false" });
        });
        let third = Container::of_bundle(asking);
        assert_eq!(time_namespace(third.pid()), own, "{engine:?}");

        let old = bundle(&rig, engine, Path::new("/usr"), "old");
        let fourth = Container::of_bundle(old);
        assert_eq!(time_namespace(fourth.pid()), own, "{engine:?}");
    }
    daemon.end();
}
