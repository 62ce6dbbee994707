//! What isolation promises, for `--privileged` containers of docker and podman, and what such a container reaches of the host
//! and of another container.

use std::fs;
use std::os::unix::fs::chown;

use serde_json::Value;
use support::engines::{CommandLine, IMAGE, Podman};
use support::promises::{PROMISES, SHELL, cgroup_of, cgroups, reached_as_documented};
use support::{Cgroup, Scene};

use super::ids::{IDS, first_id, nobody_of_the_host, parse_map, program};
use super::{configuration, docker_with};
use crate::host::Host;
use crate::scene;

/// Settings that these promises need.
const SETTINGS: &str = "locked-mounts = true\n";

/// Capabilities that a container has only if it is privileged: CAP_NET_ADMIN, CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_ADMIN,
/// CAP_SYS_BOOT and CAP_SYS_TIME.
const CAPABILITIES: [u32; 6] = [12, 16, 17, 21, 22, 25];

/// Makes a key, notes its number, and stays.
const STAY: &str = "probe add-key >/tmp/key; mv /tmp/key /key; exec sleep 1000";

/// Two privileged containers with these options, which share a volume.
#[track_caller]
fn hold(engine: &impl CommandLine, cgroup: &Cgroup, scene: &Scene, options: &[&str]) {
    let (shared, fixed) = (scene.dir().join("shared"), scene.dir().join("fixed"));
    for dir in [&shared, &fixed] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        chown(dir.join("file"), Some(1000), Some(42)).unwrap();
    }
    let volumes = [
        format!("--volume={}:/cgroup", cgroups()),
        format!("--volume={}:/v", shared.display()),
        format!("--volume={}:/vol:ro", fixed.display()),
    ];
    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
    let memory = ["--memory=192m", "--memory-swap=192m"];
    let all = [
        &["--detach", "--privileged"][..],
        &memory,
        &volumes,
        options,
    ]
    .concat();
    let mut firsts = Vec::new();
    for name in ["one", "two"] {
        let run = [&all[..], &["--name", name]].concat();
        engine.run(&run, &["sh", "-c", STAY]).ok();
        firsts.push(first_id(engine, name));
    }
    assert!(firsts[0].abs_diff(firsts[1]) >= IDS, "{firsts:?}");
    assert!(nobody_of_the_host(cgroup) >= 2);
    let exec = |name: &str, command: &[&str]| engine.call(&[&["exec", name], command].concat());
    let status = exec("one", &["grep", "CapEff", "/proc/self/status"]).ok();
    let bits = status.trim().rsplit('\t').next().unwrap();
    let bits = u64::from_str_radix(bits, 16).unwrap();
    for capability in CAPABILITIES {
        assert!(bits & 1 << capability != 0, "{status}");
    }

    for (promise, script, wanted) in PROMISES {
        let ran = exec("one", &[SHELL, &[script]].concat());
        assert_eq!(ran.stdout, *wanted, "{promise}: {ran:?}");
    }
    // What one has written is its own.
    let setting = "/proc/sys/kernel/panic";
    let panic = fs::read_to_string(setting).unwrap();
    exec("one", &["sh", "-c", &format!("echo 77 >{setting}")]).ok();
    assert_eq!(exec("one", &["cat", setting]).ok(), "77\n");
    assert_eq!(exec("two", &["cat", setting]).ok(), panic);
    assert_eq!(fs::read_to_string(setting).unwrap(), panic);
    for path in ["/v/file", "/vol/file"] {
        let owners = exec("two", &["stat", "-c", "%u:%g", path]).ok();
        assert_eq!(owners, "1000:42\n", "{path}");
    }

    let pid = engine.call(&["inspect", "--format", "{{.State.Pid}}", "two"]);
    let pid = pid.ok().trim().to_owned();
    let until = "until test -s /key; do sleep 0.1; done; cat /key";
    let key: Value = serde_json::from_str(&exec("two", &["sh", "-c", until]).ok()).unwrap();
    let key = key["ok"].to_string();
    let dir = format!("/cgroup{}", cgroup_of(pid.parse().unwrap()));
    let said = exec("one", &["probe", "reach", &pid, &dir, &key]).ok();
    let said: Value = serde_json::from_str(&said).unwrap();
    reached_as_documented(&said["ok"], "the engine");
    assert_eq!(exec("two", &["cat", setting]).ok(), panic);

    // Another start, other ids, and the files are as they were.
    exec("one", &["sh", "-c", "touch /own; chown 7:60000 /own"]).ok();
    engine.call(&["stop", "--time", "0", "one"]).ok();
    engine.call(&["start", "one"]).ok();
    assert_ne!(first_id(engine, "one"), firsts[0]);
    let owners = exec("one", &["stat", "-c", "%u:%g", "/own", "/v/file"]).ok();
    assert_eq!(owners, "7:60000\n1000:42\n");
    engine.call(&["rm", "--force", "--time", "0", "one", "two"]);
    engine.call(&["rm", "--force", "one", "two"]);
}

/// What a container may not have of the host.
#[track_caller]
fn refused(engine: &impl CommandLine, options: &[&str]) {
    let own = ["run", "--rm", "--network=none", "--userns=host"];
    let map = [IMAGE, "cat", "/proc/self/uid_map"];
    parse_map(&engine.call(&[&own, options, &map[..]].concat()).ok());
    let shares = ["network", "pid", "ipc", "uts"].map(|kind| (format!("--{kind}=host"), kind));
    for (option, word) in &shares {
        let run = [&["run", "--rm", option], options, &[IMAGE, "true"]].concat();
        let ran = engine.call(&run);
        let says = ran.stderr.contains(word) && ran.stderr.contains("isolat");
        assert!(ran.code != Some(0) && says, "{ran:?}");
    }
    for path in ["/etc/passwd", "/etc", "/run", "/boot", "/"] {
        for more in [&[][..], &["--privileged"]] {
            let volume = format!("--volume={path}:/mnt/x:ro");
            let run = [&["run", "--rm", "--network=none", &volume], more, options];
            let ran = engine.call(&[&run.concat()[..], &[IMAGE, "true"]].concat());
            let says = ran.stderr.contains("which containers may not have");
            assert!(ran.code != Some(0) && says, "{ran:?}");
        }
    }
}

#[test]
fn privileged_the_promises_of_isolation_hold_for_containers_of_docker() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = docker_with(&host, &scene, SETTINGS);
    hold(&docker, docker.cgroup(), &scene, &[]);
    refused(&docker, &[]);
}

#[test]
fn privileged_the_promises_of_isolation_hold_for_containers_of_podman() {
    let scene = scene();
    let host = Host::new(&scene);
    let config = configuration(&scene, SETTINGS);
    let program = program(&host, &scene, &config, "crun");
    let podman = Podman::start(&scene, None);
    let runtime = format!("--runtime={program}");
    hold(&podman, podman.cgroup(), &scene, &[&runtime]);
    let cgroup = format!("--cgroup-parent={}", podman.cgroup().path());
    let limits = ["--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096"];
    refused(&podman, &[&[&*runtime, &cgroup][..], &limits].concat());
}
