//! OCI runtimes of this machine's release and of Debian's newest: settings of namespaces that they write, and
//! containers in a container.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Bundle, Container, Engine, Limits, Ran};
use xtask::vm::newer_runtimes;

use crate::machine::{Files, Machine};
use crate::scene;

/// Settings that a container has for itself, none of which is what a new namespace has.
const SYSCTLS: &[(&str, &str)] = &[
    ("kernel.shm_rmid_forced", "1"),
    ("kernel.msgmax", "12345"),
    ("fs.mqueue.msg_max", "20"),
    ("fs.mqueue.queues_max", "300"),
    ("net.core.somaxconn", "4242"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.ping_group_range", "0\t1000"),
];

fn path_of(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

fn sysctls() -> Value {
    SYSCTLS
        .iter()
        .copied()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The /usr of this machine, and one with the newest runtimes.
fn releases() -> [PathBuf; 2] {
    let newest = newer_runtimes();
    ["/usr".into(), newest.unwrap().join("usr")]
}

#[test]
fn privileged_old_and_new_runtimes_write_the_settings_of_attached_containers() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let [this, newest] = releases();
    // youki is no package of a release.
    let of_debian = [Engine::Runc, Engine::Crun];
    for (usr, engines) in [(this, &Engine::RUNTIMES[..]), (newest, &of_debian)] {
        for &engine in engines {
            for user in [false, true] {
                let mut bundle = Bundle::new(&scene, engine, &Limits::default(), user);
                bundle.hook(&scene, &[]);
                bundle.change(|config| config["linux"]["sysctl"] = sysctls());
                let usr = usr.display().to_string();
                let script = r#"mount --bind "$0" /usr && exec "$@""#;
                let unshare = ["unshare", "--mount", "sh", "-c", script, &usr];
                bundle.wrap(&[&unshare[..], &engine.words()].concat());
                let mut container = Container::of_bundle(bundle);
                assert!(!container.grafts().is_empty());
                for (name, value) in SYSCTLS {
                    let text = container.read(&path_of(name));
                    assert_eq!(
                        text,
                        format!("{value}\n"),
                        "{usr} {engine:?} {user}: {name}"
                    );
                }
            }
        }
    }
    daemon.end();
}

/// A bundle of a container in the container, with a user namespace or without, that prints its settings.
fn inner(config: &Value, user: bool) -> Value {
    let mut config = config.clone();
    let linux = &mut config["linux"];
    linux["cgroupsPath"] = json!("/inner");
    linux["sysctl"] = sysctls();
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10_000 }]);
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    if !user {
        let linux = linux.as_object_mut().unwrap();
        linux.retain(|key, _| !key.ends_with("idMappings"));
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "user");
    }
    config["root"] = json!({ "path": "rootfs" });
    let names = SYSCTLS
        .iter()
        .map(|(name, _)| path_of(name))
        .collect::<Vec<_>>()
        .join(" ");
    let script = format!("cat {names} && head -n 1 /proc/meminfo");
    config["process"]["args"] = json!(["/bin/busybox", "sh", "-c", script]);
    config
}

/// Run a container in it.
#[track_caller]
fn run_inner(machine: &Machine, program: &str, user: bool) -> Ran {
    let config = inner(machine.first_config(), user).to_string();
    let script = r#"
        cd "$(mktemp -d)"
        chmod 755 .
        mkdir -p rootfs/bin rootfs/proc rootfs/sys rootfs/dev
        cp /bin/busybox rootfs/bin
        echo "$1" > config.json
        exec "$0" run inner"#;
    machine.run(&["busybox", "sh", "-euc", script, program, &config])
}

#[test]
fn privileged_old_and_new_runtimes_run_containers_in_a_container_as_without_eci_fs() {
    let scene = scene();
    let start = |files: Files, usr: &Path| {
        Machine::start(&scene, files, usr, &["busybox", "sleep", "100000"], &[])
    };
    for usr in releases() {
        let machines = [start(Files::Kernels, &usr), start(Files::Grafted, &usr)];
        for program in ["runc", "crun"] {
            for user in [false, true] {
                same(&machines, program, user);
            }
        }
    }
}

/// Assert that an inner container runs in both machines, and has its settings.
#[track_caller]
fn same(machines: &[Machine; 2], program: &str, user: bool) {
    let [without, with] = [&machines[0], &machines[1]].map(|machine| {
        let ran = run_inner(machine, program, user);
        (ran.code, ran.stdout, ran.stderr)
    });
    assert_eq!(with, without, "{program} {user}");
    let values: String = SYSCTLS
        .iter()
        .map(|(_, value)| format!("{value}\n"))
        .collect();
    assert!(
        with.0 == Some(0) && with.1.starts_with(&values),
        "{program} {user}: {with:?}"
    );
}
