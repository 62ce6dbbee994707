//! Podman's own networks with containers that are isolated: podman makes the network before the container.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use support::engines::{CommandLine, IMAGE, Podman};
use support::{PATIENCE, Ran, Scene};

use crate::host::Host;
use crate::scene;

/// Takes the stage of the daemon away after it. A daemon that ends just after a container may take its range for used, and
/// leaves the stage to the next daemon.
struct Stage;

impl Drop for Stage {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        let _ = rustix::mount::unmount("/run/eci-fs/stage", flags);
    }
}

/// A podman whose runtime isolates, and the network namespace that it takes for the host's.
#[track_caller]
fn podman(host: &Host<'_>, scene: &Scene, runtime: &str) -> (Podman, PathBuf) {
    let config = scene.dir().join(format!("{runtime}.toml"));
    let text = format!("[runtime]\npath = '{runtime}'\n[isolation]\nenabled = true\n");
    fs::write(&config, text).unwrap();
    let flag = format!("--runtime-flag=eci-config={}", config.display());
    let wrapper = host.program("eci-runc");
    let podman = Podman::start(scene, None);
    podman.with(&["--runtime", &wrapper, &flag]).with_network()
}

#[track_caller]
fn in_network(network: &Path, words: &[&str]) -> Ran {
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net={}", network.display()));
    Ran::run(nsenter.args(words))
}

/// The interfaces and the files of namespaces that podman has made on the host.
#[track_caller]
fn left(network: &Path) -> (Vec<String>, Vec<String>) {
    let links = in_network(network, &["ip", "-o", "link"]).ok();
    let veths = links.lines().filter(|line| line.contains("veth"));
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = names.map(|entry| entry.path().display().to_string());
    (veths.map(str::to_owned).collect(), names.collect())
}

/// The networks that podman makes itself, by a runtime.
fn default_network(runtime: &str) {
    let scene = scene();
    let _stage = Stage;
    let host = Host::new(&scene);
    let (podman, network) = podman(&host, &scene, runtime);
    let serve = "while :; do echo hello | nc -l -p 80; done";
    let start = |name: &str, options: &[&str]| {
        let name = format!("--name={name}");
        let all = [&["--detach", &name], options].concat();
        podman.run(&all, &["sh", "-c", serve]).ok();
    };
    podman.run(&["--rm"], &["true"]).ok();
    let before = host.left(podman.cgroup());
    let nothing = left(&network);
    start(
        "one",
        &[
            "--publish=8080:80",
            "--cap-add=NET_RAW",
            "--sysctl=net.ipv4.ip_forward=0",
        ],
    );
    start("two", &[]);
    let exec = |name: &str, script: &str| podman.call(&["exec", name, "sh", "-ec", script]).ok();
    let address = |name: &str| {
        let format = "{{.NetworkSettings.IPAddress}}";
        let said = podman.call(&["inspect", "--format", format, name]).ok();
        said.trim().to_owned()
    };
    // The server answers one at a time.
    let get = |address: &str, port: &str| {
        let once = format!("busybox nc -w 5 {address} {port} </dev/null | grep hello");
        format!("n=0; until {once}; do n=$((n + 1)); test $n -lt 100; done")
    };
    let works = |what: &str| {
        let map = exec("one", "cat /proc/self/uid_map");
        assert!(map.contains(" 65536"), "{what}: {map}");
        assert_eq!(exec("one", "ls /sys/class/net"), "eth0\nlo\n", "{what}");
        exec("one", "ping -c1 -W5 10.88.0.1");
        for (from, to) in [("one", "two"), ("two", "one")] {
            assert_eq!(exec(from, &get(&address(to), "80")), "hello\n", "{what}");
        }
        let host = in_network(&network, &["sh", "-ec", &get("127.0.0.1", "8080")]);
        assert_eq!(host.ok(), "hello\n", "{what}");
    };
    works("started");
    assert_eq!(exec("one", "cat /proc/sys/net/ipv4/ip_forward"), "0\n");
    assert_eq!(
        podman.call(&["port", "one"]).ok(),
        "80/tcp -> 0.0.0.0:8080\n"
    );
    podman.call(&["network", "reload", "--all"]).ok();
    works("reloaded");
    podman.call(&["stop", "--time=1", "one"]).ok();
    podman.call(&["container", "cleanup", "one"]);
    // What the end of a container starts may still delete it, also without isolation. Then it cannot be started yet.
    let is_ending = |ran: &Ran| {
        let words = ["already exists", "has the ids of the container"];
        ran.code != Some(0) && words.iter().any(|words| ran.stderr.contains(words))
    };
    let begun = Instant::now();
    let mut started = podman.call(&["start", "one"]);
    while is_ending(&started) && begun.elapsed() < PATIENCE {
        started = podman.call(&["start", "one"]);
    }
    started.ok();
    works("stopped and started");
    // Another container on the same network has the same ids.
    let map = exec("one", "cat /proc/self/uid_map");
    let joined = [
        "run",
        "--rm",
        "--network=container:one",
        IMAGE,
        "cat",
        "/proc/self/uid_map",
    ];
    let joined = podman.call(
        &[
            &joined[..1],
            &["--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096"],
            &joined[1..],
        ]
        .concat(),
    );
    assert_eq!(joined.ok(), map);
    podman.call(&["network", "create", "more"]).ok();
    start("three", &["--network=more"]);
    let connect = |verb: &str| podman.call(&["network", verb, "podman", "three"]);
    connect("connect").ok();
    assert_eq!(exec("three", "ls /sys/class/net"), "eth0\neth1\nlo\n");
    connect("disconnect").ok();
    assert_eq!(exec("three", "ls /sys/class/net"), "eth0\nlo\n");
    podman
        .call(&["rm", "--force", "--time=0", "one", "two", "three"])
        .ok();
    podman.call(&["network", "rm", "more"]).ok();
    assert_eq!(left(&network), nothing);
    host.is_as(&before, podman.cgroup(), runtime);
}

