//! Files and devices of the host that containers may not have.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Engine, Ran};

use super::rig::{Rig, Style, mounts};
use crate::scene;

fn mount(source: &Path, options: &[&str]) -> Value {
    json!({ "destination": "/v", "type": "bind", "source": source, "options": options })
}

#[test]
fn privileged_restricted_files_of_the_host_are_refused_by_every_name_and_the_rest_is_mounted() {
    let scene = scene();
    let dir = scene.dir().to_owned();
    for name in ["secret/below", "open", "other", "tree/inside", "allowed/in"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let socket = UnixListener::bind(dir.join("secret/engine.sock")).unwrap();
    fs::write(dir.join("open/f"), "f\n").unwrap();
    symlink(dir.join("secret"), dir.join("open/link")).unwrap();
    let bind = |from: &str, to: &str| {
        let mut command = Command::new("mount");
        Ran::run(command.arg("--bind").args([dir.join(from), dir.join(to)])).ok();
    };
    // Another name of it, by a mount, and a tree with such a mount in it.
    bind("secret", "other");
    bind("secret/below", "tree/inside");
    bind("secret", "allowed/in");
    let (secret, allowed) = (dir.join("secret"), dir.join("secret/below"));
    let settings = format!("restricted-mounts = [{secret:?}]\nallowed-mounts = [{allowed:?}]\n");
    let rig = Rig::new(&scene, &settings);
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let before = mounts();
    let refused = |change: &dyn Fn(&mut Value), words: &[&str]| {
        let bundle = rig.bundle(Engine::Runc, &disk.root);
        bundle.change(change);
        let ran = bundle.run();
        ran.refused(&[&["eci-runc: isolation: "], words].concat());
        assert_eq!(mounts(), before, "{words:?}");
    };
    let volume = |source: &Path, options: &'static [&'static str]| {
        let entry = mount(source, options);
        move |config: &mut Value| config["mounts"].as_array_mut().unwrap().push(entry.clone())
    };
    for (path, word) in [
        ("secret", "is "),
        ("secret/engine.sock", "is below"),
        ("open/link", "(which is "),
        ("open/link/engine.sock", "(which is "),
        ("open/../secret", "(which is "),
        ("other", "(which is "),
        ("other/engine.sock", "(which is "),
        (".", "contains"),
        ("allowed", "volume"),
    ] {
        for options in [&["rbind"][..], &["rbind", "ro"]] {
            refused(
                &volume(&dir.join(path), options),
                &[word, "secret", "allowed-mounts"],
            );
        }
    }
    // Not the mounts below, and what the administrator allows, however it is called.
    for (path, options) in [
        ("open", &["rbind"][..]),
        ("secret/below", &["rbind"]),
        ("tree", &["rbind"]),
        ("other/below", &["bind"]),
        ("allowed", &["bind"]),
    ] {
        let bundle = rig.bundle(Engine::Runc, &disk.root);
        bundle.change(|config| volume(&dir.join(path), &["bind"])(config));
        bundle.change(|config| {
            let last = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
            last["options"] = json!(options);
        });
        bundle.program(&["/bin/busybox", "ls", "-d", "/v"]);
        assert_eq!(bundle.run().ok(), "/v\n", "{path}");
    }
    for (path, word) in [
        ("/", "contains"),
        ("/etc/passwd", "/etc"),
        ("/proc/1", "/proc"),
        ("/dev/kmsg", "/dev"),
    ] {
        refused(
            &volume(Path::new(path), &["rbind", "ro"]),
            &[word, "may not have"],
        );
    }
    refused(
        &volume(Path::new("/usr"), &["rbind"]),
        &["/usr", "read-only"],
    );
    // As a root file system, a layer, and a device.
    refused(
        &|config| config["root"]["path"] = json!("/etc"),
        &["root file system", "/etc"],
    );
    let layered = |config: &mut Value| {
        let lower = format!("lowerdir={}:/srv", secret.display());
        let entry = json!({ "destination": "/v", "type": "overlay", "source": "overlay", "options": [lower] });
        config["mounts"].as_array_mut().unwrap().push(entry);
    };
    refused(&layered, &["layer", "secret"]);
    let device = |config: &mut Value| {
        config["linux"]["devices"] =
            json!([{ "path": "/dev/x", "type": "b", "major": 7, "minor": 0 }]);
        config["linux"]["resources"]["devices"] =
            json!([{ "allow": true, "type": "b", "major": 7, "minor": 0, "access": "rwm" }]);
    };
    refused(
        &device,
        &["/dev/x (7:0)", "block device", "allowed-devices"],
    );
    // One that stays in the namespace of its engine does not get around it.
    let engines = |config: &mut Value| {
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": 3_000_000, "size": 65_536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        volume(&secret, &["rbind"])(config);
    };
    refused(&engines, &["is ", "secret"]);
    for name in ["other", "tree/inside", "allowed/in"] {
        Ran::run(Command::new("umount").arg(dir.join(name))).ok();
    }
    drop(socket);
    daemon.end();
}
