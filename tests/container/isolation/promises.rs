//! What isolation promises, for containers of each runtime that have all capabilities, and what such a container reaches of
//! the host and of another container.

use std::fs;

use serde_json::json;
use support::promises::{PROMISES, SHELL, cgroup_of, cgroups, reached_as_documented};
use support::{Container, Engine};

use super::locked::{all_capabilities, arm, disk, volume};
use super::rig::{Rig, first_id};
use crate::scene;

/// A container as `--privileged` makes it: all capabilities, the devices of the host, and all cgroups as a volume.
#[track_caller]
fn start(rig: &Rig<'_>, engine: Engine, name: &str) -> Container {
    let disk = disk(rig, &format!("{engine:?}{name}"));
    let bundle = rig.bundle(engine, &disk.root);
    arm(&bundle, &volume(rig.scene));
    let shared = rig.scene.dir().join("shared");
    fs::create_dir_all(&shared).unwrap();
    bundle.change(|config| {
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        let node = |path: &str, kind: &str, numbers: (u32, u32)| {
            json!({
                "path": path, "type": kind, "major": numbers.0, "minor": numbers.1, "fileMode": 0o640, "uid": 0, "gid": 0,
            })
        };
        config["linux"]["devices"] = json!([
            node("/dev/disk0", "b", (7, 0)),
            node("/dev/mem", "c", (1, 1)),
            node("/dev/kmsg", "c", (1, 11)),
            node("/dev/kvm", "c", (10, 232)),
        ]);
        config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        for mount in mounts.iter_mut() {
            if mount["destination"] == "/sys" {
                mount["options"] = json!(["nosuid", "noexec", "nodev"]);
            }
        }
        for (destination, source) in [("/v", shared.to_str().unwrap()), ("/cgroup", cgroups())] {
            mounts.push(json!({
                "destination": destination, "type": "bind", "source": source, "options": ["rbind"]
            }));
        }
    });
    Container::of_bundle(bundle)
}

#[track_caller]
fn hold(engine: Engine) {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let daemon = scene.daemon(&[]);
    let (mut one, mut two) = (start(&rig, engine, "one"), start(&rig, engine, "two"));
    let capabilities = one.read("/proc/self/status");
    assert!(all_capabilities().len() > 30, "{capabilities}");
    assert!(first_id(&mut one).abs_diff(first_id(&mut two)) >= 65_536);
    for (promise, script, wanted) in PROMISES {
        let script = format!("PATH=/bin\n{script}");
        let ran = one.try_run(&[SHELL, &[&script]].concat());
        assert_eq!(ran.stdout, *wanted, "{engine:?}: {promise}: {ran:?}");
    }
    // What one has written is its own.
    let panic = fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    one.ask(&["write", "/proc/sys/kernel/panic", "77"]);
    assert_eq!(one.read("/proc/sys/kernel/panic"), "77\n");
    assert_eq!(two.read("/proc/sys/kernel/panic"), panic);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/panic").unwrap(), panic);
    // Owners on a volume are the same for both.
    one.busybox(&["touch", "/v/file"]);
    one.busybox(&["chown", "1000:42", "/v/file"]);
    let owners = two.busybox(&["stat", "-c", "%u:%g", "/v/file"]);
    assert_eq!(owners, "1000:42\n", "{engine:?}");

    let (pid, key) = (two.pid().to_string(), two.ask(&["add-key"]).to_string());
    let cgroup = format!("/cgroup{}", cgroup_of(two.pid()));
    assert!(
        !two.busybox(&["cat", &format!("{cgroup}/cgroup.procs")])
            .is_empty()
    );
    let said = one.ask(&["reach", &pid, &cgroup, &key]);
    reached_as_documented(&said, &format!("{engine:?}"));
    // Nothing has happened to the other one.
    assert_eq!(two.read("/proc/sys/kernel/panic"), panic);
    drop((one, two));
    daemon.end();
}

#[test]
fn privileged_the_promises_of_isolation_hold_for_containers_of_runc() {
    hold(Engine::Runc);
}

#[test]
fn privileged_the_promises_of_isolation_hold_for_containers_of_crun() {
    hold(Engine::Crun);
}

#[test]
fn privileged_the_promises_of_isolation_hold_for_containers_of_youki() {
    hold(Engine::Youki);
}
