//! containerd: by `ctr`, which names the program of the runtime.

use support::engines::IMAGE;

use crate::host::Host;
use crate::same::without_ids;
use crate::scene;
use crate::views::{SHOW, cpus_of, show_limits};

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
        show_limits(&containerd.ctr(&command).ok(), 128, cpus_of(options));
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

/// A mount of what is not there.
const NOWHERE: &str = "type=bind,src=/nonexistent/source,dst=/mnt,options=rbind:ro";

/// A script of `ctr`, each time with this program as the runtime; how each step ended and what it said.
fn transcript(host: &Host<'_>, program: &str) -> Vec<String> {
    let containerd = host.containerd(&[]);
    let cgroup = format!("{}/one", containerd.cgroup().path());
    let mut all = Vec::new();
    let mut note = |arguments: &[&str]| {
        let ran = containerd.ctr(arguments);
        let errors: String = ran.stderr.split_inclusive(' ').map(without_ids).collect();
        let said = format!("{:?} {:?} {errors:?}", ran.code, ran.stdout);
        all.push(said.replace(program, "PROGRAM"));
    };
    let foreground = run("--rm", program, &cgroup);
    for (options, command) in [
        (&[][..], &["true"][..]),
        (&[], &["sh", "-c", "echo out; echo err >&2; exit 42"]),
        (&[], &["sh", "-c", "kill -9 $$"]),
        (&[], &["no-such-program"]),
        (&[], &["sh", "-c", "head -c 3000 /dev/zero | tr '\\0' x"]),
        (
            &["--cwd", "/tmp", "--env", "A=b"],
            &["sh", "-c", "pwd; echo $A"],
        ),
        (&["--user", "65534:65534"], &["id"]),
        (&["--read-only"], &["sh", "-c", "echo >/file"]),
        (&["--privileged"], &["grep", "CapEff", "/proc/self/status"]),
        (&["--mount", NOWHERE], &["true"]),
    ] {
        note(&[&foreground[..], options, &[IMAGE, "one"], command].concat());
    }
    let detached = run("--detach", program, &cgroup);
    let ends = "trap 'exit 7' TERM; while :; do sleep 1 & wait $!; done";
    note(&[&detached[..], &[IMAGE, "one", "sh", "-c", ends]].concat());
    let exec = ["tasks", "exec", "--exec-id", "two", "one"];
    for command in [
        &["sh", "-c", "echo in; echo on >&2; exit 3"][..],
        &["no-such-program"],
    ] {
        note(&[&exec[..], command].concat());
    }
    for step in [
        &["tasks", "pause", "one"][..],
        &["tasks", "resume", "one"],
        &["tasks", "kill", "--signal", "SIGTERM", "one"],
    ] {
        note(step);
    }
    // It is told to end, and containerd hears of that a little after it has.
    while containerd.ctr(&["tasks", "list"]).ok().contains("RUNNING") {}
    for step in [
        &["tasks", "delete", "one"][..],
        &["containers", "delete", "one"],
        &["tasks", "delete", "one"],
    ] {
        note(step);
    }
    all
}

#[test]
fn privileged_ctr_behaves_as_without_eci_fs() {
    let scene = scene();
    let host = Host::new(&scene);
    let without = transcript(&host, &support::find_program("runc").display().to_string());
    let with = transcript(&host, &host.program("eci-runc"));
    for (without, with) in without.iter().zip(&with) {
        assert_eq!(without, with, "without eci-fs, and with it");
    }
    assert_eq!(without.len(), with.len());
}
