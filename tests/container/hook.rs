//! `eci-fs hook`: containers of runc, crun and youki have their views from their first instruction on.

mod annotations;
mod daemonless;
mod odd_files;

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use serde_json::{Value, json};
use support::{Bundle, Container, Engine, Ran, Scene, children_of, number_after};

use crate::{limits, scene, sees};

/// Each runtime, without a user namespace and with one.
fn kinds() -> impl Iterator<Item = (Engine, bool)> {
    Engine::RUNTIMES
        .into_iter()
        .flat_map(|engine| [(engine, false), (engine, true)])
}

/// A bundle of 192 MiB and half a CPU whose runtime calls the hook.
#[track_caller]
fn hooked(scene: &Scene, engine: Engine, user: bool) -> Bundle {
    let bundle = Bundle::new(scene, engine, &limits(192, 0.5), user);
    bundle.hook(scene, &[]);
    bundle
}

/// Start containers of all kinds whose configuration is changed so; each sees its limits.
#[track_caller]
fn all_see_their_limits(change: impl Fn(&mut Value)) {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    for (engine, user) in kinds() {
        let bundle = hooked(&scene, engine, user);
        bundle.change(&change);
        let name = bundle.name().to_owned();
        let mut container = Container::of_bundle(bundle);
        sees(&mut container, 192, 1);
        let listed = scene.list();
        assert_eq!(listed[0]["id"], name.as_str(), "{engine:?} {listed:?}");
        assert_eq!(listed[0]["pid"], container.pid(), "{engine:?} {listed:?}");
        drop(container);
        assert_eq!(scene.list().len(), 0, "{engine:?}");
    }
    daemon.end();
}

#[test]
fn privileged_containers_of_each_runtime_see_their_limits_from_the_start() {
    all_see_their_limits(|_| {});
}

#[test]
fn privileged_the_first_program_of_a_container_reads_its_own_figures() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let null = || {
        let stat = std::fs::metadata("/dev/null").unwrap();
        (stat.uid(), stat.gid(), stat.mode())
    };
    let before = null();
    for (engine, user) in kinds() {
        let bundle = hooked(&scene, engine, user);
        bundle.program(&["/bin/busybox", "head", "-n", "1", "/proc/meminfo"]);
        let text = bundle.run().ok();
        assert_eq!(
            number_after(&text, "MemTotal:"),
            192 << 10,
            "{engine:?} {user}"
        );
    }
    // A runtime must not be handed a device of the host.
    assert_eq!(null(), before);
    daemon.end();
}

#[test]
fn privileged_a_container_without_masked_and_read_only_paths_sees_its_limits() {
    all_see_their_limits(|config| {
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        config["mounts"][2]["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
    });
}

/// Gives the container these capabilities, and does not have its agent take any out of the bounding set.
fn with_capabilities(config: &mut Value, capabilities: &Value) {
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = capabilities.clone();
    }
    config["process"]["args"] = json!(["/bin/probe", "agent", "measuring"]);
}

#[test]
fn privileged_a_container_with_many_capabilities_and_a_writable_root_sees_its_limits() {
    all_see_their_limits(|config| {
        let many = json!(["CAP_KILL", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"]);
        with_capabilities(config, &many);
        config["process"]["noNewPrivileges"] = json!(false);
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        config["root"]["readonly"] = json!(false);
    });
}

#[test]
fn privileged_a_container_that_can_measure_cpus_sees_them_all_from_the_start() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let all = support::cpu_list(&online).len();
    for (engine, user) in kinds() {
        for capability in ["CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"] {
            let bundle = hooked(&scene, engine, user);
            bundle.change(|config| {
                with_capabilities(config, &json!(["CAP_KILL", capability]));
                config["linux"]["maskedPaths"] = json!([]);
                config["linux"]["readonlyPaths"] = json!([]);
            });
            let mut container = Container::of_bundle(bundle);
            // In a user namespace of its own it measures nothing.
            sees(&mut container, 192, if user { 1 } else { all });
        }
    }
    daemon.end();
}

#[test]
fn privileged_a_container_in_the_cgroup_namespace_of_the_host_sees_its_limits() {
    all_see_their_limits(|config| without(config, "cgroup"));
}

#[test]
fn privileged_tunables_and_the_settings_of_namespaces_are_the_containers_own() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let path = "/proc/sys/vm/max_map_count";
    let machine = std::fs::read_to_string(path).unwrap();
    for (engine, user) in kinds() {
        let bundle = hooked(&scene, engine, user);
        // What the runtime itself writes, to files that are not grafted.
        bundle.change(|config| {
            config["linux"]["sysctl"] = json!({
                "net.ipv4.ip_forward": "1",
                "net.core.somaxconn": "4242",
                "kernel.msgmax": "12345",
            });
        });
        let mut container = Container::of_bundle(bundle);
        assert_eq!(container.read("/proc/sys/net/ipv4/ip_forward"), "1\n");
        assert_eq!(container.read("/proc/sys/net/core/somaxconn"), "4242\n");
        assert_eq!(container.read("/proc/sys/kernel/msgmax"), "12345\n");
        // /proc/sys was made read-only after the grafts, which are not.
        assert_eq!(container.read(path), machine, "{engine:?} {user}");
        container.ask(&["write", path, "262145"]);
        assert_eq!(container.read(path), "262145\n", "{engine:?} {user}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), machine);
    }
    daemon.end();
}

#[test]
fn privileged_a_container_that_is_made_without_proc_and_sys_starts() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    // runc itself cannot start one: it looks into its /proc.
    for user in [false, true] {
        let bundle = hooked(&scene, Engine::Crun, user);
        bundle.change(|config| {
            config["mounts"] = json!([config["mounts"][1]]);
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        });
        bundle.program(&["/bin/busybox", "ls", "/proc", "/sys"]);
        bundle.run().ok();
        assert_eq!(scene.list().len(), 0);
    }
    daemon.end();
}