#[test]
fn privileged_a_container_whose_network_was_moved_halfway_is_removed_by_podman_with_all_of_it() {
    let scene = scene();
    let _stage = Stage;
    let host = Host::new(&scene);
    let (podman, network) = podman(&host, &scene, "runc");
    podman.run(&["--rm"], &["true"]).ok();
    let before = host.left(podman.cgroup());
    let nothing = left(&network);
    for place in ["network-moved", "network-restored", "network-replaced"] {
        let killed = scene.dir().join(place);
        let program = host.program("eci-runc");
        let create =
            format!("case \"$*\" in *create*) export ECI_FS_DAEMON_FAULT={place}:1;; esac");
        let script = format!("#!/bin/sh\n{create}\nexec {program} \"$@\"\n");
        fs::write(&killed, script).unwrap();
        fs::set_permissions(&killed, fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = format!("--runtime={}", killed.display());
        let name = format!("--name={place}");
        let publish = "--publish=8080:80";
        let run = podman.run_command(&["--detach", &name, publish], &["true"]);
        let mut words: Vec<_> = run.get_args().map(ToOwned::to_owned).collect();
        let at = words.iter().position(|word| word == "run").unwrap();
        words.insert(at, runtime.into());
        let ran = Ran::run(Command::new(run.get_program()).args(words));
        assert!(ran.code != Some(0), "{place}: {ran:?}");
        podman.call(&["rm", "--force", "--time=0", place]).ok();
        assert_eq!(left(&network), nothing, "{place}");
        host.is_as(&before, podman.cgroup(), place);
    }
    podman.run(&["--rm", "--publish=8080:80"], &["true"]).ok();
}

#[test]
fn privileged_networks_of_podman_work_isolated_with_runc_and_leave_nothing() {
    default_network("runc");
}

#[test]
fn privileged_networks_of_podman_work_isolated_with_crun_and_leave_nothing() {
    default_network("crun");
}
