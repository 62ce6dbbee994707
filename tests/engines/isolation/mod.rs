//! Engines with containers that are isolated: everything that they do with them is as without isolation.

mod copies;
mod ends;
mod ids;
mod operator;
mod pods;
mod privileged;
mod programs;
mod promises;
mod stores;
mod vfs;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

use serde_json::{Value, json};
use support::Scene;
use support::engines::{CommandLine, Docker, IMAGE};

use crate::host::Host;
use crate::same::without_ids;
use crate::scene;

/// The path of a configuration of the host that isolates.
#[track_caller]
fn configuration(scene: &Scene, more: &str) -> PathBuf {
    let config = scene.dir().join("eci-fs.toml");
    let isolation = "[isolation]\nenabled = true\nsystem-calls = true\n";
    fs::write(&config, format!("{isolation}{more}")).unwrap();
    config
}

/// A docker whose default runtime isolates. `runc` is the plain one.
#[track_caller]
fn docker(host: &Host<'_>, scene: &Scene) -> Docker {
    docker_with(host, scene, "")
}

/// The same, with more settings of isolation.
#[track_caller]
fn docker_with(host: &Host<'_>, scene: &Scene, more: &str) -> Docker {
    docker_of(host, scene, more, |_| {})
}

/// The same, with a change of `daemon.json`.
#[track_caller]
fn docker_of(
    host: &Host<'_>,
    scene: &Scene,
    more: &str,
    change: impl FnOnce(&mut Value),
) -> Docker {
    let config = configuration(scene, more);
    let file = host.install("docker", &[]).join("etc/docker/daemon.json");
    let mut daemon: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    daemon["runtimes"]["eci"]["runtimeArgs"] = json!(["--eci-config", config]);
    daemon["default-runtime"] = json!("eci");
    change(&mut daemon);
    Docker::start(scene, &daemon)
}

/// The steps of a script with one container, and what each printed.
struct Steps<'a> {
    docker: &'a Docker,
    runtime: &'a str,
    said: Vec<String>,
}

impl Steps<'_> {
    fn call(&mut self, arguments: &[&str]) {
        let ran = self.docker.call(arguments);
        let words = |text: &str| {
            text.split_inclusive(' ')
                .map(without_ids)
                .collect::<String>()
        };
        let (out, errors) = (words(&ran.stdout), words(&ran.stderr));
        let line = format!("{}\n{:?}\n{out}\n{errors}", arguments.join(" "), ran.code);
        let line = line.replace("--runtime=runc", "--runtime=eci");
        let dir = format!("files-{}", self.runtime);
        self.said.push(line.replace(&dir, "files"));
    }

    /// Run a shell in a new container.
    fn run(&mut self, options: &[&str], script: &str) {
        let runtime = format!("--runtime={}", self.runtime);
        let all = [
            &["run", "--rm", &runtime],
            options,
            &[IMAGE, "sh", "-c", script],
        ]
        .concat();
        self.call(&all);
    }

    /// Run a shell in the container.
    fn exec(&mut self, options: &[&str], script: &str) {
        self.call(&[&["exec"], options, &["one", "sh", "-c", script]].concat());
    }
}

