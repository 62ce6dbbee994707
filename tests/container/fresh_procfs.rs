//! Containers that mount a procfs of their own: `list` and `doctor` say which can, and the kernel decides the same.

use serde_json::{Value, json};
use support::{Bundle, Container, Engine, Limits, Scene, number_after};

use crate::{limits, scene};

/// Mounts a procfs in a mount namespace of its own, so that nothing of it stays, and reads it.
const MOUNT: &str = "busybox mount -t proc proc /proc && busybox head -n 1 /proc/meminfo";

/// The same in the user namespace of the container, and in one that it makes.
const WAYS: [(&str, &str); 2] = [
    ("yes", "busybox unshare --mount busybox sh -c"),
    (
        "in-user-namespace",
        "busybox unshare --user --map-root-user --mount --pid --fork busybox sh -c",
    ),
];

fn bundle(scene: &Scene, engine: Engine, user: bool, capable: bool, masked: bool) -> Bundle {
    let bundle = Bundle::new(scene, engine, &Limits::default(), user);
    bundle.change(|config| {
        // Without CAP_SETFCAP nobody maps a root to another.
        let mut may = vec!["CAP_KILL", "CAP_SETFCAP"];
        may.extend(capable.then_some("CAP_SYS_ADMIN"));
        config["process"]["capabilities"] =
            json!({ "bounding": may, "effective": may, "permitted": may });
        if !masked {
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        }
    });
    bundle
}

/// What the kernel lets a container do. If it mounts a procfs, that shows the memory of the host.
#[track_caller]
fn tried(container: &mut Container) -> &'static str {
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    for (word, way) in WAYS {
        let ran = container.try_run(&["/bin/busybox", "sh", "-c", &format!("{way} '{MOUNT}'")]);
        if ran.code == Some(0) {
            let total = number_after(&ran.stdout, "MemTotal:");
            assert_eq!(total, number_after(&host, "MemTotal:"), "{ran:?}");
            return word;
        }
    }
    "no"
}

/// What the list says of the only container.
#[track_caller]
fn listed(scene: &Scene) -> Value {
    let list = scene.list();
    assert_eq!(list.len(), 1);
    list[0]["fresh_procfs"].clone()
}

#[test]
fn privileged_the_list_says_which_containers_can_mount_a_procfs_and_the_kernel_agrees() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        for (user, capable, masked) in [
            (false, false, true),
            (false, false, false),
            (false, true, true),
            (false, true, false),
            (true, false, true),
            (true, false, false),
            (true, true, true),
            (true, true, false),
        ] {
            let bundle = bundle(&scene, engine, user, capable, masked);
            let mut container = Container::of_bundle(bundle);
            scene.attach(&container);
            let real = tried(&mut container);
            let said = listed(&scene);
            let case = format!("{engine:?} {user} {capable} {masked}: {said}");
            assert_eq!(said["can"], real, "{case}");
            // Whether the masks are locked cannot be seen from outside.
            let unless = match (user, capable, masked) {
                (true, true, true) => json!(["locked-mounts"]),
                _ => Value::Null,
            };
            assert_eq!(said["unless"], unless, "{case}");
            scene.detach(&container);
        }
    }
    daemon.end();
}

#[test]
fn privileged_the_list_says_that_a_seccomp_filter_may_forbid_it() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let bundle = bundle(&scene, Engine::Runc, false, true, false);
    bundle.change(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mount", "fsopen"], "action": "SCMP_ACT_ERRNO" }],
        });
    });
    let mut container = Container::of_bundle(bundle);
    scene.attach(&container);
    assert_eq!(tried(&mut container), "no");
    let wanted = json!({ "can": "yes", "unless": ["seccomp"] });
    assert_eq!(listed(&scene), wanted);
    let words = scene.eci_fs(&["list"]).ok();
    assert!(words.lines().next().unwrap().contains("FRESH PROCFS"));
    assert!(words.contains(" yes?"), "{words}");
    drop(container);
    daemon.end();
}

#[test]
fn privileged_doctor_names_the_containers_that_see_more_of_the_host() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let can = Container::of_bundle(bundle(&scene, Engine::Crun, false, true, true));
    let nested = Container::of_bundle(bundle(&scene, Engine::Crun, false, false, false));
    let cannot = Container::of_bundle(bundle(&scene, Engine::Crun, false, false, true));
    let timed = scene.container().limits(limits(128, 1.0)).start();
    for container in [&can, &nested, &cannot, &timed] {
        scene.attach(container);
    }
    let said = scene.eci_fs(&["doctor", "--json"]);
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    let notes: Vec<&str> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["state"] == "note")
        .filter_map(|finding| finding["says"].as_str())
        .collect();
    let named = |words: &str| {
        let mut found = notes.iter().filter(|note| note.contains(words));
        let note = found.next().copied().unwrap_or_default().to_owned();
        assert_eq!(found.next(), None);
        move |container: &Container| note.contains(&format!("pid-{}", container.pid()))
    };
    let is_named = named("these containers can mount a procfs, which");
    assert!(is_named(&can) && !is_named(&nested) && !is_named(&cannot));
    let is_named = named("in a user namespace that they make");
    assert!(!is_named(&can) && is_named(&nested) && !is_named(&cannot));
    let is_named = named("have no time namespace");
    assert!(is_named(&can) && is_named(&nested) && is_named(&cannot));
    drop((can, nested, cannot, timed));
    daemon.end();
}
