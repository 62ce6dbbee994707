//! Containers of each engine: ids of the host that no other has, and files that are right for all of them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use support::engines::{CommandLine, IMAGE, Podman};
use support::{Cgroup, PATIENCE, Ran, Scene, find_program, status_field};
use xtask::vm::newer_runtimes;

use super::{configuration, docker, docker_of};
use crate::host::Host;
use crate::scene;

/// The ids in each container.
pub(super) const IDS: u32 = 65_536;

/// The first id of the host in a map of a user namespace that has one line.
#[track_caller]
pub(super) fn parse_map(map: &str) -> u32 {
    let words: Vec<u32> = map
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    assert_eq!((words.len(), words[0], words[2]), (3, 0, IDS), "{map}");
    assert!(words[1] >= IDS, "{map}");
    words[1]
}

/// The first id of the host in a running container.
#[track_caller]
pub(super) fn first_id(engine: &impl CommandLine, name: &str) -> u32 {
    let map = |file: &str| engine.call(&["exec", name, "cat", file]).ok();
    let uids = map("/proc/self/uid_map");
    assert_eq!(map("/proc/self/gid_map"), uids);
    parse_map(&uids)
}

/// Assert that no process of the cgroup that is in another pid namespace than we has an id of the host: neither root, nor a
/// user of /etc/passwd. Returns how many there are.
#[track_caller]
pub(super) fn nobody_of_the_host(cgroup: &Cgroup) -> usize {
    let ours = fs::read_link("/proc/self/ns/pid").unwrap();
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let users: Vec<u32> = passwd
        .lines()
        .filter_map(|line| line.split(':').nth(2)?.parse().ok())
        .collect();
    let in_containers = cgroup.processes().into_iter().filter(|pid| {
        fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|namespace| namespace != ours)
    });
    let mut count = 0;
    for pid in in_containers {
        for key in ["Uid:", "Gid:", "Groups:"] {
            let ids = status_field(pid, key).unwrap_or_default();
            for id in ids.split_whitespace() {
                let id: u32 = id.parse().unwrap();
                assert!(
                    id >= IDS && !users.contains(&id),
                    "process {pid} {key} {ids}"
                );
            }
        }
        count += 1;
    }
    count
}

/// Two containers of an engine with one volume, one of them restarted.
#[track_caller]
fn share_a_volume(engine: &impl CommandLine, cgroup: &Cgroup, scene: &Scene, options: &[&str]) {
    let dir = scene.dir().join("shared");
    fs::create_dir(&dir).unwrap();
    let volume = format!("--volume={}:/v", dir.display());
    let all = [&["--detach", &volume], options].concat();
    let mut firsts = Vec::new();
    for name in ["one", "two"] {
        let run = [&all[..], &["--name", name]].concat();
        // A child that is another user, so there is more than root.
        let script = "su nobody -s /bin/sh -c 'sleep 1000' & exec sleep 1000";
        let passwd = "echo nobody:x:65534:65534::/:/bin/sh >>/etc/passwd";
        engine
            .run(&run, &["sh", "-c", &format!("{passwd}; {script}")])
            .ok();
        firsts.push(first_id(engine, name));
    }
    let exec = |name: &str, script: &str| engine.call(&["exec", name, "sh", "-c", script]).ok();
    for name in ["one", "two"] {
        let end = Instant::now() + PATIENCE;
        let find = "grep -q 'Uid:.65534' /proc/[0-9]*/status && echo there";
        while !engine
            .call(&["exec", name, "sh", "-c", find])
            .stdout
            .contains("there")
        {
            assert!(Instant::now() < end, "nobody runs in {name}");
        }
    }
    assert!(firsts[0].abs_diff(firsts[1]) >= IDS, "{firsts:?}");
    assert!(nobody_of_the_host(cgroup) >= 4);
    exec(
        "one",
        "echo a >/v/a; chown 1000:42 /v/a; chmod 640 /v/a; mkdir -m 2775 /v/d; chown 60000:60001 /v/d",
    );
    let owners = "stat -c '%n %u:%g %a' /v/a /v/d";
    let wanted = "/v/a 1000:42 640\n/v/d 60000:60001 2775\n";
    assert_eq!(exec("two", owners), wanted);
    exec("two", "echo b >>/v/a; touch /v/d/b");
    assert_eq!(
        exec("one", "cat /v/a; stat -c %u:%g /v/d/b"),
        "a\nb\n0:60001\n"
    );
    let on_the_host = fs::metadata(dir.join("a")).unwrap();
    assert_eq!((on_the_host.uid(), on_the_host.gid()), (1000, 42));
    // Its own disk, too, is right with other ids.
    exec(
        "one",
        "touch /own; chown 5:60000 /own; cp /bin/busybox /suid; chmod 6755 /suid",
    );
    engine.call(&["stop", "--time", "0", "one"]).ok();
    engine.call(&["start", "one"]).ok();
    assert_ne!(first_id(engine, "one"), firsts[0]);
    assert_eq!(exec("one", owners), wanted);
    let own = exec("one", "stat -c '%u:%g %a' /own /suid");
    assert_eq!(own, "5:60000 644\n0:0 6755\n");
    assert!(nobody_of_the_host(cgroup) >= 3);
    engine.call(&["rm", "--force", "--time", "0", "one", "two"]);
    engine.call(&["rm", "--force", "one", "two"]);
}

