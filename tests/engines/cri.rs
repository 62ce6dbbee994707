//! containerd as a kubelet uses it: pods, whose runtime is named by a RuntimeClass.

use std::process::Command;

use support::engines::{Containerd, IMAGE};
use support::{Ran, find_program};

use crate::host::Host;
use crate::scene;
use crate::views::{SHOW, show_limits, show_the_machine};

/// Says something to containerd as a kubelet does.
pub(crate) fn cri(containerd: &Containerd, arguments: &[&str]) -> Ran {
    // Debian's, whose grpc is asked for, and not one that comes first in PATH.
    let python = match std::path::Path::new("/usr/bin/python3") {
        debian if debian.exists() => debian.to_owned(),
        _ => find_program("python3"),
    };
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/cri.py"));
    Ran::run(command.arg(containerd.socket()).args(arguments))
}

/// A pod with one container: the ids of both.
#[track_caller]
fn run(containerd: &Containerd, handler: &str) -> (String, String) {
    let cgroup = containerd.cgroup().path();
    let ids = cri(containerd, &["run", handler, IMAGE, cgroup]).ok();
    let (pod, container) = ids.trim().split_once(' ').unwrap();
    (pod.to_owned(), container.to_owned())
}

#[test]
fn privileged_a_pod_of_the_runtime_class_sees_its_limits_and_leaves_nothing() {
    let scene = scene();
    let host = Host::new(&scene);
    let containerd = host.containerd(&[]);
    let before = host.left(containerd.cgroup());
    let (pod, container) = run(&containerd, "eci");
    let show = [&["exec", &container], &SHOW[..]].concat();
    show_limits(&cri(&containerd, &show).ok(), 128, 1);
    // The pause container has its views too.
    assert_eq!(host.attached().len(), 2);
    cri(&containerd, &["limit", &container, "201326592"]).ok();
    show_limits(&cri(&containerd, &show).ok(), 192, 1);
    let ran = cri(&containerd, &["exec", &container, "sh", "-c", "exit 9"]);
    assert_eq!(ran.code, Some(9), "{ran:?}");
    cri(&containerd, &["end", &pod]).ok();
    host.is_as(&before, containerd.cgroup(), "");
}

#[test]
fn privileged_a_pod_of_no_runtime_class_sees_the_machine_unless_ours_is_the_default() {
    let scene = scene();
    let host = Host::new(&scene);
    for default in [false, true] {
        let option = ["--default-runtime"];
        let options: &[&str] = if default { &option } else { &[] };
        let containerd = host.containerd(options);
        let (pod, container) = run(&containerd, "");
        let said = cri(&containerd, &[&["exec", &container], &SHOW[..]].concat()).ok();
        if default {
            show_limits(&said, 128, 1);
        } else {
            show_the_machine(&said);
        }
        cri(&containerd, &["end", &pod]).ok();
    }
}
