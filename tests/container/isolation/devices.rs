//! Devices of isolated containers.

use serde_json::json;
use support::{Container, Engine};

use super::rig::{Rig, Style, shell};
use crate::scene;

#[test]
fn privileged_a_device_of_its_own_has_its_owner_and_can_be_opened() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let disk = rig.overlay(Style::Docker, &format!("{engine:?}"));
        let bundle = rig.bundle(engine, &disk.root);
        bundle.change(|config| {
            config["linux"]["devices"] = json!([
                { "path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 1000, "gid": 5 },
            ]);
            config["linux"]["resources"]["devices"] = json!([
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" },
            ]);
        });
        let mut container = Container::of_bundle(bundle);
        assert_eq!(
            shell(&mut container, "b stat -c %u:%g:%a:%t:%T /dev/own"),
            "1000:5:600:1:5\n",
            "{engine:?}"
        );
        let read = "b su u -s /bin/sh -c 'busybox head -c 3 /dev/own | busybox xxd -p'";
        assert_eq!(shell(&mut container, read), "000000\n", "{engine:?}");
    }
    daemon.end();
}

#[test]
fn privileged_a_container_with_all_devices_of_the_host_has_its_views_and_can_use_those_of_everybody()
 {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let disk = rig.overlay(Style::Docker, &format!("{engine:?}"));
        let bundle = rig.bundle(engine, &disk.root);
        // As an engine lists them. That one is not on the host needs not be.
        let node = |path: &str, kind: &str, numbers: (u32, u32), mode: u32| {
            json!({
                "path": path, "type": kind, "major": numbers.0, "minor": numbers.1, "fileMode": mode, "uid": 0, "gid": 0,
            })
        };
        bundle.change(|config| {
            config["linux"]["devices"] = json!([
                node("/dev/zero", "c", (1, 5), 0o666),
                node("/dev/disk0", "b", (7, 0), 0o660),
                node("/dev/kmsg", "c", (1, 11), 0o644),
                node("/dev/secret", "c", (1, 5), 0o600),
            ]);
            config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
        });
        let mut container = Container::of_bundle(bundle);
        assert!(!container.grafts().is_empty(), "{engine:?}");
        let owners = shell(
            &mut container,
            "b stat -c '%n %u:%t:%T' /dev/disk0 /dev/kmsg /dev/secret",
        );
        let wanted = "/dev/disk0 65534:7:0\n/dev/kmsg 65534:1:b\n/dev/secret 65534:1:5\n";
        assert_eq!(owners, wanted, "{engine:?}");
        for (open, wanted) in [
            ("</dev/zero", ""),
            ("</dev/disk0", "Permission denied"),
            (">/dev/kmsg", "Permission denied"),
            ("</dev/secret", "Permission denied"),
        ] {
            let script = format!("{{ b true {open}; }} 2>&1 || true");
            let said = shell(&mut container, &script);
            assert!(said.trim().ends_with(wanted), "{engine:?} {open}: {said}");
            assert_eq!(
                said.is_empty(),
                wanted.is_empty(),
                "{engine:?} {open}: {said}"
            );
        }
    }
    daemon.end();
}

#[test]
fn privileged_device_nodes_of_images_and_volumes_cannot_be_opened() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let (layer, volume) = (scene.dir().join("nodes"), scene.dir().join("volume"));
    for dir in [&layer, &volume] {
        std::fs::create_dir(dir).unwrap();
        let node = dir.join("node");
        let made = std::process::Command::new("mknod")
            .args(["-m", "666", node.to_str().unwrap(), "c", "1", "5"])
            .status();
        assert!(made.unwrap().success());
    }
    let disk = rig.overlay_with(Style::Containerd, "nodes", "", &[layer]);
    for root in [disk.root, plain_root(&scene)] {
        let bundle = rig.bundle(Engine::Runc, &root);
        bundle.change(|config| {
            config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
            config["mounts"].as_array_mut().unwrap().push(
                json!({ "destination": "/v", "type": "bind", "source": volume, "options": ["rbind"] }),
            );
        });
        let mut container = Container::of_bundle(bundle);
        let opened = "for n in /node /v/node; do test ! -e $n || b head -c 1 $n 2>&1 || true; done";
        let said = shell(&mut container, opened);
        let refused = said.matches("Permission denied").count();
        assert!(refused > 0 && refused == said.lines().count(), "{said}");
        // Its own devices are those of the runtime.
        assert_eq!(
            shell(&mut container, "b head -c 1 /dev/zero | b xxd -p"),
            "00\n"
        );
    }
    daemon.end();
}

/// A root file system that is a directory.
#[track_caller]
fn plain_root(scene: &support::Scene) -> std::path::PathBuf {
    let root = scene.dir().join("plain");
    let copied = std::process::Command::new("cp")
        .args(["-a", scene.root().to_str().unwrap(), root.to_str().unwrap()])
        .status();
    assert!(copied.unwrap().success());
    root
}
