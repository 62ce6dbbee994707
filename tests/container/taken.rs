//! The server is a user without files: code that has taken it over can do nothing, and all views work.

use intruder::{Inside, attempts};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{limits, scene, sees};

#[test]
fn privileged_code_in_the_server_can_do_nothing_to_the_host() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let container = scene.container().start();
    scene.attach(&container);
    let mut inside = Inside::of(daemon.server()).unwrap();
    let dir = scene.dir().join("attacked");
    let sleeper = ["sleep", "1000"];
    let (count, allowed) = attempts(&mut inside, &dir, &sleeper, daemon.pid()).unwrap();
    drop(inside);
    assert!(count > 200, "{count}");
    let allowed: Vec<String> = allowed
        .into_iter()
        .map(|one| format!("{}: {}", one.attempt, one.result))
        .collect();
    assert!(
        allowed.is_empty(),
        "{} of {count} attempts were allowed:\n{}",
        allowed.len(),
        allowed.join("\n")
    );
    // The server serves as before.
    scene.detach(&container);
    daemon.end();
}

/// Without a group that sees all of /proc the server would see no process.
#[test]
fn privileged_threads_are_counted_where_proc_hides_the_processes_of_others() {
    let scene = scene();
    mount("proc", "/proc", "proc", MountFlags::empty(), c"hidepid=2").unwrap();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    sees(&mut container, 128, 1);
    let loadavg = container.read("/proc/loadavg");
    let tasks = loadavg.split(' ').nth(3).unwrap();
    let (_, all) = tasks.split_once('/').unwrap();
    assert!(all.parse::<u32>().unwrap() > 0, "{loadavg}");
    scene.detach(&container);
    drop(container);
    daemon.end();
    unmount("/proc", UnmountFlags::DETACH).unwrap();
}

/// A cgroup that only its owner can search would be none for the server.
#[test]
fn privileged_views_of_a_run_work_whatever_the_mask_of_its_caller() {
    let scene = scene();
    let line = format!(
        "umask 077; exec {} run --memory 128M -- cat /proc/meminfo",
        scene.program().display()
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line]);
    command.env("ECI_FS_RUNTIME_DIR", scene.runtime_dir());
    let ran = support::Ran::run(&mut command);
    let meminfo = ran.ok();
    assert_eq!(
        support::number_after(&meminfo, "MemTotal:"),
        128 << 10,
        "{meminfo}"
    );
}
