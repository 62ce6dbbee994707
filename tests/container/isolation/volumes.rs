//! Volumes of isolated containers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Bundle, Container, Engine, Ran};

use super::rig::{Rig, Style, first_id, mounts, shell};
use crate::scene;

pub(super) fn bind(bundle: &Bundle, source: &Path, destination: &str, options: &[&str]) {
    bundle.change(|config| {
        let mount = json!({ "destination": destination, "type": "bind", "source": source, "options": options });
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
}

#[test]
fn privileged_two_containers_see_the_same_owners_on_a_volume() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let volume = scene.dir().join("private/volume");
    fs::create_dir_all(&volume).unwrap();
    fs::set_permissions(
        scene.dir().join("private"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    fs::write(volume.join("f"), "v\n").unwrap();
    chown(volume.join("f"), Some(1000), Some(42)).unwrap();
    for engine in Engine::RUNTIMES {
        let before = mounts();
        let mut both = ["a", "b"].map(|name| {
            let disk = rig.overlay(Style::Docker, &format!("{engine:?}{name}"));
            let bundle = rig.bundle(engine, &disk.root);
            bind(&bundle, &volume, "/v", &["rbind", "rprivate"]);
            bind(&bundle, &volume.join("f"), "/f", &["bind", "ro"]);
            Container::of_bundle(bundle)
        });
        let ids = both.each_mut().map(first_id);
        assert_ne!(ids[0], ids[1]);
        shell(&mut both[0], "b touch /v/made; b chown 33:34 /v/made");
        for container in &mut both {
            assert_eq!(
                shell(container, "b stat -c %u:%g /v/f /v/made /f; b cat /f"),
                "1000:42\n33:34\n1000:42\nv\n"
            );
            let refused = shell(container, "b sh -c 'echo > /f' 2>&1 || b true");
            assert!(refused.contains("Read-only"), "{refused}");
        }
        assert_eq!(fs::metadata(volume.join("made")).unwrap().uid(), 33);
        assert_eq!(mounts().len(), before.len() + 2, "the two overlays");
    }
    daemon.end();
}

#[test]
fn privileged_mounts_below_a_volume_are_mapped_each_and_nothing_shows_on_the_host() {
    let scene = crate::isolation::volumes::shared_scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let volume = scene.dir().join("volume");
    for name in ["tmpfs", "overlay", "file"] {
        fs::create_dir_all(volume.join(name)).unwrap();
    }
    let mount = |arguments: &[&str], at: &str| {
        Ran::run(Command::new("mount").args(arguments).arg(volume.join(at))).ok();
    };
    mount(&["-t", "tmpfs", "tmpfs"], "tmpfs");
    fs::write(volume.join("tmpfs/f"), "").unwrap();
    chown(volume.join("tmpfs/f"), Some(1000), Some(1000)).unwrap();
    let lower = format!(
        "lowerdir={}:{}",
        scene.dir().join("layer").display(),
        scene.root().display()
    );
    mount(&["-t", "overlay", "overlay", "-o", &lower], "overlay");
    let disk = rig.overlay(Style::Docker, "a");
    let before = mounts();
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bind(&bundle, &volume, "/v", &["rbind", "rslave"]);
    let mut container = Container::of_bundle(bundle);
    assert_eq!(mounts(), before);
    let owners = "b stat -c %u /v/tmpfs/f /v/overlay/home/u/f /v/file";
    assert_eq!(shell(&mut container, owners), "1000\n65534\n0\n");
    let log = fs::read_to_string(scene.runtime_dir().join("hook.log")).unwrap();
    assert!(
        log.contains("volume/overlay") && log.contains("nobody"),
        "{log}"
    );
    drop(container);
    assert_eq!(mounts(), before);
    for name in ["tmpfs", "overlay"] {
        Ran::run(Command::new("umount").arg(volume.join(name))).ok();
    }
    daemon.end();
}

#[test]
fn privileged_each_runtime_passes_the_mounts_below_a_volume_that_was_mapped() {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let daemon = scene.daemon(&[]);
    let volume = scene.dir().join("volume");
    for name in ["tmpfs", "bound"] {
        fs::create_dir_all(volume.join(name)).unwrap();
    }
    let mount = |arguments: &[&str], at: &str| {
        Ran::run(Command::new("mount").args(arguments).arg(volume.join(at))).ok();
    };
    mount(&["-t", "tmpfs", "tmpfs"], "tmpfs");
    let layer = scene.dir().join("layer").display().to_string();
    mount(&["--bind", &layer], "bound");
    fs::write(volume.join("tmpfs/f"), "f\n").unwrap();
    for engine in Engine::RUNTIMES {
        let disk = rig.overlay(Style::Docker, &format!("{engine:?}"));
        let bundle = rig.bundle(engine, &disk.root);
        bind(&bundle, &volume, "/v", &["rbind"]);
        bind(&bundle, &volume, "/w", &["rbind", "ro"]);
        let mut container = Container::of_bundle(bundle);
        let said = shell(
            &mut container,
            "for top in /v /w; do b cat $top/tmpfs/f; b stat -c %u $top/bound/home/u/f; done
             b touch /w/x 2>/dev/null || b echo read-only",
        );
        assert_eq!(said, "f\n1000\nf\n1000\nread-only\n", "{engine:?}");
    }
    for name in ["tmpfs", "bound"] {
        Ran::run(Command::new("umount").arg(volume.join(name))).ok();
    }
    daemon.end();
}

#[track_caller]
pub(super) fn shared_scene() -> support::Scene {
    support::Scene::with_shared_mounts(env!("CARGO_BIN_EXE_eci-fs"))
}

#[test]
fn privileged_a_volume_that_cannot_be_mapped_is_refused_where_that_is_set() {
    let scene = scene();
    let rig = Rig::new(
        &scene,
        "unmapped-volumes = 'refuse'\nallowed-mounts = ['/sys/devices']\n",
    );
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bind(&bundle, &disk.root.join("srv"), "/v", &["rbind"]);
    bundle
        .run()
        .refused(&["eci-runc: isolation: ", "merged/srv", "unmapped-volumes"]);
    // What belongs to the kernel is no volume.
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bind(&bundle, Path::new("/sys/devices"), "/v", &["rbind", "ro"]);
    bundle.program(&["/bin/busybox", "ls", "/v/system"]);
    assert!(bundle.run().ok().contains("cpu"));
    // A source that is missing is named.
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bind(&bundle, Path::new("/nonexistent"), "/v", &["rbind"]);
    let ran = bundle.run();
    assert!(
        ran.code != Some(0) && ran.stderr.contains("/nonexistent"),
        "{ran:?}"
    );
    assert_eq!(
        bundle.config()["root"]["path"],
        Value::from(disk.root.to_str())
    );
    drop(bundle);
    daemon.end();
}
