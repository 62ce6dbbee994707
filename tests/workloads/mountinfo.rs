//! Every mount that mountinfo lists can be walked to: programs that look at disks walk to all of them.

use std::process::Command;

use serde_json::json;
use support::{Bundle, Container, Engine, Limits, Ran, Scene};

use crate::scene;

/// Prints the mount points below /proc and /sys that stat(2) or statfs(2) fail at, with what mountinfo says.
const WALK: &str = r#"while read -r id parent device root point rest; do
    case $point in /proc*|/sys*) ;; *) continue ;; esac
    busybox stat "$point" > /dev/null && busybox stat -f "$point" > /dev/null || echo "$point $rest"
done < /proc/self/mountinfo"#;

/// Prints the mounts of a whole procfs or sysfs at other places, and what they show of memory and CPUs.
const THROUGH: &str = r#"while read -r id parent device root point rest; do
    case "$root $rest" in "/ "*" - proc "*|"/ "*" - sysfs "*) ;; *) continue ;; esac
    case $point in /proc|/sys) continue ;; esac
    echo "$point $(busybox ls "$point/meminfo" "$point/devices/system/cpu/online" 2> /dev/null)"
done < /proc/self/mountinfo"#;

/// What an engine hides, as docker does, and nothing.
const MASKED: [(&[&str], &[&str]); 2] = [
    (&[], &[]),
    (
        &["/proc/keys", "/proc/timer_list", "/sys/firmware"],
        &["/proc/fs", "/proc/irq", "/proc/sys"],
    ),
];

#[track_caller]
fn check(container: &mut Container, how: &str) {
    let mut sh = |script: &str| container.run(&["/bin/busybox", "sh", "-c", script]);
    assert_eq!(sh(WALK), "", "{how}");
    for spare in sh(THROUGH).lines() {
        // A path to a spare ends in a directory that has neither.
        assert!(spare.ends_with(' '), "{how}: {spare}");
    }
    assert!(sh("busybox df").contains("Mounted on"), "{how}");
}

#[track_caller]
fn bundle(scene: &Scene, engine: Engine, user: bool, hides: (&[&str], &[&str])) -> Bundle {
    let bundle = Bundle::new(scene, engine, &Limits::default(), user);
    bundle.change(|config| {
        config["linux"]["maskedPaths"] = json!(hides.0);
        config["linux"]["readonlyPaths"] = json!(hides.1);
    });
    bundle
}

#[test]
fn privileged_every_line_of_mountinfo_can_be_walked_to_in_containers_of_engines() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    for engine in [Engine::Runc, Engine::Crun] {
        for user in [false, true] {
            for hides in MASKED {
                let how = format!("{engine:?} {user} {hides:?}");
                let mut container = Container::of_bundle(bundle(&scene, engine, user, hides));
                check(&mut container, &format!("{how} without grafts"));
                scene.attach(&container);
                check(&mut container, &format!("{how} attached"));
                let hooked = bundle(&scene, engine, user, hides);
                hooked.hook(&scene, &[]);
                check(
                    &mut Container::of_bundle(hooked),
                    &format!("{how} by a hook"),
                );
            }
        }
    }
    daemon.end();
}

#[test]
fn privileged_every_line_of_mountinfo_can_be_walked_to_in_run_and_a_disk_check_says_what_it_says_outside()
 {
    let scene = scene();
    let run = |script: &str| {
        let script = format!("{script}\n{WALK}\n{THROUGH}");
        scene
            .eci_fs(&["run", "--memory", "64M", "--", "sh", "-c", &script])
            .ok()
    };
    let said = run("");
    assert!(said.lines().all(|line| line.ends_with(' ')), "{said}");
    // A file system of the host may be full, so that not even a disk check outside is content.
    let check = "/usr/lib/nagios/plugins/check_disk -w 0 -c 0; true";
    let verdict = |said: &str| said.split(" - ").next().map(str::to_owned);
    let outside = Ran::run(Command::new("sh").args(["-c", check])).ok();
    let inside = run(&format!("busybox df > /dev/null && {check}"));
    assert_eq!(verdict(&inside), verdict(&outside), "{inside}");
    assert!(
        inside.contains("free space") && !inside.contains("not accessible"),
        "{inside}"
    );
}
