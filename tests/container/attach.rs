//! `eci-fs attach` and `detach`.

use std::os::fd::AsFd;
use std::process::Stdio;

use support::{Limits, children_of, mounts_of, number_after};

use crate::{limits, scene, sees, sees_the_host};

#[test]
fn privileged_two_containers_see_their_own_limits_and_the_host_sees_its_own() {
    let scene = scene();
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    let mut first = scene.container().limits(limits(128, 1.0)).start();
    let mut second = scene
        .container()
        .limits(limits(512, 2.0))
        .user_namespace(true)
        .start();
    let cpus = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    scene.attach(&first);
    scene.attach(&second);
    sees(&mut first, 128, 1);
    sees(&mut second, 512, 2);
    let total = |text: &str| number_after(text, "MemTotal:");
    let now = std::fs::read_to_string("/proc/meminfo").unwrap();
    assert_eq!(total(&now), total(&host));
    let now = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    assert_eq!(now, cpus);
    let grafts = mounts_of("thread-self")
        .into_iter()
        .filter(|m| m.contains(" eci-fs "));
    assert_eq!(grafts.count(), 0, "no graft appears on the host");
}

#[test]
fn privileged_detach_gives_the_files_of_the_kernel_back() {
    let scene = scene();
    for user in [false, true] {
        let mut container = scene
            .container()
            .limits(limits(128, 1.0))
            .user_namespace(user)
            .start();
        let before = container.mounts();
        for _ in 0..3 {
            scene.attach(&container);
            sees(&mut container, 128, 1);
            assert!(container.mounts().len() > before.len());
            scene.detach(&container);
            assert_eq!(container.mounts(), before);
            sees_the_host(&mut container);
        }
    }
}

#[test]
fn privileged_a_container_is_attached_and_detached_by_any_process_in_it_and_by_name() {
    let scene = scene();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let program = container.program("probe");
    container.ask(&["start", "other", &program, "agent"]);
    let other = children_of(container.pid())[0].to_string();
    scene.eci_fs(&["attach", "--id", "web", &other]).ok();
    sees(&mut container, 128, 1);
    let listed = scene.list();
    // Its life is that of its pid 1, whoever was named.
    assert_eq!(listed[0]["pid"], container.pid());
    assert_eq!(listed[0]["id"], "web");
    scene.eci_fs(&["detach", &other]).ok();
    sees_the_host(&mut container);
    scene.eci_fs(&["attach", "--id", "web", &other]).ok();
    scene.eci_fs(&["detach", "web"]).ok();
    sees_the_host(&mut container);
}

#[test]
fn privileged_a_container_that_is_attached_already_is_left_as_it_is() {
    let scene = scene();
    let container = scene.container().start();
    scene.attach(&container);
    let mounts = container.mounts();
    let said = scene.attach(&container);
    assert!(said.contains("attached already"), "{said}");
    assert_eq!(container.mounts(), mounts);
    assert_eq!(scene.list().len(), 1);
}

#[test]
fn privileged_a_lower_limit_of_an_ancestor_counts() {
    let scene = scene();
    let mut container = scene.container().limits(limits(256, 2.0)).start();
    let lower = container.cgroup().child("inner", &Limits::default());
    lower.add(container.pid());
    scene.attach(&container);
    container.cgroup().limit(&Limits {
        memory: Some(96 << 20),
        ..Limits::default()
    });
    support::let_time_pass(std::time::Duration::from_millis(30));
    let text = container.read("/proc/meminfo");
    assert_eq!(number_after(&text, "MemTotal:"), 96 << 10);
    // Its own first, or its parent could not be removed.
    container.kill();
}

#[test]
fn privileged_attach_leaves_nobody_with_the_outputs_of_the_command() {
    let scene = scene();
    let container = scene.container().start();
    let mut command = scene.command(&["attach", &container.pid().to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    assert!(child.wait().unwrap().success());
    assert!(scene.daemon_pid().is_some(), "the daemon goes on");
    // A runtime waits until nobody has the outputs of a hook any more, and so do many who start a command.
    assert!(support::has_ended(stdout.as_fd()), "standard output");
    assert!(support::has_ended(stderr.as_fd()), "standard error");
}
