//! Locked mounts: what a container with all capabilities cannot do with its grafts, masks and read-only mounts.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Bundle, Container, Engine, Ran, Scene, number_after};

use super::rig::{Disk, Rig, Style, mounts, shell};
use crate::{scene, sees, sees_the_host};

/// All capabilities. Those that a kernel or this process does not have are left out.
#[track_caller]
pub(super) fn all_capabilities() -> Vec<String> {
    let mut all = caps::all();
    let bounding = caps::read(None, caps::CapSet::Bounding).unwrap();
    all.retain(|capability| bounding.contains(capability));
    all.into_iter().map(|one| one.to_string()).collect()
}

/// A disk with the directories that attempts use.
#[track_caller]
pub(super) fn disk(rig: &Rig<'_>, name: &str) -> Disk {
    let disk = rig.overlay(Style::Docker, name);
    for dir in ["mnt", "tmp", "vol"] {
        fs::create_dir_all(disk.root.join(dir)).unwrap();
    }
    disk
}

/// Gives a container all capabilities, a read-only volume with the file `.v` at /vol, and a limit of memory.
#[track_caller]
pub(super) fn arm(bundle: &Bundle, volume: &Path) {
    bundle.change(|config| {
        let names = json!(all_capabilities());
        config["process"]["capabilities"] =
            json!({ "bounding": names, "effective": names, "permitted": names });
        config["linux"]["resources"]["memory"] = json!({ "limit": 192 << 20 });
        let mount = json!({
            "destination": "/vol", "type": "bind", "source": volume, "options": ["rbind", "ro"]
        });
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
}

#[track_caller]
pub(super) fn volume(scene: &Scene) -> std::path::PathBuf {
    let volume = scene.dir().join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join(".v"), "").unwrap();
    volume
}

/// The names of all attempts.
#[track_caller]
fn attempts(scene: &Scene) -> Vec<String> {
    let probe = scene.root().join("bin/probe");
    let said = Ran::run(Command::new(probe).arg("breaches")).ok();
    let answer: Value = serde_json::from_str(&said).unwrap();
    serde_json::from_value(answer["ok"].clone()).unwrap()
}

/// Makes each attempt in a container of its own, and returns those that got something.
#[track_caller]
fn breaches(rig: &Rig<'_>, engine: Engine, names: &[String]) -> Vec<String> {
    let disk = disk(rig, &format!("{engine:?}"));
    let volume = volume(rig.scene);
    let mut got = Vec::new();
    for name in names {
        let bundle = rig.bundle(engine, &disk.root);
        arm(&bundle, &volume);
        // Where nothing is masked and read-only, the grafts alone have to hold.
        let hides = name.starts_with("mask-") || name.starts_with("ro-sys");
        bundle.change(|config| {
            config["root"]["readonly"] = json!(name.starts_with("ro-root"));
            if !hides {
                config["linux"]["maskedPaths"] = json!([]);
                config["linux"]["readonlyPaths"] = json!([]);
                config["mounts"][2]["options"] = json!(["nosuid", "noexec", "nodev"]);
            }
        });
        bundle.program(&["/bin/probe", "breach", name]);
        let said = bundle.run().ok();
        let answer: Value = serde_json::from_str(&said).unwrap();
        let breach = &answer["ok"]["breach"];
        assert!(breach.is_boolean(), "{engine:?} {name}: {said}");
        if breach == true {
            got.push(format!("{engine:?} {name}: {said}"));
        }
        // Where something was written, the next one shall not find it.
        let _ = fs::remove_file(volume.join("w"));
    }
    got
}

/// The attempts of the short form: one of each kind, each in another way.
const SHORT: [&str; 12] = [
    "umount-detach",
    "move-new",
    "bind-proc",
    "pivot-detach",
    "umount-proc-again",
    "proc",
    "proc-userns-fsopen",
    "sysfs",
    "ro-setattr-rec",
    "ro-root-bind",
    "ro-sys-umount",
    "mask-umount",
];

/// The attempts that get something where nothing is locked, with every kernel that isolation needs.
const TEETH: [&str; 9] = [
    "umount-detach",
    "move-new",
    "bind-proc",
    "open-tree",
    "pivot-detach",
    "proc",
    "sysfs",
    "ro-sys-umount",
    "mask-umount",
];

/// Makes the attempts of the short form, or all where `ECI_FS_BREACHES` is "all".
#[track_caller]
fn nothing_gets_through(engine: Engine) {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let daemon = scene.daemon(&[]);
    let all = attempts(&scene);
    assert!(
        SHORT
            .iter()
            .all(|short| all.iter().any(|name| name == short))
    );
    let names = match std::env::var("ECI_FS_BREACHES").as_deref() {
        Ok("all") => all,
        _ => SHORT.map(str::to_owned).to_vec(),
    };
    let got = breaches(&rig, engine, &names);
    assert_eq!(got, Vec::<String>::new());
    daemon.end();
}

#[test]
fn privileged_no_attack_on_the_mounts_of_a_container_of_runc_succeeds() {
    nothing_gets_through(Engine::Runc);
}

#[test]
fn privileged_no_attack_on_the_mounts_of_a_container_of_crun_succeeds() {
    nothing_gets_through(Engine::Crun);
}

#[test]
fn privileged_no_attack_on_the_mounts_of_a_container_of_youki_succeeds() {
    nothing_gets_through(Engine::Youki);
}

#[test]
fn privileged_without_locks_the_attacks_succeed() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    // A read-only volume stays so in any case.
    let all = TEETH.iter().chain(&["ro-remount"]).copied();
    let got = breaches(
        &rig,
        Engine::Runc,
        &all.map(str::to_owned).collect::<Vec<_>>(),
    );
    assert_eq!(got.len(), TEETH.len(), "{got:?}");
    assert!(!got.iter().any(|got| got.contains("ro-remount")), "{got:?}");
    daemon.end();
}

