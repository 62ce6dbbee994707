//! `eci-fs hook --lxc`: the start-host hook of LXC.

use std::path::Path;
use std::process::Command;

use support::{Cgroup, Ran, Scene, find_program, number_after, uptime};

use crate::scene;

/// Run `program` in a container of LXC with 128 MiB.
#[track_caller]
fn execute(scene: &Scene, name: &str, program: &[&str]) -> Ran {
    let dir = scene.dir();
    // What LXC makes it removes, but for the cgroup into which it goes meanwhile.
    let top = Cgroup::named(Cgroup::fresh_path());
    let _pivot = Cgroup::named(format!("{}/lxc.pivot", top.path()));
    let hook = format!(
        "{} hook --lxc --runtime-dir {}",
        scene.program().display(),
        scene.runtime_dir().display()
    );
    let limit = match Path::new("/sys/fs/cgroup/memory").exists() {
        true => "lxc.cgroup.memory.limit_in_bytes",
        false => "lxc.cgroup2.memory.max",
    };
    let config = format!(
        "lxc.uts.name = {name}\nlxc.rootfs.path = dir:{}\nlxc.mount.auto = proc:mixed sys:mixed\n\
         lxc.net.0.type = empty\nlxc.cgroup.dir = {}\n{limit} = 134217728\n\
         lxc.hook.start-host = {hook}\nlxc.hook.post-stop = {hook}\n",
        scene.root().display(),
        top.path().trim_start_matches('/'),
    );
    let path = dir.join("lxc.conf");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(find_program("lxc-execute"));
    command.arg("--lxcpath").arg(dir).args(["--name", name]);
    command.arg("--rcfile").arg(path).arg("--").args(program);
    Ran::run(&mut command)
}

/// A name that no other container of the machine has.
fn name(scene: &Scene) -> String {
    let name = scene.dir().file_name().and_then(|name| name.to_str());
    format!("{}-lxc", name.unwrap())
}

#[test]
fn privileged_a_container_of_lxc_sees_its_limits_from_its_first_instruction_on() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let script = "busybox head -n1 /proc/meminfo; busybox cat /proc/uptime";
    let name = name(&scene);
    let ran = execute(&scene, &name, &["/bin/busybox", "sh", "-c", script]);
    let text = ran.ok();
    assert_eq!(number_after(&text, "MemTotal:"), 128 << 10, "{text}");
    let (_, up) = text.split_once('\n').unwrap();
    assert!(uptime(up) < 60.0, "{text}");
    assert_eq!(scene.list().len(), 0);
    daemon.end();
}

#[test]
fn privileged_a_container_of_lxc_without_a_daemon_does_not_start() {
    let scene = scene();
    let name = name(&scene);
    let ran = execute(&scene, &name, &["/bin/busybox", "echo", "started"]);
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    let log = std::fs::read_to_string(scene.runtime_dir().join("hook.log")).unwrap();
    assert!(
        log.contains(&name) && log.contains("no eci-mountd"),
        "{log}"
    );
}
