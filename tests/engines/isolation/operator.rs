//! The options and subcommands of docker that operators use, with plain and with isolated containers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Instant;

use support::engines::{CommandLine, Docker, IMAGE};
use support::{PATIENCE, Scene};

use super::{Steps, docker};
use crate::host::Host;
use crate::scene;

/// Waits until the health of a container is this.
#[track_caller]
fn until_health(docker: &Docker, name: &str, wanted: &str) {
    let inspect = ["inspect", "--format", "{{.State.Health.Status}}", name];
    let end = Instant::now() + PATIENCE;
    while docker.call(&inspect).ok().trim() != wanted {
        assert!(Instant::now() < end, "{name} is not {wanted}");
    }
}

/// Options of `docker run`.
fn options(steps: &mut Steps<'_>, scene: &Scene) {
    let dir = scene.dir().join(format!("files-{}", steps.runtime));
    fs::create_dir_all(dir.join("vol")).unwrap();
    for (name, owner, mode) in [("secret", 1000, 0o400), ("conf", 0, 0o644)] {
        let file = dir.join(name);
        fs::write(&file, format!("{name}\n")).unwrap();
        chown(&file, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    let at = |name: &str| dir.join(name).display().to_string();
    let open =
        "stat -c '%n %u:%g %a %t:%T' /dev/x; : </dev/x && echo read; : <>/dev/x && echo both";
    steps.run(&["--device=/dev/zero:/dev/x"], open);
    steps.run(&["--device=/dev/zero:/dev/x:r", "--user=1000"], open);
    steps.run(
        &["--mount=type=tmpfs,target=/t,tmpfs-mode=1770,tmpfs-size=1m"],
        "stat -c %u:%g:%a /t; touch /t/x; df -k /t | tail -n 1",
    );
    steps.run(
        &["--read-only", "--tmpfs=/run:uid=33,gid=44,mode=750"],
        "stat -c %u:%g:%a /run; touch /run/x; touch /y",
    );
    let secret = format!("--volume={}:/run/secrets/s:ro", at("secret"));
    let conf = format!("--volume={}:/etc/conf:ro", at("conf"));
    let read = "stat -c '%n %u:%g %a' /run/secrets/s /etc/conf; cat /run/secrets/s /etc/conf; echo x >/etc/conf";
    steps.run(&[&secret, &conf], read);
    steps.run(&[&secret, &conf, "--user=1000"], read);
    steps.run(
        &["--add-host=foo:192.0.2.1", "--dns=192.0.2.2", "--hostname=named"],
        "stat -c '%n %u:%g %a' /etc/hosts /etc/hostname /etc/resolv.conf; grep foo /etc/hosts; \
         grep name /etc/resolv.conf; hostname; echo '192.0.2.3 bar' >>/etc/hosts && tail -n 1 /etc/hosts",
    );
    for propagation in ["rprivate", "rslave"] {
        let mount = format!(
            "--mount=type=bind,source={},target=/m,bind-propagation={propagation}",
            at("vol")
        );
        steps.run(&[&mount], "touch /m/n; stat -c %u:%g /m/n");
        steps.run(&[&format!("{mount},readonly")], "touch /m/o");
    }
    let create = [
        "volume",
        "create",
        "--opt=type=tmpfs",
        "--opt=device=tmpfs",
        "--opt=o=size=1m,uid=1000",
        "tmp",
    ];
    steps.call(&create);
    steps.run(
        &["--volume=tmp:/m", "--user=1000"],
        "touch /m/n; stat -c %u:%g /m /m/n",
    );
    steps.call(&["volume", "rm", "tmp"]);
    steps.run(&["--init"], "tr '\\0' ' ' </proc/1/cmdline; exit 5");
    let status = "grep -E 'NoNewPrivs|Seccomp:|CapEff|CapBnd' /proc/self/status";
    steps.run(&["--security-opt=no-new-privileges"], status);
    // The filter that the supervisor's calls take is asserted below.
    let status_but_filter = status.replace("Seccomp:|", "");
    steps.run(&["--security-opt=seccomp=unconfined"], &status_but_filter);
    steps.run(&["--cap-drop=ALL", "--cap-add=CHOWN"], status);
    steps.run(
        &["--cap-add=SYS_TIME"],
        "date -s @1 2>/dev/null; test $(date +%s) -gt 1000 && echo refused",
    );
    steps.run(
        &["--cgroupns=private"],
        "cut -d: -f3 /proc/self/cgroup | sort -u",
    );
    steps.run(
        &["--group-add=44", "--user=5:6", "--oom-score-adj=100"],
        "id; cat /proc/self/oom_score_adj",
    );
    steps.run(&["--network=none"], "ls /sys/class/net");
    steps.run(&["--log-driver=none"], "echo nothing is kept");
}

/// Subcommands for a container that runs.
fn subcommands(steps: &mut Steps<'_>) {
    let docker = steps.docker;
    let runtime = format!("--runtime={}", steps.runtime);
    for driver in ["json-file", "local"] {
        let driver = format!("--log-driver={driver}");
        let script = "echo out; echo again >/dev/stdout; exit 3";
        docker
            .call(&[
                "run",
                "--detach",
                "--name=said",
                &runtime,
                &driver,
                IMAGE,
                "sh",
                "-c",
                script,
            ])
            .ok();
        steps.call(&["wait", "said"]);
        steps.call(&["logs", "said"]);
        steps.call(&["rm", "said"]);
    }
    let health = [
        "--health-cmd=test -e /healthy",
        "--health-interval=1s",
        "--health-retries=1",
    ];
    let start = ["run", "--detach", "--name=one", "--volume=/data", &runtime];
    let script = "touch /healthy; exec sleep 1000";
    docker
        .call(&[&start[..], &health, &[IMAGE, "sh", "-c", script]].concat())
        .ok();
    until_health(docker, "one", "healthy");
    steps.exec(&[], "touch /data/a; chown 5:6 /data/a; rm /healthy");
    until_health(docker, "one", "unhealthy");
    steps.run(
        &["--volumes-from=one"],
        "stat -c %u:%g /data/a; touch /data/b",
    );
    steps.run(
        &["--volumes-from=one:ro"],
        "stat -c %u:%g /data/b; touch /data/c",
    );
    // The owners of the processes on the host differ, as they should. Their names do not, but for those of a health check,
    // which comes and goes.
    steps.call(&["top", "one", "-o", "pid,comm"]);
    let top = steps.said.pop().unwrap();
    let names = top
        .lines()
        .skip(3)
        .filter_map(|line| line.split_whitespace().last())
        .filter(|name| *name == "sleep");
    steps.said.push(names.collect::<Vec<_>>().join(" "));
    steps.call(&[
        "stats",
        "--no-stream",
        "--format={{.Name}} {{.PIDs}}",
        "one",
    ]);
    steps.call(&[
        "update",
        "--memory=64m",
        "--memory-swap=64m",
        "--cpus=1",
        "--pids-limit=99",
        "one",
    ]);
    steps.exec(&[], "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max");
    steps.call(&["pause", "one"]);
    steps.exec(&[], "true");
    steps.call(&["unpause", "one"]);
    steps.exec(
        &["--user=1000:5", "--workdir=/tmp", "--env=A=b"],
        "id; pwd; echo $A",
    );
    steps.exec(&["--detach"], "touch /detached");
    steps.call(&["checkpoint", "create", "one", "point"]);
    steps.call(&["rename", "one", "other"]);
    steps.call(&["exec", "other", "true"]);
    steps.call(&["kill", "--signal=USR1", "other"]);
    steps.call(&["rm", "--force", "--volumes", "other"]);
}

#[test]
fn privileged_options_and_subcommands_of_docker_do_what_they_do_without_isolation() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = docker(&host, &scene);
    let [plain, isolated] = ["runc", "eci"].map(|runtime| {
        let mut steps = Steps {
            docker: &docker,
            runtime,
            said: Vec::new(),
        };
        options(&mut steps, &scene);
        subcommands(&mut steps);
        steps.said
    });
    for (plain, isolated) in plain.iter().zip(&isolated) {
        assert_eq!(isolated, plain, "isolated, and plain");
    }
    assert_eq!(plain.len(), isolated.len());
    for (runtime, filters) in [("runc", "0"), ("eci", "2")] {
        let runtime = format!("--runtime={runtime}");
        let unconfined = "--security-opt=seccomp=unconfined";
        let read = ["grep", "Seccomp:", "/proc/self/status"];
        let run = ["run", "--rm", &runtime, unconfined, IMAGE];
        let said = docker.call(&[&run[..], &read].concat()).ok();
        assert_eq!(said, format!("Seccomp:\t{filters}\n"), "{runtime}");
    }
}

#[test]
fn privileged_engines_options_that_would_undo_isolation_do_not() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = docker(&host, &scene);
    let map = ["cat", "/proc/self/uid_map"];
    for option in [
        "--userns=host",
        "--cgroupns=host",
        "--security-opt=systempaths=unconfined",
    ] {
        let said = docker.run(&["--rm", option], &map).ok();
        super::ids::parse_map(&said);
    }
    for (option, word) in [
        ("--network=host", "network"),
        ("--pid=host", "pid"),
        ("--ipc=host", "ipc"),
        ("--uts=host", "uts"),
    ] {
        let ran = docker.run(&["--rm", option], &["true"]);
        assert!(
            ran.code == Some(125) && ran.stderr.contains(word) && ran.stderr.contains("isolat"),
            "{ran:?}"
        );
    }
}