/// A container of an engine with all capabilities that answers questions.
#[track_caller]
fn start(rig: &Rig<'_>, engine: Engine, change: impl FnOnce(&mut Value)) -> Container {
    let disk = disk(rig, &format!("{engine:?}"));
    let bundle = rig.bundle(engine, &disk.root);
    arm(&bundle, &volume(rig.scene));
    bundle.change(|config| {
        config["linux"]["resources"]["cpu"] = json!({ "quota": 50_000, "period": 100_000 });
        change(config);
    });
    Container::of_bundle(bundle)
}

/// The mounts of a container at a path, as mountinfo has them.
#[track_caller]
fn mounts_at(container: &Container, path: &str) -> Vec<String> {
    let all = container.mounts().into_iter();
    all.filter(|line| line.split(' ').nth(4) == Some(path))
        .collect()
}

#[test]
fn privileged_a_container_sees_the_locked_trees_and_nothing_lies_beneath_them() {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let mut container = start(&rig, engine, |_| ());
        sees(&mut container, 192, 1);
        let listed = &scene.list()[0];
        assert_eq!(listed["locked"], true, "{listed}");
        assert_eq!(listed["fresh_procfs"], json!({ "can": "no" }), "{listed}");
        let mut paths = container.grafts();
        assert_eq!(listed["grafts"], paths.len(), "{engine:?}");
        assert!(paths.len() > 50, "{engine:?}: {paths:?}");
        paths.extend(["/proc", "/sys", "/vol"].map(str::to_owned));
        for path in &paths {
            let found = mounts_at(&container, path);
            // A mask may lie on a graft.
            let is_mask = |line: &String| line.contains(" /null ") || line.contains(" /empty ");
            let masked = found.last().is_some_and(is_mask);
            let wanted = if masked { 2 } else { 1 };
            assert_eq!(found.len(), wanted, "{engine:?}: {path}: {found:?}");
        }
        let options = |path: &str| {
            let all = mounts_at(&container, path);
            let line = all.first().unwrap_or_else(|| panic!("{engine:?}: {path}"));
            line.split(' ').nth(5).unwrap().to_owned()
        };
        for path in ["/proc/sys", "/proc/irq", "/proc/fs", "/sys", "/vol"] {
            assert!(options(path).starts_with("ro,"), "{engine:?}: {path}");
        }
        assert!(options("/proc").starts_with("rw,"), "{engine:?}");
        for path in ["/proc/keys", "/sys/firmware"] {
            assert!(options(path).contains("noexec"), "{engine:?}: {path}");
        }
        assert_eq!(container.read("/proc/keys"), "", "{engine:?}");
        assert_eq!(shell(&mut container, "b ls -A /sys/firmware"), "");
        assert_eq!(container.ask(&["own-mounts"]), 19, "{engine:?}");
        drop(container);
        assert_eq!(scene.list().len(), 0);
    }
    daemon.end();
}

#[test]
fn privileged_a_container_without_views_has_its_masks_and_volumes_locked() {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let mut container = start(&rig, engine, |config| {
            config["annotations"] = json!({ "eci-fs.enabled": "false" });
        });
        sees_the_host(&mut container);
        assert_eq!(scene.list().len(), 0);
        let refused = shell(
            &mut container,
            "for path in /proc/keys /proc/sys /sys/firmware; do b umount $path && b echo $path; done 2>&1
             b mount -o remount,bind,rw /vol 2>&1 || b touch /vol/w 2>&1 || b true",
        );
        assert_eq!(
            refused.matches("nvalid argument").count(),
            3,
            "{engine:?}: {refused}"
        );
        assert!(
            refused.contains("Read-only file system"),
            "{engine:?}: {refused}"
        );
        assert_eq!(container.read("/proc/keys"), "");
    }
    daemon.end();
}

