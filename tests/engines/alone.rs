//! Engines without eci-fs: containers run, and the host is unchanged afterwards. If these tests pass, a failure of
//! another test is the fault of eci-fs.

use serde_json::json;
use support::engines::{CommandLine, Containerd, Docker, IMAGE, Podman};

use crate::scene;

/// What a container says that has a limit of 128 MiB and half a CPU.
const LIMIT: &str =
    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";

#[test]
fn privileged_docker_runs_a_container() {
    let scene = scene();
    let docker = Docker::start(&scene, &json!({}));
    let options = ["--rm", "--memory", "128m", "--cpus", "0.5"];
    let said = docker.run(&options, &["sh", "-c", LIMIT]).ok();
    assert_eq!(said, "134217728\n");
}

#[test]
fn privileged_podman_runs_a_container() {
    let scene = scene();
    let podman = Podman::start(&scene, None);
    let options = ["--rm", "--memory", "128m", "--cpus", "0.5"];
    let said = podman.run(&options, &["sh", "-c", LIMIT]).ok();
    assert_eq!(said, "134217728\n");
    let auto = ["--rm", "--userns=auto:size=65536"];
    let map = podman.run(&auto, &["cat", "/proc/self/uid_map"]).ok();
    assert_eq!(
        map.split_whitespace().collect::<Vec<_>>(),
        ["0", "200000", "65536"]
    );
}

#[test]
fn privileged_containerd_runs_a_container() {
    let scene = scene();
    let config = scene.dir().join("config.toml");
    std::fs::write(&config, Containerd::config(&scene)).unwrap();
    let containerd = Containerd::start(&scene, &config);
    let cgroup = format!("{}/one", containerd.cgroup().path());
    let run = [
        "run",
        "--rm",
        "--memory-limit",
        "134217728",
        "--cgroup",
        &cgroup,
    ];
    let said = containerd.ctr(
        &[
            &run[..],
            &[IMAGE, "one", "sh", "-c", "grep memory /proc/self/cgroup"],
        ]
        .concat(),
    );
    assert!(said.ok().contains("/one"));
}
