//! Podman's own networks with containers that are isolated: podman makes the network before the container.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use procfs::process::Process;
use support::engines::{CommandLine, IMAGE, Podman};
use support::{Ran, Scene, open_pidfd, try_pidfd, wait_for_end};

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
    // Not as a flag for podman: the program that cleans up after a container does not get it.
    let program = scene.dir().join(format!("eci-{runtime}"));
    let wrapper = host.program("eci-runc");
    let script = format!(
        "#!/bin/sh\nexec {wrapper} --eci-config {} \"$@\"\n",
        config.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let networks = scene.dir().join("networks");
    fs::create_dir(&networks).unwrap();
    let podman = Podman::start(scene, None);
    let options = [
        ("--runtime", program.display().to_string()),
        ("--network-config-dir", networks.display().to_string()),
    ];
    let options = options
        .iter()
        .map(|(option, value)| format!("{option}={value}"));
    let options: Vec<String> = options.collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    podman.with(&options).with_network()
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

/// Stops a container, and waits for what its end starts: conmon runs `podman container cleanup`, which podman does not wait
/// for before the next start.
#[track_caller]
fn stop(podman: &Podman, name: &str) {
    let inspect = |what: &str| {
        let said = podman.call(&["inspect", "--format", what, name]).ok();
        said.trim().to_owned()
    };
    let (id, conmon) = (inspect("{{.Id}}"), inspect("{{.State.ConmonPid}}"));
    let conmon = open_pidfd(conmon.parse().unwrap());
    podman.call(&["stop", "--time=1", name]).ok();
    wait_for_end(&conmon);
    let cleans_up = |process: &Process| {
        let words = process.cmdline().unwrap_or_default();
        words.contains(&"cleanup".to_owned()) && words.contains(&id)
    };
    let processes = procfs::process::all_processes().unwrap();
    for process in processes.flatten().filter(cleans_up) {
        if let Some(pidfd) = u32::try_from(process.pid()).ok().and_then(try_pidfd) {
            wait_for_end(&pidfd);
        }
    }
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
    stop(&podman, "one");
    podman.call(&["start", "one"]).ok();
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
    for name in ["one", "two", "three"] {
        stop(&podman, name);
    }
    podman.call(&["rm", "one", "two", "three"]).ok();
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
        let program = scene.dir().join("eci-runc");
        let create =
            format!("case \"$*\" in *create*) export ECI_FS_DAEMON_FAULT={place}:1;; esac");
        let script = format!("#!/bin/sh\n{create}\nexec {} \"$@\"\n", program.display());
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
