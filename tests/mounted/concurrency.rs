//! Many readers of one view at once.

use serde_json::Value;

use crate::{scene, views};

#[test]
fn privileged_eight_threads_that_read_a_view_see_no_torn_text() {
    let scene = scene();
    let mut container = scene.container().start();
    scene.attach(&container);
    let views = views(&container);
    for path in [
        "/proc/meminfo",
        "/proc/stat",
        "/proc/uptime",
        "/proc/loadavg",
    ] {
        assert!(views.iter().any(|view| view.path == path), "{path}");
        // The time is shared, so that all together it is two seconds.
        let seen = container.ask(&["stress", path, "8", "500"]);
        let count = |what: &str| seen[what].as_object().map(serde_json::Map::len);
        assert_eq!(count("forms"), Some(1), "{path}: {seen}");
        let zeros = seen["zeros"].as_u64().unwrap();
        assert!(
            zeros * 1000 <= seen["reads"].as_u64().unwrap(),
            "{path}: {seen}"
        );
        if path == "/proc/meminfo" {
            // The kernel's columns are wide enough for every number.
            assert_eq!(count("lengths"), Some(1), "{path}: {seen}");
        }
        assert!(seen["reads"].as_u64() > Some(1000), "{path}: {seen}");
    }
}

#[test]
fn privileged_threads_and_processes_that_read_different_views_do_not_disturb_each_other() {
    let scene = scene();
    let mut first = scene.container().start();
    let mut second = scene.container().start();
    scene.attach(&first);
    scene.attach(&second);
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| first.ask(&["stress", "/proc/meminfo", "4", "500"]));
        let other = second.ask(&["stress", "/proc/cpuinfo", "4", "500"]);
        (one.join().unwrap(), other)
    });
    let single = |seen: &Value| seen["forms"].as_object().map(serde_json::Map::len) == Some(1);
    assert!(single(&one) && single(&other), "{one} {other}");
}
