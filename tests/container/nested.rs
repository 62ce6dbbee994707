//! Cgroups and pid namespaces inside of a container.

use serde_json::Value;
use support::{Limits, children_of, number_after, uptime};

use crate::{limits, scene, sees};

#[test]
fn privileged_a_process_in_a_cgroup_of_its_own_sees_the_limits_of_the_container() {
    let scene = scene();
    let mut container = scene.container().limits(limits(256, 2.0)).start();
    scene.attach(&container);
    let program = container.program("probe");
    container.ask(&["start", "inner", &program, "agent"]);
    let inner = children_of(container.pid())[0];
    // With v2 a cgroup has processes or children with controllers, not both.
    let leaf = container.cgroup().child("leaf", &Limits::default());
    leaf.add(container.pid());
    leaf.add(container.launcher());
    leaf.add(inner);
    let lower = container.cgroup().child("lower", &limits(64, 0.5));
    lower.add(inner);
    let answer = container.ask(&[
        "tell",
        "inner",
        r#"["read", "/proc/meminfo", "/proc/cpuinfo"]"#,
    ]);
    let text = |path: &str| answer["ok"][path].as_str().unwrap().to_owned();
    assert_eq!(number_after(&text("/proc/meminfo"), "MemTotal:"), 256 << 10);
    assert_eq!(support::count_cpus(&text("/proc/cpuinfo")), 2);
    sees(&mut container, 256, 2);
    container.kill();
}

#[test]
fn privileged_a_process_in_an_inner_pid_namespace_sees_the_container() {
    let scene = scene();
    let mut container = scene.container().limits(limits(256, 1.0)).start();
    scene.attach(&container);
    let before = uptime(&container.read("/proc/uptime"));
    let program = container.program("probe");
    let options = ["--at-once", "--proc", "inherited", "--", &program, "agent"];
    container.ask(&[&["start", "inner", &program, "contain"], &options[..]].concat());
    let answer = container.ask(&[
        "tell",
        "inner",
        r#"["read", "/proc/meminfo", "/proc/uptime"]"#,
    ]);
    let text = |path: &str| answer["ok"][path].as_str().unwrap().to_owned();
    assert_eq!(number_after(&text("/proc/meminfo"), "MemTotal:"), 256 << 10);
    assert!(uptime(&text("/proc/uptime")) >= before);
    container.ask(&["end", "inner"]);
}

#[test]
fn privileged_a_container_in_a_container_is_attached_for_itself() {
    let scene = scene();
    let mut container = scene.container().limits(limits(256, 1.0)).start();
    scene.attach(&container);
    let program = container.program("probe");
    let options = [
        "--at-once",
        "--proc",
        "kernel-and-sys",
        "--",
        &program,
        "agent",
    ];
    container.ask(&[&["start", "inner", &program, "contain"], &options[..]].concat());
    let stage = children_of(container.pid())[0];
    let inner = children_of(stage)[0];
    // Its cgroup namespace began in the cgroup of the outer one; it is moved out of that, so its own limit counts.
    let cgroup = support::Cgroup::new(&limits(64, 1.0));
    cgroup.add(inner);
    let tell = |container: &mut support::Container, line: &str| -> Value {
        container.ask(&["tell", "inner", line])["ok"].clone()
    };
    // Its /proc is a new one, without grafts.
    let read = r#"["read", "/proc/meminfo", "/proc/uptime"]"#;
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = |text: &Value| number_after(text["/proc/meminfo"].as_str().unwrap(), "MemTotal:");
    assert_eq!(
        total(&tell(&mut container, read)),
        number_after(&host, "MemTotal:")
    );
    scene.eci_fs(&["attach", &inner.to_string()]).ok();
    assert_eq!(total(&tell(&mut container, read)), 64 << 10);
    sees(&mut container, 256, 1);
    scene.eci_fs(&["detach", &inner.to_string()]).ok();
    assert_eq!(
        total(&tell(&mut container, read)),
        number_after(&host, "MemTotal:")
    );
    sees(&mut container, 256, 1);
    container.ask(&["end", "inner"]);
}