#[test]
fn privileged_two_containers_of_one_name_and_two_hooks_of_one_container_have_their_views() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut containers = Vec::new();
    for _ in 0..2 {
        let bundle = hooked(&scene, Engine::Runc, false);
        bundle.change(|config| {
            let hooks = &mut config["hooks"]["createRuntime"];
            // As two roots of a runtime may have it.
            let state = r#"{"id":"web","pid":'"$pid"',"bundle":"'"$PWD"'"}"#;
            let parse = r#"pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/')"#;
            let program = scene.program().display();
            let run = scene.runtime_dir();
            let call = format!("{program} hook --runtime-dir {}", run.display());
            let script = format!("{parse}; for i in 1 2; do echo '{state}' | {call}; done");
            *hooks = json!([{ "path": "/bin/sh", "args": ["sh", "-e", "-c", script] }]);
        });
        containers.push(Container::of_bundle(bundle));
    }
    for container in &mut containers {
        sees(container, 192, 1);
    }
    let listed = scene.list();
    let second = format!("web-{}", containers[1].pid());
    assert_eq!(
        (&listed[0]["id"], &listed[1]["id"]),
        (&json!("web"), &json!(second))
    );
    drop(containers);
    daemon.end();
}

/// Share a namespace with the host.
fn without(config: &mut Value, namespace: &str) {
    if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
        list.retain(|entry| entry["type"] != namespace);
    }
}

#[test]
fn privileged_a_container_in_the_pid_namespace_of_the_host_sees_its_limits() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let bundle = hooked(&scene, engine, false);
        bundle.change(|config| without(config, "pid"));
        let mut container = Container::of_bundle(bundle);
        sees(&mut container, 192, 1);
        assert_eq!(scene.list()[0]["pid"], container.pid());
        drop(container);
        assert_eq!(scene.list().len(), 0);
    }
    daemon.end();
}

#[test]
fn privileged_containers_of_a_pod_share_a_pid_namespace_and_see_each_its_own_limits() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let mut pause = Container::of_bundle(hooked(&scene, engine, false));
        let bundle = Bundle::new(&scene, engine, &limits(96, 1.0), false);
        bundle.hook(&scene, &[]);
        let path = format!("/proc/{}/ns/pid", pause.pid());
        bundle.change(|config| {
            config["linux"]["namespaces"][0] = json!({ "type": "pid", "path": path });
        });
        let mut second = Container::of_bundle(bundle);
        sees(&mut second, 96, 1);
        sees(&mut pause, 192, 1);
        assert_eq!(scene.list().len(), 2);
        drop(second);
        sees(&mut pause, 192, 1);
        drop(pause);
        assert_eq!(scene.list().len(), 0);
    }
    daemon.end();
}

/// What a hook said that failed. crun throws it away; it is in the log too, with the name of the container.
#[track_caller]
fn said(scene: &Scene, engine: Engine, ran: &Ran) -> String {
    let log = std::fs::read_to_string(scene.runtime_dir().join("hook.log")).unwrap();
    let last = log.lines().last().unwrap_or_default().to_owned();
    if engine == Engine::Runc {
        let (_time, error) = last.split_once(' ').unwrap();
        assert!(ran.stderr.contains(error), "{ran:?}");
    }
    last
}