/// What docker does with containers of a runtime.
fn steps(docker: &Docker, runtime: &str, scene: &Scene) -> Vec<String> {
    let mut steps = Steps {
        docker,
        runtime,
        said: Vec::new(),
    };
    let dir = scene.dir().join(format!("files-{runtime}"));
    fs::create_dir_all(dir.join("in/sub")).unwrap();
    for (name, text) in [("in/sub/f", "sub\n"), ("one", "one\n"), ("vol", "vol\n")] {
        fs::write(dir.join(name), text).unwrap();
        chown(dir.join(name), Some(1000), Some(1000)).unwrap();
    }
    let at = |name: &str| dir.join(name).display().to_string();
    steps.run(
        &["--user=1000:42"],
        "id; touch /dev/shm/x; stat -c %u:%g /dev/shm/x; echo a >/proc/self/fd/1",
    );
    steps.run(&["--workdir=/new/dir"], "pwd; touch x; stat -c %u:%g x .");
    let volume = format!("--volume={}:/v", dir.display());
    steps.run(
        &[&volume],
        "stat -c %u:%g /v/vol; touch /v/made; chown 33:34 /v/made",
    );
    steps.run(&["--volume=named:/n"], "touch /n/f; chown 7:7 /n/f");
    steps.run(&["--volume=named:/n"], "stat -c %u:%g /n/f");
    steps.run(&["--tmpfs=/t:uid=1000,mode=700"], "stat -c %u:%a /t");
    steps.run(
        &["--shm-size=1m"],
        "stat -c %u:%a /dev/shm; touch /dev/shm/x",
    );
    steps.run(
        &["--ipc=shareable"],
        "stat -c %u:%a /dev/shm; touch /dev/shm/x",
    );
    steps.run(&["--read-only"], "touch /x");
    steps.run(
        &[
            "--sysctl=net.core.somaxconn=77",
            "--ulimit=nofile=2048:4096",
        ],
        "cat /proc/sys/net/core/somaxconn; ulimit -n",
    );
    steps.run(
        &["--hostname=foo", "--memory=64m"],
        "hostname; cat /etc/hostname; stat -c %u /etc/hosts /etc/resolv.conf",
    );
    steps.run(&["--init"], "exit 7");
    steps.run(&["--tty"], "tty; echo x >/dev/tty; stat -c %u /dev/console");
    let runtime = format!("--runtime={runtime}");
    let script = "mkdir /srv; echo old >/srv/f; while :; do sleep 1; done";
    steps.call(&[
        "run",
        "--detach",
        "--name=one",
        &runtime,
        "--workdir=/work",
        IMAGE,
        "sh",
        "-c",
        script,
    ]);
    // The shell has made its directory when this succeeds.
    steps.exec(
        &[],
        "until test -e /srv/f; do :; done; touch /byroot; mkdir -m 1777 /open; echo o >/proc/self/fd/1",
    );
    steps.exec(
        &["--user=1000"],
        "id -u; touch /open/byuser; echo o >/proc/self/fd/2",
    );
    for (name, id) in [("new", 1234), ("newer", 1235)] {
        steps.exec(
            &[],
            &format!(
                "(cat /etc/passwd; echo {name}:x:{id}:{id}::/:/bin/sh) >/p; mv /p /etc/passwd"
            ),
        );
        steps.exec(&[&format!("--user={name}")], "id -u");
    }
    steps.call(&["cp", &at("one"), "one:/cpin"]);
    steps.exec(&[], "cat /cpin; stat -c %u:%g /cpin");
    steps.call(&["cp", "--archive", &at("one"), "one:/cpin-a"]);
    steps.exec(&[], "stat -c %u:%g /cpin-a");
    steps.call(&["cp", &at("in"), "one:/srv/in"]);
    steps.exec(&[], "cat /srv/in/sub/f; rm -r /srv/in; ls /srv");
    steps.call(&["cp", &at("one"), "one:/work/here"]);
    steps.exec(&[], "cat /work/here; touch /work/mine; ls /work");
    for text in ["first", "second"] {
        steps.exec(
            &[],
            &format!("echo {text} >/srv/n; chown 1000:1000 /srv/n; mv /srv/n /srv/out"),
        );
        steps.call(&["cp", "one:/srv/out", &at("out")]);
        steps
            .said
            .push(fs::read_to_string(dir.join("out")).unwrap_or_default());
    }
    steps.call(&["diff", "one"]);
    // It lists the files in no order.
    let mut diff: Vec<_> = steps
        .said
        .pop()
        .into_iter()
        .flat_map(|said| said.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    diff.sort();
    steps.said.push(diff.join("\n"));
    steps.call(&["commit", "one", "committed"]);
    let owners = "stat -c '%n %u:%g' /byroot /open/byuser /srv/out /cpin-a";
    steps.call(&["run", "--rm", &runtime, "committed", "sh", "-c", owners]);
    steps.call(&[
        "run",
        "--rm",
        "--runtime=runc",
        "committed",
        "sh",
        "-c",
        owners,
    ]);
    steps.call(&["restart", "--time=0", "one"]);
    steps.exec(&[], owners);
    steps.call(&["stop", "--time=0", "one"]);
    steps.call(&["cp", &at("one"), "one:/stopped"]);
    steps.call(&["start", "one"]);
    steps.exec(&[], "cat /stopped; stat -c %u:%g /stopped");
    let net = [
        "run",
        "--rm",
        &runtime,
        "--network=container:one",
        IMAGE,
        "ls",
        "/sys/class/net",
    ];
    steps.call(&net);
    let pid = [
        "run",
        "--rm",
        &runtime,
        "--pid=container:one",
        IMAGE,
        "sh",
        "-c",
        "ls /proc/1/root/srv",
    ];
    steps.call(&pid);
    steps.call(&["pause", "one"]);
    steps.call(&["unpause", "one"]);
    steps.call(&["kill", "one"]);
    steps.call(&["rm", "one"]);
    steps.call(&["volume", "rm", "named"]);
    assert_eq!(fs::metadata(dir.join("made")).unwrap().uid(), 33);
    steps.said
}

#[test]
fn privileged_docker_does_with_isolated_containers_what_it_does_with_others() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = docker(&host, &scene);
    let plain = steps(&docker, "runc", &scene);
    let isolated = steps(&docker, "eci", &scene);
    for (plain, isolated) in plain.iter().zip(&isolated) {
        assert_eq!(isolated, plain, "isolated, and plain");
    }
    assert_eq!(plain.len(), isolated.len());
}

#[test]
fn privileged_containers_of_docker_have_ids_of_their_own_and_leave_nothing() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = docker(&host, &scene);
    // What dockerd makes for the first container and keeps.
    let plain = ["--rm", "--runtime=runc", "--network=host"];
    docker.run(&plain, &["true"]).ok();
    docker.run(&["--rm"], &["true"]).ok();
    let before = host.left(docker.cgroup());
    let mut firsts = Vec::new();
    for name in ["one", "two"] {
        docker
            .run(&["--detach", "--name", name], &["sleep", "1000"])
            .ok();
        let map = docker
            .call(&["exec", name, "cat", "/proc/self/uid_map"])
            .ok();
        let words: Vec<u32> = map
            .split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect();
        assert_eq!((words[0], words[2]), (0, 65_536), "{map}");
        assert!(words[1] >= 65_536, "{map}");
        firsts.push(words[1]);
    }
    assert!(firsts[0].abs_diff(firsts[1]) >= 65_536, "{firsts:?}");
    docker.call(&["rm", "--force", "one", "two"]).ok();
    // Each has a map of its own, with all capabilities, too.
    let all = ["--rm", "--privileged"];
    let privileged = docker.run(&all, &["cat", "/proc/self/uid_map"]).ok();
    assert!(!privileged.contains("4294967295"), "{privileged}");
    for (option, word) in [
        ("--network=host", "network"),
        ("--pid=host", "pid"),
        ("--user=70000", "70000"),
    ] {
        let ran = docker.run(&["--rm", option], &["true"]);
        assert!(
            ran.code == Some(125) && ran.stderr.contains(word),
            "{ran:?}"
        );
    }
    host.is_as(&before, docker.cgroup(), "isolated");
}
