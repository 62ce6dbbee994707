//! The effects of a container's annotations.

use serde_json::{Value, json};
use support::{Container, Engine};

use super::{hooked, said};
use crate::{scene, sees, sees_the_host};

#[test]
fn privileged_annotations_choose_what_the_host_allows() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let start = |annotations: Value| {
        let bundle = hooked(&scene, Engine::Crun, false);
        bundle.change(|config| config["annotations"] = annotations);
        bundle
    };
    let mut off = Container::of_bundle(start(json!({ "eci-fs.enabled": "false" })));
    sees_the_host(&mut off);
    drop(off);
    let some = start(json!({ "eci-fs.views": "/proc/meminfo,/proc/stat" }));
    let some = Container::of_bundle(some);
    let mut grafts = some.grafts();
    grafts.sort();
    assert_eq!(grafts, ["/proc/meminfo", "/proc/stat"]);
    drop(some);
    let bad = start(json!({ "eci-fs.freshness": "soon" }));
    let ran = bad.run();
    assert_eq!(ran.code, Some(255), "{ran:?}");
    let error = said(&scene, Engine::Crun, &ran);
    assert!(error.contains("eci-fs.freshness"), "{error}");
    drop(bad);
    let config = scene.dir().join("config.toml");
    std::fs::write(&config, "[hook]\nallow = []\n").unwrap();
    let option = ["--config", config.to_str().unwrap()];
    let refused = start(json!({ "eci-fs.enabled": "false" }));
    refused.hook(&scene, &option);
    let ran = refused.run();
    let error = said(&scene, Engine::Crun, &ran);
    assert!(error.contains("eci-fs.enabled is not one"), "{error}");
    // Going on after that is going on with all views: nobody comes by the host's figures so.
    refused.hook(&scene, &[&option[..], &["--on-error", "ignore"]].concat());
    sees(&mut Container::of_bundle(refused), 192, 1);
    daemon.end();
}

#[test]
fn privileged_a_container_chooses_what_its_quota_does_to_its_cpus() {
    let scene = scene();
    let daemon = scene.daemon(&["--cpu-quota", "online"]);
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let all = support::cpu_list(&online).len();
    for (annotations, expected) in [
        (json!({}), 1),
        (json!({ "eci-fs.cpu-quota": "ignore" }), all),
        (json!({ "eci-fs.cpu-quota": "online" }), 1),
    ] {
        let bundle = hooked(&scene, Engine::Crun, false);
        bundle.change(|config| config["annotations"] = annotations);
        sees(&mut Container::of_bundle(bundle), 192, expected);
    }
    daemon.end();
}

#[test]
fn privileged_a_container_is_as_fresh_as_it_chose_and_stays_so_when_the_server_is_killed() {
    let scene = scene();
    // So long that nothing is refreshed while the test runs.
    let mut daemon = scene.daemon(&["--freshness", "3600000"]);
    let start = |annotations: Value| {
        let bundle = hooked(&scene, Engine::Crun, false);
        bundle.change(|config| config["annotations"] = annotations);
        Container::of_bundle(bundle)
    };
    let mut live = start(json!({ "eci-fs.freshness": "0", "eci-fs.cpu-ids": "dense" }));
    let mut old = start(json!({}));
    for _ in 0..2 {
        let (before, still) = (live.read("/proc/uptime"), old.read("/proc/uptime"));
        support::let_time_pass(std::time::Duration::from_millis(30));
        assert_ne!(live.read("/proc/uptime"), before);
        assert_eq!(old.read("/proc/uptime"), still);
        daemon.kill_server();
        daemon.wait_for("the server died");
        scene.list();
    }
    drop((live, old));
    daemon.end();
}
