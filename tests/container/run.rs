//! `eci-fs run`.

use support::number_after;

use crate::scene;

#[test]
fn privileged_run_shows_the_limits_it_was_given() {
    let scene = scene();
    let script = "free -m; getconf _NPROCESSORS_ONLN; head -1 /proc/meminfo";
    let text = scene
        .eci_fs(&[
            "run", "--memory", "256M", "--cpus", "0.5", "--", "sh", "-c", script,
        ])
        .ok();
    assert_eq!(number_after(&text, "Mem:"), 256, "{text}");
}