#[test]
fn privileged_containers_of_docker_write_one_volume_and_have_no_id_of_the_host() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = docker(&host, &scene);
    share_a_volume(&docker, docker.cgroup(), &scene, &[]);
}

/// The runtimes that execute programs in isolated containers: those of the host, and those of a newer release.
const RUNTIMES: [&str; 4] = ["runc", "crun", "new-runc", "new-crun"];

/// A program that is our runtime with the configuration `config`, and executes `runtime`. One whose name begins with
/// `new-` is of a newer release, and sees the /usr of that.
#[track_caller]
pub(super) fn program(host: &Host<'_>, scene: &Scene, config: &Path, runtime: &str) -> String {
    let program = scene.dir().join(format!("eci-{runtime}"));
    let own = host.program("eci-runc");
    let config = config.display();
    let text = match runtime.strip_prefix("new-") {
        Some(name) => {
            let usr = newer_runtimes().unwrap().join("usr");
            // Over the host's own: hooks of engines need libraries of that. The name is looked up in the newer one.
            let script = r#"mount -t overlay -o "lowerdir=$0:/usr" overlay /usr && exec "$@""#;
            format!(
                "exec unshare --mount sh -c '{script}' {} {own} --eci-config {config} --eci-runtime-path {name} \"$@\"",
                usr.display()
            )
        }
        None => format!(
            "exec {own} --eci-config {config} --eci-runtime-path {} \"$@\"",
            find_program(runtime).display()
        ),
    };
    fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program.display().to_string()
}

#[test]
#[ignore = "cargo xtask full"]
fn privileged_containers_of_docker_with_each_runtime_write_one_volume_and_have_no_id_of_the_host() {
    let scene = scene();
    let host = Host::new(&scene);
    let config = configuration(&scene, "");
    let programs = RUNTIMES.map(|runtime| (runtime, program(&host, &scene, &config, runtime)));
    let docker = docker_of(&host, &scene, "", |daemon| {
        for (runtime, program) in &programs {
            daemon["runtimes"][format!("eci-{runtime}")] = json!({ "path": program });
        }
    });
    for runtime in RUNTIMES {
        let option = format!("--runtime=eci-{runtime}");
        share_a_volume(&docker, docker.cgroup(), &scene, &[&option]);
        fs::remove_dir_all(scene.dir().join("shared")).unwrap();
    }
}

/// Shares a volume between containers of podman with each of these runtimes.
#[track_caller]
fn podman_with(runtimes: &[&str]) {
    let scene = scene();
    let host = Host::new(&scene);
    let config = configuration(&scene, "");
    for runtime in runtimes {
        let program = program(&host, &scene, &config, runtime);
        let podman = Podman::start(&scene, None);
        let option = format!("--runtime={program}");
        share_a_volume(&podman, podman.cgroup(), &scene, &[&option]);
        fs::remove_dir_all(scene.dir().join("shared")).unwrap();
    }
}

#[test]
fn privileged_containers_of_podman_write_one_volume_and_have_no_id_of_the_host() {
    podman_with(&["runc", "crun"]);
}

#[test]
#[ignore = "cargo xtask full"]
fn privileged_containers_of_podman_with_each_runtime_write_one_volume_and_have_no_id_of_the_host() {
    podman_with(&RUNTIMES);
}

#[test]
fn privileged_containers_of_a_pod_have_the_ids_of_the_pod() {
    let scene = scene();
    let host = Host::new(&scene);
    let config = configuration(&scene, "");
    let podman = Podman::start(&scene, None);
    // The limits that podman gives its own container of a pod need a capability that not every root has.
    let limits = scene.dir().join("containers.conf");
    let text = "[containers]\ndefault_ulimits = ['nofile=1024:4096', 'nproc=1024:4096']\n";
    fs::write(&limits, text).unwrap();
    for runtime in ["runc", "crun"] {
        let program = program(&host, &scene, &config, runtime);
        let call = |arguments: &[&str]| {
            let all = [&["--runtime", &program], arguments].concat();
            Ran::run(podman.command(&all).env("CONTAINERS_CONF", &limits))
        };
        let mut firsts = Vec::new();
        for pod in ["red", "blue"] {
            let cgroup = format!("--cgroup-parent={}", podman.cgroup().path());
            let infra = format!("--infra-image={IMAGE}");
            let share = "--share=ipc,net,uts,pid";
            let pod_option = format!("--pod={pod}");
            let create = ["pod", "create", "--name", pod, "--network=none", share];
            call(&[&create[..], &[&infra, &cgroup]].concat()).ok();
            let names = ["one", "two"].map(|name| format!("{pod}-{name}"));
            for name in &names {
                let run = ["run", "--detach", &pod_option, "--name", name];
                call(&[&run[..], &[IMAGE, "sleep", "1000"]].concat()).ok();
            }
            let map = |name: &str| call(&["exec", name, "cat", "/proc/self/uid_map"]).ok();
            assert_eq!(map(&names[0]), map(&names[1]), "{runtime} {pod}");
            firsts.push(parse_map(&map(&names[0])));
        }
        assert!(firsts[0].abs_diff(firsts[1]) >= IDS, "{runtime} {firsts:?}");
        assert!(nobody_of_the_host(podman.cgroup()) >= 6, "{runtime}");
        call(&["pod", "rm", "--force", "--time", "0", "red", "blue"]);
        call(&["pod", "rm", "--all", "--force", "--time", "0"]);
    }
}

