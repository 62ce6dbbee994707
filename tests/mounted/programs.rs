//! Programs that read views in special ways: after stat(2), after seeks, and by sendfile(2).

use support::form;

use crate::{LIMITS, cached, scene, views};

#[test]
fn privileged_programs_agree_on_length_and_end_of_every_view() {
    let scene = scene();
    let mut container = scene.container().limits(LIMITS).start();
    scene.attach(&container);
    let cached = cached(&scene, &container);
    for facts in views(&container) {
        let path = facts.path;
        // busybox copies with sendfile(2), and reads up to the size that stat(2) tells where it can.
        let cat = container.busybox(&["cat", path]);
        let read = container.read(path);
        assert_eq!(form(&cat), form(&read), "{path}");
        let last = container.busybox(&["tail", "-n1", path]);
        let expected = cat.lines().next_back().unwrap_or_default();
        assert_eq!(
            form(last.trim_end_matches('\n')),
            form(expected),
            "{path}: tail"
        );
        let lines = container.busybox(&["sed", "-n", "$=", path]);
        let count = cat.lines().count();
        assert_eq!(lines.trim().parse().unwrap_or(0), count, "{path}: sed");
        if !cached.iter().any(|cached| cached == path) {
            continue;
        }
        assert_eq!(cat.len(), read.len(), "{path}");
        let size = container.busybox(&["stat", "-c", "%s", path]);
        assert_eq!(size.trim(), cat.len().to_string(), "{path}: stat");
        let count = container.busybox(&["wc", "-c", path]);
        let count = count.split_whitespace().next().unwrap();
        assert_eq!(count, cat.len().to_string(), "{path}: wc -c");
        let first = container.busybox(&["head", "-c", "5", path]);
        assert_eq!(form(&first), form(&cat[..cat.len().min(5)]), "{path}: head");
        let copied = container.busybox(&["dd", "bs=13", &format!("if={path}")]);
        assert_eq!(copied.len(), cat.len(), "{path}: dd");
    }
}

#[test]
fn privileged_a_shell_that_reads_byte_by_byte_sees_whole_lines() {
    let scene = scene();
    let mut container = scene.container().limits(LIMITS).start();
    scene.attach(&container);
    let script = "while read line; do echo \"$line\"; done < /proc/meminfo";
    let lines = container.busybox(&["sh", "-c", script]);
    let whole = container.read("/proc/meminfo");
    assert_eq!(form(&lines), form(&whole));
}
