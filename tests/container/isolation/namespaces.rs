//! The user namespaces of isolated containers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Instant;

use serde_json::json;
use support::{Container, Engine, PATIENCE, Ran};
use xtask::vm::newer_runtimes;

use super::rig::{Rig, Style, first_id, mounts, shell};
use crate::scene;

#[test]
fn privileged_every_container_has_ids_of_its_own_with_each_runtime_and_its_views() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        for style in [Style::Docker, Style::Containerd] {
            let disks = ["a", "b"].map(|name| rig.overlay(style, &format!("{engine:?}{name}")));
            let before = mounts();
            let mut both = disks.each_ref().map(|disk| rig.start(engine, &disk.root));
            let ids = both.each_mut().map(first_id);
            assert!(ids[0].abs_diff(ids[1]) >= 65_536, "{engine:?} {ids:?}");
            for (container, id) in both.iter_mut().zip(ids) {
                let status = format!("/proc/{}/status", container.pid());
                let status = std::fs::read_to_string(status).unwrap();
                assert!(
                    status.contains(&format!("Uid:\t{id}\t{id}\t{id}\t{id}\n")),
                    "{status}"
                );
                assert!(
                    container
                        .grafts()
                        .iter()
                        .any(|path| path == "/proc/meminfo")
                );
                let owners = "b stat -c %u:%g:%a /bin/busybox /home/u/f /srv/max /srv/data/x";
                assert_eq!(
                    shell(container, owners),
                    "0:0:755\n1000:1000:600\n65535:65535:644\n7:7:640\n"
                );
            }
            assert_eq!(mounts(), before, "{engine:?} {style:?}");
            drop(both);
            assert_eq!(mounts(), before, "{engine:?} {style:?}");
        }
    }
    daemon.end();
}

#[test]
fn privileged_the_newest_runtimes_isolate_as_those_of_this_release() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let newest = newer_runtimes().unwrap();
    let usr = newest.join("usr");
    for engine in [Engine::Runc, Engine::Crun] {
        let disk = rig.overlay(Style::Docker, &format!("{engine:?}"));
        let bundle = rig.bundle_of_release(engine, &usr, &disk.root);
        let mut container = Container::of_bundle(bundle);
        first_id(&mut container);
        let seen = shell(
            &mut container,
            "b stat -c %u /home/u/f; b touch /made; b stat -c %u /made",
        );
        assert_eq!(seen, "1000\n0\n", "{engine:?}");
        assert!(!container.grafts().is_empty());
    }
    daemon.end();
}

#[test]
fn privileged_a_container_that_joins_the_network_of_another_has_its_ids() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for engine in [Engine::Runc, Engine::Crun] {
        let disks = ["a", "b"].map(|name| rig.overlay(Style::Docker, &format!("{engine:?}{name}")));
        let mut first = rig.start(engine, &disks[0].root);
        let bundle = rig.bundle(engine, &disks[1].root);
        let net = format!("/proc/{}/ns/net", first.pid());
        bundle.change(|config| {
            for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace["type"] == "network" {
                    namespace["path"] = json!(net);
                }
            }
        });
        let mut second = Container::of_bundle(bundle);
        assert_eq!(first_id(&mut second), first_id(&mut first), "{engine:?}");
        assert_eq!(shell(&mut second, "b stat -c %u /home/u/f"), "1000\n");
    }
    daemon.end();
}

#[test]
fn privileged_views_may_be_left_out_and_the_container_is_isolated_all_the_same() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bundle.change(|config| config["annotations"] = json!({ "eci-fs.enabled": "false" }));
    let mut container = Container::of_bundle(bundle);
    assert!(container.grafts().is_empty());
    first_id(&mut container);
    drop(container);
    daemon.end();
}

#[test]
fn privileged_an_engine_sees_what_a_container_without_views_writes_also_after_the_daemons_death() {
    let scene = scene();
    let rig = Rig::new(&scene, "delegate-cgroup-v1 = true\n");
    let mut daemon = scene.daemon(&[]);
    for engine in [Engine::Runc, Engine::Crun] {
        let disk = rig.overlay(Style::Docker, &format!("{engine:?}"));
        let bundle = rig.bundle(engine, &disk.root);
        bundle.change(|config| {
            config["annotations"] = json!({ "eci-fs.enabled": "false" });
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["type"] != "cgroup");
            mounts.push(json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev"],
            }));
        });
        let mut container = Container::of_bundle(bundle);
        assert!(container.grafts().is_empty());
        let first = first_id(&mut container);
        for dir in container.cgroup().dirs() {
            assert_eq!(
                fs::metadata(&dir).unwrap().uid(),
                first,
                "{}",
                dir.display()
            );
        }
        for text in ["one", "two"] {
            let file = disk.root.join("srv/gone");
            let path = file.display().to_string();
            // The engine's overlay has it in its cache.
            Ran::run(Command::new("cat").arg(&file)).ok();
            shell(
                &mut container,
                &format!("echo {text} >/srv/new; b mv /srv/new /srv/gone"),
            );
            let end = Instant::now() + PATIENCE;
            while Ran::run(Command::new("cat").arg(&file)).stdout != format!("{text}\n") {
                assert!(Instant::now() < end, "{engine:?} {text} {path}");
            }
            if text == "one" {
                daemon.die();
                daemon = scene.daemon(&[]);
            }
        }
        drop(container);
        daemon.wait_for("range free");
    }
    daemon.end();
}