#[test]
fn privileged_restricted_files_of_the_host_are_no_volumes_of_docker() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = docker(&host, &scene);
    let refused = |options: &[&str], words: &[&str]| {
        let ran = docker.run(&[&["--rm"], options].concat(), &["true"]);
        let says = words.iter().all(|word| ran.stderr.contains(word));
        assert!(ran.code == Some(125) && says, "{options:?}: {ran:?}");
    };
    for (volume, words) in [
        (
            "/etc/passwd:/mnt/passwd",
            &[
                "/etc/passwd is below /etc, which containers may not have",
                "allowed-mounts",
            ][..],
        ),
        ("/:/host:ro", &["contains"]),
        ("/var/run:/mnt", &["/run"]),
        ("/usr/local:/mnt", &["read-only"]),
    ] {
        refused(&["-v", volume], words);
        refused(&["--privileged", "-v", volume], words);
    }
    // A directory of the host in the shape of a named volume.
    let options = ["type=none", "o=bind", "device=/etc"];
    let options = options.iter().flat_map(|option| ["--opt", option]);
    let create = ["volume", "create"]
        .into_iter()
        .chain(options)
        .chain(["evil"]);
    docker.call(&create.collect::<Vec<_>>()).ok();
    refused(&["-v", "evil:/mnt"], &["(which is /etc)"]);
    docker.call(&["volume", "rm", "evil"]).ok();
    // By way of another container, which itself never starts.
    let made = ["--name", "source", "-v", "/boot:/mnt"];
    docker
        .call(&[&["create"], &made[..], &[IMAGE, "true"]].concat())
        .ok();
    refused(&["--volumes-from", "source"], &["/boot"]);
    docker.call(&["rm", "source"]).ok();
    // What is no secret works.
    let home = scene.dir().join("home");
    fs::create_dir(&home).unwrap();
    let volume = format!("{}:/mnt", home.display());
    for volume in [volume.as_str(), "/usr:/mnt:ro"] {
        docker.run(&["--rm", "-v", volume], &["ls", "/mnt"]).ok();
    }
}
