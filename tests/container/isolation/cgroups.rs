//! The cgroups of isolated containers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::json;
use support::{Container, Engine};

use super::rig::{Rig, Style, first_id, shell};
use crate::scene;

/// A container with a cgroup file system.
#[track_caller]
fn start(rig: &Rig<'_>, engine: Engine, options: &[&str]) -> Container {
    let disk = rig.overlay(Style::Docker, &format!("{engine:?}{}", options.join("-")));
    let bundle = rig.bundle(engine, &disk.root);
    bundle.change(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "cgroup");
        mounts.push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options,
        }));
    });
    Container::of_bundle(bundle)
}

/// The directories of the container's cgroups on the host, and whether each is the container's.
fn owners(container: &mut Container) -> Vec<(PathBuf, bool)> {
    let first = first_id(container);
    let dirs = container.cgroup().dirs().into_iter();
    let is_own = |dir: &PathBuf| fs::metadata(dir).unwrap().uid() == first;
    dirs.map(|dir| (is_own(&dir), dir))
        .map(|(own, dir)| (dir, own))
        .collect()
}

/// Makes a cgroup in each hierarchy, moves a process into it and back, and tries to change a limit.
const USE: &str = "for dir in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do \
    b test -e $dir/cgroup.procs || continue; \
    case $dir in *cpuset*|$skipped) continue;; esac; \
    b mkdir $dir/below && b test -w $dir/below/cgroup.procs || echo no cgroup in $dir; \
    for limit in memory.limit_in_bytes memory.max pids.max cpu.max cpu.cfs_quota_us; do \
        if b test -e $dir/$limit && (echo 1000000000 >$dir/$limit) 2>/tmp/limit; then echo $limit; fi; \
    done; \
    b rmdir $dir/below; \
done; echo done";

#[test]
fn privileged_a_cgroup_that_can_be_written_to_is_the_containers_and_its_limits_are_not() {
    let scene = scene();
    let rig = Rig::new(&scene, "delegate-cgroup-v1 = true\n");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let mut container = start(&rig, engine, &["nosuid", "noexec", "nodev"]);
        for (dir, own) in owners(&mut container) {
            assert!(own, "{engine:?} {}", dir.display());
            for (file, wanted) in [
                ("cgroup.procs", true),
                ("memory.limit_in_bytes", false),
                ("memory.max", false),
                ("pids.max", false),
                ("cgroup.max.descendants", false),
            ] {
                let Ok(file) = fs::metadata(dir.join(file)) else {
                    continue;
                };
                assert_eq!(file.uid() != 0, wanted, "{engine:?} {}", dir.display());
            }
            for (file, bound) in [("descendants", "512\n"), ("depth", "12\n")] {
                if let Ok(most) = fs::read_to_string(dir.join(format!("cgroup.max.{file}"))) {
                    assert_eq!(most, bound, "{engine:?} {}", dir.display());
                }
            }
        }
        // youki puts nobody into hierarchies without a controller, so that one shows the host's top.
        let skipped = if engine == Engine::Youki {
            "*systemd*"
        } else {
            "-"
        };
        let said = shell(&mut container, &format!("skipped='{skipped}'; {USE}"));
        assert_eq!(said, "done\n", "{engine:?}");
    }
    daemon.end();
}

#[test]
fn privileged_a_cgroup_that_cannot_be_written_to_stays_the_hosts() {
    let scene = scene();
    let rig = Rig::new(&scene, "delegate-cgroup-v1 = true\n");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let mut container = start(&rig, engine, &["nosuid", "noexec", "nodev", "ro"]);
        for (dir, own) in owners(&mut container) {
            // crun gives a container its cgroup of version 2 by itself.
            let by_crun = engine == Engine::Crun && dir.join("cgroup.controllers").exists();
            assert!(!own || by_crun, "{engine:?} {}", dir.display());
        }
    }
    daemon.end();
}

#[test]
fn privileged_cgroups_of_version_1_stay_the_hosts_unless_the_administrator_delegates_them() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let mut container = start(&rig, Engine::Runc, &["nosuid"]);
    for (dir, own) in owners(&mut container) {
        let is_version_2 = dir.join("cgroup.controllers").exists();
        assert_eq!(own, is_version_2, "{}", dir.display());
    }
    drop(container);
    daemon.end();
}