#[test]
fn privileged_a_container_of_a_user_who_is_not_root_is_left_alone() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let bundle = Bundle::new(&scene, Engine::Runc, &limits(192, 0.5), false);
    let state = scene.dir().join("state.json");
    let text = json!({ "id": "web", "pid": std::process::id(), "bundle": bundle.dir() });
    std::fs::write(&state, text.to_string()).unwrap();
    let as_user = |arguments: &[&str]| {
        let eci_fs = scene.command_for_everybody(&[]);
        let mut command = std::process::Command::new(support::find_program("setpriv"));
        command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]);
        command.args(["unshare", "--user", "--map-root-user"]);
        command.arg(eci_fs.get_program()).args(arguments);
        command.stdin(std::fs::File::open(&state).unwrap());
        let ran = Ran::from_output(format!("{command:?}"), &command.output().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    };
    let run = scene.runtime_dir();
    let ran = as_user(&["hook", "--runtime-dir", run.to_str().unwrap()]);
    assert!(ran.stderr.contains("going on without views"), "{ran:?}");
    assert_eq!(scene.list().len(), 0);
    let config = scene.dir().join("config.toml");
    std::fs::write(&config, format!("[hook]\nruntime-dir = {run:?}\n")).unwrap();
    let (config, dir) = (config.to_str().unwrap(), bundle.dir().to_str().unwrap());
    let options = ["--eci-runtime-path", "/bin/echo", "--eci-config", config];
    let create = ["create", "--bundle", dir, "web"];
    let ran = as_user(&[&["runtime"][..], &options, &create].concat());
    assert_eq!(ran.stdout.trim_end(), create.join(" "));
    assert_eq!(bundle.config()["hooks"], Value::Null);
    daemon.end();
}

#[test]
fn privileged_a_hook_can_start_a_daemon_and_leaves_nobody_with_its_outputs() {
    let scene = scene();
    for engine in Engine::RUNTIMES {
        let bundle = Bundle::new(&scene, engine, &limits(192, 0.5), false);
        bundle.hook(&scene, &["--start"]);
        // A runtime waits until nobody has the outputs of a hook any more.
        let mut container = Container::of_bundle(bundle);
        sees(&mut container, 192, 1);
    }
    scene.note_background();
}

/// Start fifty containers at once; each reads its own limit, and nothing is left.
#[track_caller]
fn fifty_at_once(engine: Engine) {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let bundles: Vec<Bundle> = (0..50)
        .map(|index| {
            let bundle = Bundle::new(&scene, engine, &limits(64 + index, 1.0), false);
            // They wait for one another, and for what else the machine does.
            bundle.hook(&scene, &["--timeout", "100"]);
            bundle.program(&["/bin/busybox", "head", "-n", "1", "/proc/meminfo"]);
            bundle
        })
        .collect();
    let all = Ran::all(bundles.iter().map(Bundle::run_command));
    for (index, ran) in all.into_iter().enumerate() {
        assert_eq!(
            number_after(&ran.ok(), "MemTotal:"),
            (64 + index as u64) << 10
        );
    }
    drop(bundles);
    assert_eq!(scene.list().len(), 0);
    assert_eq!(children_of(daemon.pid()).len(), 1);
    daemon.end();
}

#[test]
fn privileged_fifty_containers_of_runc_at_once_have_their_views() {
    fifty_at_once(Engine::Runc);
}

#[test]
fn privileged_fifty_containers_of_crun_at_once_have_their_views() {
    fifty_at_once(Engine::Crun);
}

#[test]
fn privileged_fifty_containers_of_youki_at_once_have_their_views() {
    fifty_at_once(Engine::Youki);
}

#[test]
fn privileged_the_cgroup_of_a_hook_stays_the_containers_when_its_init_moves_itself() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let bundle = hooked(&scene, Engine::Runc, false);
    bundle.change(|config| without(config, "cgroup"));
    let mut container = Container::of_bundle(bundle);
    let lower = support::Limits {
        memory: Some(64 << 20),
        ..support::Limits::default()
    };
    let inner = container.cgroup().child("init.scope", &lower);
    inner.add(container.pid());
    daemon.kill_server();
    daemon.wait_for("the server died");
    sees(&mut container, 192, 1);
    // Its own first, or its parent could not be removed.
    container.kill();
    drop(inner);
    drop(container);
    daemon.end();
}

#[test]
fn privileged_a_container_of_a_user_namespace_has_the_ping_sockets_that_its_engine_sets() {
    const RANGE: &str = "/proc/sys/net/ipv4/ping_group_range";
    const PING: &str = "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM, s.IPPROTO_ICMP)";
    let scene = scene();
    let daemon = scene.daemon(&[]);
    // crun and youki write sysctls before they call the hook. The second range is the default of podman and systemd, which
    // the kernel refuses in a user namespace.
    for (range, shown, code) in [
        ("3 2", "65534\t65534\n", 1),
        ("0 2147483647", "0\t65535\n", 0),
    ] {
        let bundle = hooked(&scene, Engine::Runc, true);
        bundle.change(|config| {
            config["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": range });
        });
        let mut container = Container::of_bundle(bundle);
        assert_eq!(container.read(RANGE), shown);
        let pid = container.pid().to_string();
        let inside = ["--user", "--net", "--target", &pid, "python3", "-c", PING];
        let ran = Ran::run(Command::new("nsenter").args(inside));
        assert_eq!(ran.code, Some(code), "{range}: {ran:?}");
    }
    daemon.end();
}
