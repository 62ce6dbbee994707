//! A service manager that keeps descriptors, as systemd does. The test plays its part.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use support::{PATIENCE, Scene, let_time_pass};

use crate::{limits, scene, sees, sees_the_host};

/// What a daemon has said to it.
#[derive(Debug, Default)]
struct Told {
    ready: bool,
    kept: Vec<(String, OwnedFd)>,
}

/// A service manager: hears on a thread of its own, because a daemon waits until there is room for what it says.
struct Manager {
    path: PathBuf,
    told: Arc<Mutex<Told>>,
}

impl Manager {
    fn start(scene: &Scene) -> Self {
        let path = scene.dir().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let told = Arc::new(Mutex::new(Told::default()));
        let hears = Arc::clone(&told);
        std::thread::spawn(move || while hear(&socket, &hears).is_some() {});
        Self { path, told }
    }

    /// Wait until what was told is so.
    #[track_caller]
    fn wait_until(&self, is_so: impl Fn(&Told) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(&self.told.lock().unwrap()) {
            assert!(Instant::now() < end, "{:?}", self.told.lock().unwrap());
            let_time_pass(Duration::from_millis(5));
        }
    }

    /// Copies of what is kept, as a service manager passes them on.
    fn kept(&self) -> Vec<(String, OwnedFd)> {
        let told = self.told.lock().unwrap();
        told.kept
            .iter()
            .map(|(name, fd)| (name.clone(), fd.try_clone().unwrap()))
            .collect()
    }
}

/// Hear one thing.
fn hear(socket: &UnixDatagram, told: &Mutex<Told>) -> Option<()> {
    let mut bytes = [0; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut parts, &mut ancillary, flags).ok()?;
    let rights = ancillary.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds: Vec<OwnedFd> = rights.flatten().collect();
    let text = String::from_utf8_lossy(&bytes[..message.bytes]).into_owned();
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
    let name = name.unwrap_or_default();
    let mut told = told.lock().unwrap();
    if text.contains("FDSTOREREMOVE=1") {
        told.kept.retain(|(kept, _)| kept != name);
    } else if text.contains("FDSTORE=1") {
        told.kept
            .extend(fds.into_iter().map(|fd| (name.to_owned(), fd)));
    }
    told.ready |= text.contains("READY=1");
    Some(())
}

/// A command that starts the daemon with what was kept, as a service manager does: from descriptor 3 on.
fn with_kept(scene: &Scene, socket: &Path, kept: &[(String, OwnedFd)]) -> Command {
    let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
    let moves: Vec<String> = kept
        .iter()
        .enumerate()
        .map(|(at, (_, fd))| format!("{}<&{}", at + 3, fd.as_raw_fd()))
        .collect();
    for (_, fd) in kept {
        fcntl_setfd(fd, FdFlags::empty()).unwrap();
    }
    let moves = if moves.is_empty() {
        String::new()
    } else {
        format!("exec {}; ", moves.join(" "))
    };
    let script = format!("{moves}LISTEN_PID=$$ exec \"$0\" \"$@\"");
    let daemon = scene.command(&["mountd"]);
    let mut command = Command::new("bash");
    command.args(["-c", &script]).arg(daemon.get_program());
    command.args(daemon.get_args());
    for (name, value) in daemon.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .env("NOTIFY_SOCKET", socket)
        .env("LISTEN_FDS", kept.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    command
}

/// The descriptors that are kept while no container is isolated: both connections, the user namespace of the server, the
/// state, the socket of the next daemon, and the journal of trapped system calls.
const KEPT: usize = 6;

#[test]
fn privileged_what_the_service_manager_kept_brings_both_programs_back() {
    let scene = scene();
    let manager = Manager::start(&scene);
    let daemon = scene.daemon_of(with_kept(&scene, &manager.path, &[]));
    manager.wait_until(|told| told.ready && told.kept.len() == KEPT);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mounts = container.mounts();
    scene.attach(&container);
    let grafted = container.mounts();
    container.ask(&["hold", "meminfo", "/proc/meminfo"]);

    daemon.crash();
    // Who reads now waits: the connections live.
    let reader = std::thread::spawn(move || {
        sees(&mut container, 128, 1);
        container.ask(&["again", "meminfo"]);
        container
    });
    let mut daemon = scene.daemon_of(with_kept(&scene, &manager.path, &manager.kept()));
    let mut container = reader.join().unwrap();
    assert_eq!(container.mounts(), grafted, "nothing was grafted anew");
    assert_eq!(scene.list().len(), 1);
    daemon.kill_server();
    sees(&mut container, 128, 1);
    daemon.wait_for("the server died");
    manager.wait_until(|told| told.kept.len() == KEPT);
    scene.detach(&container);
    assert_eq!(container.mounts(), mounts);
    sees_the_host(&mut container);
    drop(container);
    daemon.end();
    manager.wait_until(|told| told.kept.is_empty());
}

#[test]
fn privileged_what_is_no_connection_is_not_gone_on_with() {
    let scene = scene();
    let manager = Manager::start(&scene);
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    daemon.crash();
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let kept: Vec<(String, OwnedFd)> = ["cached", "live", "namespace", "state", "rendezvous"]
        .iter()
        .map(|name| (format!("eci-fs-{name}"), null()))
        .collect();
    let daemon = scene.daemon_of(with_kept(&scene, &manager.path, &kept));
    // It has grafted anew.
    sees(&mut container, 128, 1);
    drop(container);
    daemon.end();
}

/// The unit of the service.
const UNIT: &str = include_str!("../../mountd/eci-mountd.service");

/// The values of a setting of the unit.
fn settings(name: &str) -> Vec<&'static str> {
    let lines = UNIT.lines().filter_map(|line| line.split_once('='));
    let lines = lines.filter(|(key, _)| *key == name);
    lines.map(|(_, value)| value).collect()
}