#[test]
fn privileged_containers_of_ctr_write_one_volume_and_have_no_id_of_the_host() {
    ctr_with("runc");
}

#[test]
#[ignore = "cargo xtask full"]
fn privileged_containers_of_ctr_with_each_runtime_write_one_volume_and_have_no_id_of_the_host() {
    for runtime in RUNTIMES {
        ctr_with(runtime);
    }
}

/// Shares a volume between containers of ctr with this runtime, on overlays and on plain directories.
#[track_caller]
fn ctr_with(runtime: &str) {
    let scene = scene();
    let host = Host::new(&scene);
    let config = configuration(&scene, "");
    let program = program(&host, &scene, &config, runtime);
    let containerd = host.containerd(&[]);
    // What the daemon makes for the first container, and keeps.
    let cgroup = format!("{}/first", containerd.cgroup().path());
    let first = [
        "run",
        "--rm",
        "--runc-binary",
        &program,
        "--cgroup",
        &cgroup,
    ];
    containerd
        .ctr(&[&first[..], &[IMAGE, "first", "true"]].concat())
        .ok();
    let before = host.left(containerd.cgroup());
    for snapshotter in ["overlayfs", "native"] {
        let dir = scene.dir().join(format!("shared-{snapshotter}"));
        fs::create_dir(&dir).unwrap();
        let mount = format!("type=bind,src={},dst=/v,options=rbind:rw", dir.display());
        if snapshotter != "overlayfs" {
            let unpack = ["images", "unpack", "--snapshotter", snapshotter, IMAGE];
            // An older ctr has no such command, and unpacks when it runs.
            containerd.ctr(&unpack);
        }
        let mut firsts = Vec::new();
        let exec = |name: &str, script: &str| {
            let exec = ["tasks", "exec", "--exec-id", "x", name, "sh", "-c", script];
            containerd.ctr(&exec).ok()
        };
        for name in ["one", "two"] {
            let cgroup = format!("{}/{name}", containerd.cgroup().path());
            let run = [
                "run",
                "--detach",
                "--runtime",
                "io.containerd.runc.v2",
                "--runc-binary",
                &program,
                "--cgroup",
                &cgroup,
                "--snapshotter",
                snapshotter,
                "--mount",
                &mount,
                IMAGE,
                name,
                "sleep",
                "1000",
            ];
            containerd.ctr(&run).ok();
            firsts.push(parse_map(&exec(name, "cat /proc/self/uid_map")));
        }
        assert!(
            firsts[0].abs_diff(firsts[1]) >= IDS,
            "{snapshotter} {firsts:?}"
        );
        assert!(
            nobody_of_the_host(containerd.cgroup()) >= 2,
            "{snapshotter}"
        );
        exec(
            "one",
            "echo a >/v/a; chown 1000:42 /v/a; touch /own; chown 7:60000 /own",
        );
        let owners = "stat -c '%n %u:%g' /v/a /bin/busybox";
        assert_eq!(
            exec("two", owners),
            "/v/a 1000:42\n/bin/busybox 0:0\n",
            "{snapshotter}"
        );
        let on_the_host = fs::metadata(dir.join("a")).unwrap();
        assert_eq!((on_the_host.uid(), on_the_host.gid()), (1000, 42));
        // Another task of the same container has other ids and the same disk.
        containerd.ctr(&["tasks", "delete", "--force", "one"]).ok();
        containerd.ctr(&["tasks", "start", "--detach", "one"]).ok();
        assert_ne!(parse_map(&exec("one", "cat /proc/self/uid_map")), firsts[0]);
        assert_eq!(
            exec("one", "stat -c %u:%g /own /v/a"),
            "7:60000\n1000:42\n",
            "{snapshotter}"
        );
        for name in ["one", "two"] {
            containerd.ctr(&["tasks", "delete", "--force", name]).ok();
            containerd.ctr(&["containers", "delete", name]).ok();
        }
        host.is_as(&before, containerd.cgroup(), snapshotter);
    }
}
