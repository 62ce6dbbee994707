//! Locked mounts: what a container with all capabilities cannot do with its grafts, masks and read-only mounts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Bundle, Container, Engine, Ran, Scene, mounts_of};

use super::rig::{Disk, Rig, Style, mounts, shell};
use crate::scene;

/// All capabilities. Those that a kernel or this process does not have are left out.
#[track_caller]
fn all_capabilities() -> Vec<String> {
    let mut all = caps::all();
    let bounding = caps::read(None, caps::CapSet::Bounding).unwrap();
    all.retain(|capability| bounding.contains(capability));
    all.into_iter().map(|one| one.to_string()).collect()
}

/// A disk with the directories that attempts use.
#[track_caller]
fn disk(rig: &Rig<'_>, name: &str) -> Disk {
    let disk = rig.overlay(Style::Docker, name);
    for dir in ["mnt", "tmp", "vol"] {
        fs::create_dir_all(disk.root.join(dir)).unwrap();
    }
    disk
}

/// Gives a container all capabilities, a read-only volume with the file `.v` at /vol, and a limit of memory.
#[track_caller]
fn arm(bundle: &Bundle, volume: &Path) {
    bundle.change(|config| {
        let names = json!(all_capabilities());
        config["process"]["capabilities"] =
            json!({ "bounding": names, "effective": names, "permitted": names });
        config["linux"]["resources"]["memory"] = json!({ "limit": 192 << 20 });
        let mount = json!({
            "destination": "/vol", "type": "bind", "source": volume, "options": ["rbind", "ro"]
        });
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
}

#[track_caller]
fn volume(scene: &Scene) -> std::path::PathBuf {
    let volume = scene.dir().join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join(".v"), "").unwrap();
    volume
}

/// The names of all attempts.
#[track_caller]
fn attempts(scene: &Scene) -> Vec<String> {
    let probe = scene.root().join("bin/probe");
    let said = Ran::run(Command::new(probe).arg("breaches")).ok();
    let answer: Value = serde_json::from_str(&said).unwrap();
    serde_json::from_value(answer["ok"].clone()).unwrap()
}

/// Makes each attempt in a container of its own, and returns those that got something.
#[track_caller]
fn breaches(rig: &Rig<'_>, engine: Engine, names: &[String]) -> Vec<String> {
    let disk = disk(rig, &format!("{engine:?}"));
    let volume = volume(rig.scene);
    let mut got = Vec::new();
    for name in names {
        let bundle = rig.bundle(engine, &disk.root);
        arm(&bundle, &volume);
        // Where nothing is masked and read-only, the grafts alone have to hold.
        let hides = name.starts_with("mask-") || name.starts_with("ro-sys");
        bundle.change(|config| {
            config["root"]["readonly"] = json!(name.starts_with("ro-root"));
            if !hides {
                config["linux"]["maskedPaths"] = json!([]);
                config["linux"]["readonlyPaths"] = json!([]);
                config["mounts"][2]["options"] = json!(["nosuid", "noexec", "nodev"]);
            }
        });
        bundle.program(&["/bin/probe", "breach", name]);
        let said = bundle.run().ok();
        let answer: Value = serde_json::from_str(&said).unwrap();
        let breach = &answer["ok"]["breach"];
        assert!(breach.is_boolean(), "{engine:?} {name}: {said}");
        if breach == true {
            got.push(format!("{engine:?} {name}: {said}"));
        }
        assert!(!volume.join("w").exists(), "{engine:?} {name}: {said}");
    }
    got
}

#[track_caller]
fn nothing_gets_through(engine: Engine) {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let all = attempts(&scene);
    let got = breaches(&rig, engine, &all);
    assert_eq!(got, Vec::<String>::new());
    daemon.end();
}

#[test]
fn privileged_no_attack_on_the_mounts_of_a_container_of_runc_succeeds() {
    nothing_gets_through(Engine::Runc);
}

#[test]
fn privileged_no_attack_on_the_mounts_of_a_container_of_crun_succeeds() {
    nothing_gets_through(Engine::Crun);
}