#[test]
fn the_unit_gives_the_service_no_mount_namespace_and_survives_a_server_that_is_killed() {
    assert_eq!(settings("OOMPolicy"), ["continue"]);
    assert_eq!(settings("KillMode"), ["process"]);
    for (name, least) in [("CPUWeight", 100), ("TasksMax", 512)] {
        let value: u32 = settings(name)[0].parse().unwrap();
        assert!(value >= least, "{name}={value}");
    }
    // With one of these, nobody but the service would see the directories of `eci-fs mount`, or the service could not
    // enter containers or open its devices.
    for name in [
        "ProtectSystem",
        "ProtectHome",
        "ProtectControlGroups",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectClock",
        "ProtectProc",
        "ProtectHostname",
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateUsers",
        "ReadOnlyPaths",
        "InaccessiblePaths",
        "RestrictNamespaces",
        "DeviceAllow",
        "MemoryHigh",
    ] {
        assert_eq!(settings(name), [""; 0], "{name}");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("eci-mountd.service");
    let program = env!("CARGO_BIN_EXE_eci-fs");
    let text = UNIT.replace("/usr/local/bin/eci-mountd", program);
    std::fs::write(&unit, text.replace("/usr/local/bin/eci-fs", program)).unwrap();
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&unit)
        .output();
    let Ok(verify) = verify else {
        // A host without systemd has nothing to ask.
        return;
    };
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    assert!(verify.status.success() && said.is_empty(), "{said}");
}

/// The daemon does everything without the capabilities that the unit takes away.
#[test]
fn privileged_a_daemon_with_the_capabilities_of_the_unit_attaches_serves_and_is_upgraded() {
    let scene = scene();
    let dropped = settings("CapabilityBoundingSet");
    let dropped = dropped.iter().flat_map(|line| line.split([' ', '~']));
    let dropped: Vec<String> = dropped
        .filter_map(|name| name.strip_prefix("CAP_"))
        .map(|name| format!("-{}", name.to_lowercase()))
        .collect();
    assert!(dropped.len() > 15, "{dropped:?}");
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--inh-caps=-all", "--bounding-set"]);
    command.arg(dropped.join(","));
    let daemon = scene.command(&["mountd"]);
    command.arg(daemon.get_program()).args(daemon.get_args());
    for (name, value) in daemon.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut daemon = scene.daemon_of(command);
    let bounding = |pid| support::status_field(pid, "CapBnd:").unwrap();
    assert_ne!(bounding(daemon.pid()), bounding(std::process::id()));
    let plain = scene.container().limits(limits(128, 1.0));
    let mut plain = plain.options(&["--network"]).start();
    let user = scene.container().limits(limits(96, 1.0));
    let mut user = user.options(&["--network"]).user_namespace(true).start();
    for (container, mebibytes) in [(&mut plain, 128), (&mut user, 96)] {
        let mounts = container.mounts();
        scene.attach(container);
        sees(container, mebibytes, 1);
        // The daemon opens this file in the network namespace.
        container.ask(&["list", "/proc/sys/net/ipv4/neigh"]);
        container.read("/proc/sys/net/ipv4/neigh/lo/gc_stale_time");
        daemon.kill_server();
        daemon.wait_for("the server died");
        sees(container, mebibytes, 1);
        scene.detach(container);
        assert_eq!(container.mounts(), mounts);
        scene.attach(container);
    }
    scene.eci_fs(&["upgrade", "--only", "server"]).ok();
    sees(&mut plain, 128, 1);
    drop((plain, user));
    daemon.end();
}
