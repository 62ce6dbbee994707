//! User namespaces in a container: they can mount a procfs and a sysfs exactly where they can without grafts.

use serde_json::json;
use support::{Bundle, Container, Engine, Limits, Scene};

use crate::scene;

/// Mount both in a new user namespace, and read of them.
const MOUNT: &str = "busybox unshare --user --map-root-user --mount --pid --fork --net busybox sh -c \
    'busybox mount -t proc proc /proc; echo $?; busybox head -n 1 /proc/meminfo; \
     busybox mount -t sysfs -o ro sysfs /sys; echo $?'";

/// What hides something: masked files, and what is read-only.
const MASKS: &[(&[&str], &[&str])] = &[
    (&[], &[]),
    (&["/proc/keys"], &[]),
    (&[], &["/proc/sys"]),
    (&["/sys/firmware"], &[]),
];

fn bundle(
    scene: &Scene,
    engine: Engine,
    user: bool,
    masked: &[&str],
    read_only: &[&str],
) -> Bundle {
    let bundle = Bundle::new(scene, engine, &Limits::default(), user);
    bundle.change(|config| {
        // Without it nobody maps a root to another.
        let may = json!(["CAP_KILL", "CAP_SETFCAP"]);
        config["process"]["capabilities"] =
            json!({ "bounding": may, "effective": may, "permitted": may });
        config["linux"]["maskedPaths"] = json!(masked);
        config["linux"]["readonlyPaths"] = json!(read_only);
    });
    bundle
}

/// Whether a procfs and a sysfs could be mounted.
#[track_caller]
fn try_mounting(container: &mut Container) -> [bool; 2] {
    let ran = container.try_run(&["/bin/busybox", "sh", "-c", MOUNT]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let [proc, _, sys] = lines[..] else {
        panic!("{ran:?}");
    };
    [proc == "0", sys == "0"]
}

#[test]
fn privileged_user_namespaces_in_a_container_mount_proc_and_sys_where_they_may_without_grafts() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        for user in [false, true] {
            for (masked, read_only) in MASKS {
                let make = || bundle(&scene, engine, user, masked, read_only);
                let mut container = Container::of_bundle(make());
                let bare = try_mounting(&mut container);
                // When all is in place, and when the engine has not come so far.
                scene.attach(&container);
                let attached = try_mounting(&mut container);
                let hooked = make();
                hooked.hook(&scene, &[]);
                let hooked = try_mounting(&mut Container::of_bundle(hooked));
                let all = format!("{engine:?} {user} {masked:?} {read_only:?}");
                if masked.is_empty() && read_only.is_empty() {
                    assert_eq!([bare, attached, hooked], [[true; 2]; 3], "{all}");
                    continue;
                }
                assert!(bare.contains(&false), "{all}: {bare:?}");
                // Something is hidden: of that nothing more is seen with grafts.
                for grafted in [attached, hooked] {
                    let more = grafted
                        .iter()
                        .zip(bare)
                        .any(|(with, without)| *with && !without);
                    assert!(!more, "{all}: {grafted:?} {bare:?}");
                }
            }
        }
    }
    daemon.end();
}

/// The mounts of a procfs or sysfs as a whole.
fn whole(container: &Container) -> usize {
    let mounts = container.mounts();
    let lines = mounts
        .iter()
        .filter(|line| line.split(' ').nth(3) == Some("/"));
    lines
        .filter(|line| line.contains(" - proc ") || line.contains(" - sysfs "))
        .count()
}

#[test]
fn privileged_what_is_kept_for_user_namespaces_is_never_reached_and_goes_with_the_grafts() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut container = Container::of_bundle(bundle(&scene, Engine::Runc, true, &[], &[]));
    let list = ["list", "/proc/fs", "/proc/fs/sys", "/proc/tty", "/sys/fs"];
    let (mounts, listed) = (container.mounts(), container.ask(&list));
    assert_eq!(whole(&container), 2);
    for _ in 0..2 {
        scene.attach(&container);
        assert_eq!(container.ask(&list), listed);
        assert_eq!(whole(&container), 4);
        // Whatever dies, there is one.
        daemon.die();
        daemon = scene.daemon(&[]);
        assert_eq!(whole(&container), 4);
        daemon.crash();
        daemon = scene.daemon(&[]);
        assert_eq!(whole(&container), 4);
        assert_eq!(try_mounting(&mut container), [true; 2]);
        scene.detach(&container);
        assert_eq!(container.mounts(), mounts);
    }
    daemon.end();
}
