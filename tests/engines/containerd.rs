//! containerd: by `ctr`, which names the program of the runtime.

use support::engines::IMAGE;

use crate::host::Host;
use crate::scene;
use crate::views::{SHOW, show_limits};

/// 128 MiB and half a CPU.
const LIMITS: [&str; 6] = [
    "--memory-limit",
    "134217728",
    "--cpu-quota",
    "50000",
    "--cpu-period",
    "100000",
];

/// How `ctr run` is told which runtime to use and where the container's cgroup is to be.
fn run<'a>(how: &'a str, program: &'a str, cgroup: &'a str) -> [&'a str; 6] {
    ["run", how, "--runc-binary", program, "--cgroup", cgroup]
}

#[test]
fn privileged_a_container_of_ctr_sees_its_limits_and_leaves_nothing() {
    let scene = scene();
    let host = Host::new(&scene);
    let containerd = host.containerd(&[]);
    let before = host.left(containerd.cgroup());
    let program = host.program("eci-runc");
    let cgroup = format!("{}/one", containerd.cgroup().path());
    let run = run("--rm", &program, &cgroup);
    for options in [&[][..], &["--privileged"], &["--read-only"]] {
        let command = [&run[..], &LIMITS, options, &[IMAGE, "one"], &SHOW].concat();
        show_limits(&containerd.ctr(&command).ok(), 128, 1);
        host.is_as(&before, containerd.cgroup(), &format!("{options:?}"));
    }
}

#[test]
fn privileged_what_ctr_executes_in_a_running_container_sees_the_limits() {
    let scene = scene();
    let host = Host::new(&scene);
    let containerd = host.containerd(&[]);
    let before = host.left(containerd.cgroup());
    let program = host.program("eci-runc");
    let cgroup = format!("{}/one", containerd.cgroup().path());
    let run = run("--detach", &program, &cgroup);
    let command = [&run[..], &LIMITS, &[IMAGE, "one", "sleep", "1000"]].concat();
    containerd.ctr(&command).ok();
    let exec = ["tasks", "exec", "--exec-id", "two", "one"];
    let said = containerd.ctr(&[&exec[..], &SHOW].concat()).ok();
    show_limits(&said, 128, 1);
    assert_eq!(host.attached().len(), 1);
    containerd.ctr(&["tasks", "delete", "--force", "one"]).ok();
    containerd.ctr(&["containers", "delete", "one"]).ok();
    host.is_as(&before, containerd.cgroup(), "");
}
