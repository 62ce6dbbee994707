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