#[test]
fn privileged_sysctls_of_the_configuration_are_set_in_the_namespaces_of_the_container() {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let daemon = scene.daemon(&[]);
    let host = [
        "net/core/somaxconn",
        "kernel/shmmni",
        "net/ipv4/ping_group_range",
    ]
    .map(|name| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap());
    for engine in Engine::RUNTIMES {
        let mut container = start(&rig, engine, |config| {
            config["linux"]["sysctl"] = json!({
                "net.core.somaxconn": "77",
                "kernel.shmmni": "99",
                "net.ipv4.ping_group_range": "0 2147483647",
            });
        });
        assert_eq!(container.read("/proc/sys/net/core/somaxconn"), "77\n");
        assert_eq!(container.read("/proc/sys/kernel/shmmni"), "99\n");
        let groups = container.read("/proc/sys/net/ipv4/ping_group_range");
        assert_eq!(groups, "0\t65535\n", "{engine:?}");
    }
    let after = [
        "net/core/somaxconn",
        "kernel/shmmni",
        "net/ipv4/ping_group_range",
    ]
    .map(|name| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap());
    assert_eq!(after, host);
    let disk = disk(&rig, "refused");
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bundle.change(|config| config["linux"]["sysctl"] = json!({ "net.core.nonesuch": "1" }));
    let ran = bundle.run();
    assert!(ran.code != Some(0), "{ran:?}");
    let log = fs::read_to_string(scene.runtime_dir().join("hook.log")).unwrap();
    assert!(log.contains("/proc/sys/net/core/nonesuch"), "{log}");
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bundle.change(|config| config["linux"]["sysctl"] = json!({ "vm.panic_on_oom": "1" }));
    let ran = bundle.run();
    assert!(
        ran.code != Some(0) && ran.stderr.contains("vm.panic_on_oom"),
        "{ran:?}"
    );
    drop(bundle);
    daemon.end();
}

#[test]
fn privileged_a_read_only_root_gets_its_mount_points_and_nothing_else_can_be_made_in_it() {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let volume = volume(&scene);
        let mut container = start(&rig, engine, |config| {
            config["root"]["readonly"] = json!(true);
            config["process"]["cwd"] = json!("/work/dir");
            let mount = |destination: &str, source: &Path| {
                json!({
                    "destination": destination, "type": "bind", "source": source, "options": ["rbind"]
                })
            };
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(mount("/new/volume", &volume));
            mounts.push(mount("/new/file", &volume.join(".v")));
        });
        let said = shell(
            &mut container,
            "b pwd; b stat -c %u:%g:%a /new /new/volume /work/dir; b test -f /new/file
             b touch /w /new/w 2>&1 || b touch /new/volume/made",
        );
        assert!(
            said.starts_with("/work/dir\n0:0:755\n"),
            "{engine:?}: {said}"
        );
        assert_eq!(
            said.matches("Read-only file system").count(),
            2,
            "{engine:?}: {said}"
        );
        fs::remove_file(volume.join("made")).unwrap();
    }
    daemon.end();
}

#[test]
fn privileged_read_only_volumes_may_lie_in_one_another_and_in_writable_ones() {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let daemon = scene.daemon(&[]);
    let volumes = scene.dir().join("volumes");
    for dir in ["outer/inner", "outer/writable", "inner", "writable"] {
        fs::create_dir_all(volumes.join(dir)).unwrap();
    }
    fs::write(volumes.join("file"), "f\n").unwrap();
    for engine in Engine::RUNTIMES {
        let mut container = start(&rig, engine, |config| {
            let mount = |destination: &str, source: &str, options: &[&str]| {
                json!({
                    "destination": destination, "type": "bind", "source": volumes.join(source), "options": options
                })
            };
            config["mounts"].as_array_mut().unwrap().extend([
                mount("/outer", "outer", &["rbind", "ro"]),
                mount("/outer/inner", "inner", &["rbind", "ro", "nosuid"]),
                mount("/outer/writable", "writable", &["rbind"]),
                mount("/mnt", "writable", &["rbind", "ro", "rw"]),
                mount("/tmp/file", "file", &["bind", "ro"]),
            ]);
        });
        let said = shell(
            &mut container,
            "for dir in outer outer/inner outer/writable mnt; do
                 b mount -o remount,bind,rw /$dir 2>/dev/null || b true
                 if b touch /$dir/made 2>/dev/null; then b echo $dir; b rm /$dir/made; fi
             done
             b umount -l /outer/inner 2>/dev/null && b echo inner; b cat /tmp/file
             if (b echo w >/tmp/file) 2>/dev/null; then b echo file; fi",
        );
        assert_eq!(said, "outer/writable\nmnt\nf\n", "{engine:?}");
    }
    daemon.end();
}

