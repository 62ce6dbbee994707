//! Containers that cannot be isolated.

use serde_json::{Value, json};
use support::{Bundle, Engine, Limits};

use super::rig::{Rig, Style, mounts};
use crate::runtime::Wrapper;
use crate::scene;

#[test]
fn privileged_what_cannot_be_isolated_is_refused_with_the_reason_and_the_setting() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let before = mounts();
    let refused = |change: &dyn Fn(&mut Value), words: &[&str]| {
        let bundle = rig.bundle(Engine::Runc, &disk.root);
        bundle.change(change);
        bundle
            .run()
            .refused(&[&["eci-runc: isolation: "], words].concat());
        assert_eq!(mounts(), before, "{words:?}");
    };
    let without = |kind: &'static str| {
        move |config: &mut Value| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != kind);
        }
    };
    for kind in ["pid", "network", "ipc", "uts"] {
        refused(&without(kind), &[kind, "host-namespaces"]);
    }
    refused(&without("mount"), &["mount namespace"]);
    let engines_network = |config: &mut Value| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = json!("/proc/1/ns/net");
            }
        }
    };
    refused(
        &engines_network,
        &["network", "--userns=auto", "hostUsers: false"],
    );
    refused(
        &|config| config["process"]["user"]["uid"] = json!(70_000),
        &["70000", "65535"],
    );
    let annotated =
        |config: &mut Value| config["annotations"] = json!({ "eci-fs.isolate": "false" });
    refused(&annotated, &["eci-fs.isolate", "opt-out"]);
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    let dir = bundle.dir().to_str().unwrap();
    for (words, what) in [
        (&["run", "--no-pivot", "--bundle", dir][..], "--no-pivot"),
        (&["run", "--no-p", "--bundle", dir], "--no-pivot"),
        (&["restore", "--bundle", dir], "checkpoint"),
        (&["run", "--bundle", "/nonexistent"], "/nonexistent"),
    ] {
        let words = [words, &[bundle.name()]].concat();
        let ran = support::Ran::run(&mut bundle.runtime(&words));
        ran.refused(&["isolation", what]);
        assert_eq!(mounts(), before, "{what}");
    }
    drop(bundle);
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bundle.change(|config| config["mounts"][0]["Source"] = json!("/etc"));
    bundle
        .run()
        .refused(&["eci-runc: ", r#""Source" is written "source""#]);
    drop(bundle);
    let inside = disk.root.join("srv");
    refused(
        &|config| config["root"]["path"] = json!(inside),
        &["srv", "overlay", "ext4"],
    );
    daemon.end();
}

#[test]
fn privileged_a_container_that_shares_with_the_host_is_left_alone_where_that_is_set() {
    let scene = scene();
    let rig = Rig::new(&scene, "host-namespaces = 'leave-alone'\n");
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bundle.change(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "uts");
        config.as_object_mut().unwrap().remove("hostname");
    });
    bundle.program(&["/bin/busybox", "cat", "/proc/self/uid_map"]);
    assert!(bundle.run().ok().contains("4294967295"));
    let log = std::fs::read_to_string(scene.runtime_dir().join("hook.log")).unwrap();
    assert!(
        log.contains("is not isolated") && log.contains("uts"),
        "{log}"
    );
    drop(bundle);
    daemon.end();
}

#[test]
fn privileged_without_a_daemon_no_isolated_container_starts_whatever_errors_of_views_do() {
    let scene = scene();
    // The table of hooks comes first in the configuration.
    let wrapper = Wrapper::new(&scene, "on-error = 'ignore'\n[isolation]\nenabled = true\n");
    let mut bundle = Bundle::new(&scene, Engine::Runc, &Limits::default(), false);
    let words = wrapper.words(Engine::Runc);
    bundle.wrap(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let ran = bundle.run();
    assert!(ran.code != Some(0), "{ran:?}");
    let words = "isolation: no eci-mountd is listening";
    assert!(ran.stderr.contains(words), "{ran:?}");
}
