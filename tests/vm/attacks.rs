//! What an isolated container with all capabilities gets, with each kernel: by attempts on its locked mounts, and by calls that
//! would reach the host.

use std::process::Command;

use serde_json::{Value, json};
use support::promises::reached_as_documented;
use support::{Ran, Scene};
use xtask::vm::Kernel;

use crate::isolation::{Given, RUNTIMES, configuration, run};

/// The functions that make the attempts.
const SCRIPT: &str = include_str!("isolation_attacks.sh");

/// What the kernel says to root of the host, who may do all of this and changes nothing.
const ALLOWED: [(&str, &str); 12] = [
    ("swapoff", "ENOENT"),
    ("acct", "ENOENT"),
    ("settimeofday", "done"),
    ("clock_settime", "EINVAL"),
    ("adjtimex", "EINVAL"),
    ("syslog CONSOLE_LEVEL", "EINVAL"),
    ("delete_module", "ENOENT"),
    ("kexec_load", "EINVAL"),
    ("bpf MAP_CREATE", "done"),
    ("mknod block", "done"),
    ("open /proc/sysrq-trigger", "done"),
    ("kill", "done"),
];

#[test]
#[ignore = "cargo xtask full"]
fn privileged_no_attack_on_a_container_succeeds_with_linux_6_1() {
    attacked(Kernel::V6_1, &[0, 1]);
}

#[test]
#[ignore = "cargo xtask full"]
fn privileged_no_attack_on_a_container_succeeds_with_linux_6_12() {
    attacked(Kernel::V6_12, &[0, 1]);
}

#[test]
#[ignore = "cargo xtask full"]
fn privileged_no_attack_on_a_container_succeeds_with_the_newest_kernel() {
    attacked(Kernel::Sid, &[2, 3]);
}

/// Attacks containers of the runtimes with these numbers.
#[track_caller]
fn attacked(kernel: Kernel, numbers: &[usize]) {
    let (count, files) = prepared();
    let tried = numbers.iter().map(|number| RUNTIMES[*number]);
    let lines = tried
        .clone()
        .map(|(label, path)| format!("reach {label} {path}\nattacks {label} {path}\n"));
    let given = Given {
        programs: &["runc", "crun"],
        files: &files,
        engines: false,
    };
    let (lines, said) = run(
        kernel,
        &format!("{SCRIPT}\n{}", lines.collect::<String>()),
        &given,
    );
    for (label, _) in tried {
        let held = format!("{label} held: {count}");
        assert!(lines.contains(&held), "{held}: {said}");
        for name in ["umount-detach", "bind-proc", "proc"] {
            let got = format!("{label} without locks: {name}");
            assert!(lines.contains(&got), "{got}: {said}");
        }
        let answers = |what: &str| {
            let line = lines
                .iter()
                .find_map(|line| line.strip_prefix(&format!("{label} {what}: ")));
            match line.map(serde_json::from_str::<Value>) {
                Some(Ok(answers)) => answers["ok"].clone(),
                other => panic!("{label} {what}: {other:?}: {said}"),
            }
        };
        reached_as_documented(&answers("reached"), label);
        // The attempts are such that they tell a permission from a refusal.
        let host = answers("without a container");
        for (attempt, answer) in ALLOWED {
            assert_eq!(host[attempt], answer, "{host}");
        }
    }
}

/// Returns the number of attempts, and the configurations of the containers that make them.
#[track_caller]
fn prepared() -> (usize, [(&'static str, String); 3]) {
    // The one of the machine comes later.
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let probe = scene.root().join("bin/probe");
    let names = Ran::run(Command::new(probe).arg("breaches")).ok();
    let names: Value = match serde_json::from_str(&names) {
        Ok(names) => names,
        Err(error) => panic!("{names}: {error}"),
    };
    let breach = ["/bin/probe", "breach", "@ATTEMPT@"];
    let reach = ["/bin/probe", "reach", "@PID@", "/cgroup/other", "@KEY@"];
    let mut reach = armed(&scene, &reach, true);
    reach["root"]["readonly"] = json!(false);
    let files = [
        ("bare.json", armed(&scene, &breach, true).to_string()),
        ("hidden.json", armed(&scene, &breach, false).to_string()),
        ("reach.json", reach.to_string()),
    ];
    (names["ok"].as_array().map_or(0, Vec::len), files)
}

/// The configuration of a container with all capabilities and a read-only volume at /vol. One that is bare has no masks and
/// no read-only paths.
#[track_caller]
fn armed(scene: &Scene, program: &[&str], bare: bool) -> Value {
    let mut config = configuration(scene);
    let all: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    let names = json!(all);
    config["process"]["args"] = json!(program);
    config["process"]["capabilities"] =
        json!({ "bounding": names, "effective": names, "permitted": names });
    config["root"]["readonly"] = json!("@READONLY@");
    if bare {
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        config["mounts"][2]["options"] = json!(["nosuid", "noexec", "nodev"]);
    }
    let mount = |destination: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": "bind", "source": source, "options": options });
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(mount("/vol", "/disk/volume", &["rbind", "ro"]));
        mounts.push(mount("/v", "/disk/volume", &["rbind"]));
        mounts.push(mount("/cgroup", "/sys/fs/cgroup", &["rbind"]));
    }
    config
}
