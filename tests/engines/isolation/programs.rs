//! Programs of Debian as their packages install them, in isolated containers of docker.

use std::time::Instant;

use support::engines::{CommandLine, Docker};
use support::{PATIENCE, Ran};
use xtask::vm::root_archive;

use super::docker_with;
use crate::host::Host;
use crate::scene;

/// The packages of the image.
const INSTALLED: [&str; 9] = [
    "busybox-static",
    "curl",
    "dbus",
    "docker.io",
    "libcap2-bin",
    "nginx-light",
    "postgresql",
    "redis-server",
    "systemd-sysv",
];

/// The packages that apt installs in a container: with file capabilities, setgid and setuid programs, and users.
const BESIDE: [&str; 4] = ["cron", "iputils-ping", "openssh-client", "sudo"];

/// The name of the image.
const DEBIAN: &str = "localhost/debian:12";

/// Runs a command in a container until it succeeds.
#[track_caller]
fn until(docker: &Docker, name: &str, script: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let ran = exec(docker, name, script);
        if ran.code == Some(0) {
            return ran.stdout;
        }
        assert!(Instant::now() < end, "{script}: {ran:?}");
    }
}

#[track_caller]
fn exec(docker: &Docker, name: &str, script: &str) -> Ran {
    docker.call(&["exec", name, "sh", "-c", script])
}

#[track_caller]
fn start(docker: &Docker, name: &str, options: &[&str], command: &[&str]) {
    let run = ["run", "--detach", "--name", name];
    docker
        .call(&[&run, options, &[DEBIAN], command].concat())
        .ok();
}

#[test]
fn privileged_databases_servers_systemd_an_inner_docker_and_apt_run_unmodified() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = docker_with(&host, &scene, "delegate-cgroup-v1 = true\n");
    let archive = root_archive(&INSTALLED, &BESIDE).unwrap();
    let path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let archive = archive.to_string_lossy();
    docker
        .call(&["import", "--change", path, &archive, DEBIAN])
        .ok();
    each_as_the_first_process(&docker);
    systemd_starts_all_of_them(&docker);
    apt_installs(&docker);
}

/// Postgres, Redis and nginx, each as pid 1. The files of Postgres are on a volume, and found again with other ids.
#[track_caller]
fn each_as_the_first_process(docker: &Docker) {
    let postgres = [
        "/usr/bin/pg_ctlcluster",
        "--foreground",
        "15",
        "main",
        "start",
    ];
    let volume = ["--volume=database:/var/lib/postgresql"];
    let query = |name: &str, text: &str| {
        let ask =
            format!("runuser -u postgres -- psql --no-align --tuples-only --command '{text}'");
        until(docker, name, &ask)
    };
    start(docker, "first", &volume, &postgres);
    query("first", "create table t (i int)");
    query("first", "insert into t select generate_series(1, 1000)");
    docker.call(&["stop", "first"]).ok();
    start(docker, "second", &volume, &postgres);
    assert_eq!(query("second", "select sum(i) from t"), "500500\n");

    let redis = [
        "runuser",
        "-u",
        "redis",
        "--",
        "redis-server",
        "--dir",
        "/var/lib/redis",
    ];
    start(docker, "redis", &[], &redis);
    until(docker, "redis", "redis-cli set key value");
    let said = exec(
        docker,
        "redis",
        "redis-cli save; redis-cli get key; stat -c %U /var/lib/redis/dump.rdb",
    );
    assert_eq!(said.ok(), "OK\nvalue\nredis\n");

    start(docker, "nginx", &[], &["nginx", "-g", "daemon off;"]);
    let page = until(docker, "nginx", "curl --silent --fail http://localhost/");
    assert!(page.contains("Welcome to nginx"), "{page}");
    // Its workers are www-data, whose number is the same on every Debian.
    let users = "grep -h ^Uid: $(grep -l '^Name:.nginx' /proc/[0-9]*/status) | sort -u";
    let users = exec(docker, "nginx", users).ok();
    assert_eq!(users, "Uid:\t0\t0\t0\t0\nUid:\t33\t33\t33\t33\n");
    docker
        .call(&["rm", "--force", "first", "second", "redis", "nginx"])
        .ok();
}

/// systemd as pid 1, with units that start all of them, and a docker inside, whose container runs.
#[track_caller]
fn systemd_starts_all_of_them(docker: &Docker) {
    let options = [
        "--privileged",
        "--tmpfs=/run",
        "--tmpfs=/run/lock",
        "--volume=inner:/var/lib/docker",
    ];
    start(docker, "systemd", &options, &["/sbin/init"]);
    // It exits with 1 where a unit has failed: there is no terminal, and no binfmt_misc.
    let state = "state=$(systemctl is-system-running --wait); case $state in running|degraded) ;; *) false;; esac";
    until(docker, "systemd", state);
    let units = "systemctl is-active redis-server nginx postgresql@15-main docker";
    assert_eq!(exec(docker, "systemd", units).ok(), "active\n".repeat(4));
    let inner = "mkdir -p /inner/bin && cp /bin/busybox /inner/bin/ && tar -C /inner -c . | docker import --change \
                 'ENV PATH=/bin' - inner && docker run --rm inner busybox sh -c 'busybox id -u; busybox hostname' && \
                 docker info --format {{.Driver}}";
    let said = exec(docker, "systemd", inner).ok();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!((lines[1], lines[3]), ("0", "overlay2"), "{said}");
    docker.call(&["rm", "--force", "systemd"]).ok();
}

/// apt installs packages with all that their scripts do, and an image of that serves other containers.
#[track_caller]
fn apt_installs(docker: &Docker) {
    start(docker, "apt", &[], &["sleep", "1000"]);
    let packages = BESIDE.join(" ");
    let install = format!(
        "set -e; export DEBIAN_FRONTEND=noninteractive; \
         echo 'deb [trusted=yes] file:/srv/repository ./' >/etc/apt/sources.list; rm -f /etc/apt/sources.list.d/*; \
         apt-get -qq update; apt-get -qq --yes --no-install-recommends install {packages}; \
         useradd --create-home --uid 60000 user; echo 'user ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/user; \
         cp /usr/bin/grep /usr/bin/capable; setcap cap_sys_chroot+ep /usr/bin/capable"
    );
    exec(docker, "apt", &install).ok();
    let check = "stat -c '%U:%G %a' /usr/bin/sudo /usr/bin/crontab /usr/bin/ssh-agent /home/user; getcap /usr/bin/ping; \
                 runuser -u user -- sudo -n id -u; runuser -u user -- ping -q -c 1 127.0.0.1 | grep -c ' 0% packet loss'; \
                 runuser -u user -- capable CapEff /proc/self/status";
    let wanted = "root:root 4755\nroot:crontab 2755\nroot:_ssh 2755\nuser:user 755\n/usr/bin/ping cap_net_raw=ep\n0\n1\n\
                  CapEff:\t0000000000040000\n";
    assert_eq!(exec(docker, "apt", check).ok(), wanted);
    docker.call(&["commit", "apt", "localhost/installed"]).ok();
    for runtime in ["eci", "runc"] {
        let runtime = format!("--runtime={runtime}");
        let run = [
            "run",
            "--rm",
            &runtime,
            "localhost/installed",
            "sh",
            "-c",
            check,
        ];
        assert_eq!(docker.call(&run).ok(), wanted, "{runtime}");
    }
    docker.call(&["rm", "--force", "apt"]).ok();
}