/// Tries to start a container beside a daemon with this fault. Nothing may be left of it.
#[track_caller]
fn is_not_started(fault: &str, engine: Engine) {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let config = scene.dir().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let lax = text.replace("[hook]\n", "[hook]\non-error = 'ignore'\n");
    fs::write(&config, lax).unwrap();
    let disk = disk(&rig, "a");
    let mut command = scene.command(&["mountd"]);
    command.env("ECI_FS_DAEMON_FAULT", fault);
    let daemon = scene.daemon_of(command);
    let before = mounts();
    let bundle = rig.bundle(engine, &disk.root);
    arm(&bundle, &volume(&scene));
    bundle.program(&["/bin/busybox", "echo", "started"]);
    let ran = bundle.run();
    assert!(ran.code != Some(0), "{engine:?} {fault}: {ran:?}");
    assert!(
        !ran.stdout.contains("started"),
        "{engine:?} {fault}: {ran:?}"
    );
    drop(bundle);
    daemon.die();
    assert_eq!(mounts(), before, "{engine:?} {fault}");
    let daemon = scene.daemon(&[]);
    assert_eq!(scene.list().len(), 0);
    assert_eq!(mounts(), before, "{engine:?} {fault}");
    daemon.end();
}

#[test]
fn privileged_a_container_whose_mounts_cannot_be_locked_is_not_started_and_leaves_nothing() {
    for engine in Engine::RUNTIMES {
        for fault in ["locks-taken:1", "locks-made:1"] {
            is_not_started(fault, engine);
        }
    }
}

#[test]
fn privileged_locked_grafts_are_covered_when_a_container_is_detached() {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let daemon = scene.daemon(&[]);
    let mut container = start(&rig, Engine::Runc, |_| ());
    let pid = container.pid().to_string();
    for _ in 0..2 {
        sees(&mut container, 192, 1);
        assert_eq!(scene.list().len(), 1);
        scene.eci_fs(&["detach", &pid]).ok();
        assert_eq!(scene.list().len(), 0);
        shows_the_kernel(&mut container);
        // What was read-only and hidden stays so.
        let said = shell(
            &mut container,
            "b umount /proc/keys 2>&1 || b true; b cat /proc/keys
             for path in /proc/sys/vm/swappiness /proc/sys; do
                 b mount -o remount,bind,rw $path 2>/dev/null || b echo $path
             done
             b mount -t proc proc /mnt 2>&1 || b true",
        );
        assert!(
            said.contains("/proc/sys/vm/swappiness\n/proc/sys\n"),
            "{said}"
        );
        assert!(
            said.contains("nvalid argument") && said.contains("permission denied"),
            "{said}"
        );
        scene.eci_fs(&["attach", &pid]).ok();
        assert_eq!(scene.list()[0]["locked"], Value::Null);
    }
    sees(&mut container, 192, 1);
    drop(container);
    daemon.end();
}

/// Assert that a container has the kernel's files everywhere.
#[track_caller]
fn shows_the_kernel(container: &mut Container) {
    let host = fs::read_to_string("/proc/meminfo").unwrap();
    let total = number_after(&host, "MemTotal:");
    let meminfo = container.read("/proc/meminfo");
    assert_eq!(number_after(&meminfo, "MemTotal:"), total);
    for path in [
        "/proc/uptime",
        "/proc/stat",
        "/sys/devices/system/cpu/online",
    ] {
        let kind = shell(container, &format!("b stat -f -c %T {path}"));
        assert!(
            ["proc\n", "sysfs\n"].contains(&kind.as_str()),
            "{path}: {kind}"
        );
    }
}

#[test]
fn privileged_locked_grafts_outlive_upgrades_and_the_deaths_of_both_programs() {
    let scene = scene();
    let rig = Rig::new(&scene, "locked-mounts = true\n");
    let daemon = scene.daemon(&[]);
    let mut container = start(&rig, Engine::Crun, |_| ());
    scene.eci_fs(&["upgrade"]).ok();
    sees(&mut container, 192, 1);
    assert_eq!(scene.list()[0]["locked"], true);
    crate::upgrade::end(&scene, support::Signal::KILL);
    assert_eq!(
        crate::dead_daemon::list_of_the_dead(&scene)[0]["locked"],
        true
    );
    drop(daemon);
    let daemon = scene.daemon(&[]);
    sees(&mut container, 192, 1);
    assert_eq!(scene.list()[0]["locked"], true);
    // Dead grafts cannot be taken away: the new ones lie on them.
    daemon.crash();
    let daemon = scene.daemon(&[]);
    sees(&mut container, 192, 1);
    assert_eq!(scene.list()[0]["locked"], Value::Null);
    scene.detach(&container);
    shows_the_kernel(&mut container);
    drop(container);
    daemon.end();
}
