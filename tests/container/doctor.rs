//! `eci-fs doctor`: its findings on this host, and on one with missing parts.

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Ran, Scene};

use crate::scene;

/// A root with our programs and without engines' configurations.
fn root(scene: &Scene) -> PathBuf {
    let root = scene.dir().join("machine");
    let bin = root.join("usr/bin");
    std::fs::create_dir_all(&bin).unwrap();
    for name in ["eci-fs", "eci-runc"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_eci-fs"), bin.join(name)).unwrap();
    }
    root
}

fn doctor(scene: &Scene, root: &Path) -> (Ran, Value) {
    let root = root.to_string_lossy();
    let ran = scene.eci_fs(&["doctor", "--json", "--root", &root]);
    let json = serde_json::from_str(&ran.stdout).unwrap();
    (ran, json)
}

fn install(scene: &Scene, root: &Path, engine: &str) {
    let root = root.to_string_lossy();
    let install = [
        "install",
        "--engine",
        engine,
        "--root",
        &root,
        "--bin-dir",
        "/usr/bin",
    ];
    scene.eci_fs(&install).ok();
}

/// What is wrong.
fn wrong(json: &Value) -> Vec<String> {
    let all = json["findings"].as_array().unwrap().iter();
    all.filter(|finding| finding["state"] == "wrong")
        .map(|finding| {
            format!(
                "{}: {}; {}",
                finding["part"], finding["says"], finding["remedy"]
            )
        })
        .collect()
}

fn says(json: &Value, words: &str) -> bool {
    let mut all = json["findings"].as_array().unwrap().iter();
    all.any(|finding| finding["says"].as_str().unwrap().contains(words))
}

#[test]
fn privileged_a_machine_that_has_what_it_takes_is_well_and_a_container_proves_it() {
    let scene = scene();
    let (ran, json) = doctor(&scene, &root(&scene));
    assert_eq!(wrong(&json), Vec::<String>::new());
    assert_eq!(ran.code, Some(0));
    assert_eq!(json["ok"], true);
    for words in [
        "/dev/fuse",
        "pidfd_open",
        "the controller memory",
        "can be ID-mapped, with an overlay on them",
        "of 65536 ids for containers",
        "a user namespace with ids of its own can be made",
        "runc ",
        "sees MemTotal: 65536 kB",
    ] {
        assert!(says(&json, words), "{words}: {json:#}");
    }
    assert!(says(&json, "does not use eci-fs"), "{json:#}");
    let text = scene.eci_fs(&["doctor"]).ok();
    assert!(text.starts_with("kernel\n  ok "), "{text}");
    assert!(text.contains("-> eci-fs install --engine docker"), "{text}");
}

#[test]
fn privileged_an_engine_that_would_call_in_vain_is_found() {
    let scene = scene();
    let root = root(&scene);
    for engine in ["docker", "podman"] {
        install(&scene, &root, engine);
    }
    let (ran, json) = doctor(&scene, &root);
    assert_eq!(ran.code, Some(1));
    assert_eq!(wrong(&json).len(), 1, "{json:#}");
    assert!(
        wrong(&json)[0].contains("no eci-mountd is running"),
        "{json:#}"
    );

    let daemon = scene.daemon(&[]);
    let (ran, json) = doctor(&scene, &root);
    assert_eq!(wrong(&json), Vec::<String>::new());
    assert_eq!(ran.code, Some(0));
    assert!(says(&json, "uses eci-fs for every container"), "{json:#}");
    assert!(
        says(&json, "for containers that name the runtime eci"),
        "{json:#}"
    );

    std::fs::remove_file(root.join("usr/bin/eci-runc")).unwrap();
    let (ran, json) = doctor(&scene, &root);
    assert_eq!(ran.code, Some(1));
    assert!(
        wrong(&json)[0].contains("/usr/bin/eci-runc, which is no program"),
        "{json:#}"
    );
    std::fs::write(root.join("etc/docker/daemon.json"), "{").unwrap();
    let (_, json) = doctor(&scene, &root);
    assert!(
        wrong(&json)[0].contains("daemon.json: this is no JSON"),
        "{json:#}"
    );
    drop(daemon);
}
