//! Namespaces of a pod that an engine made before its containers and keeps as mounts, as CRI-O does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use support::{Bundle, Container, Engine, Ran, Scene};

use super::rig::{Rig, Style, first_id, mounts, shell};
use crate::scene;

/// The ipc, uts and network namespaces of a pod.
struct Pod([(&'static str, PathBuf); 3]);

impl Pod {
    #[track_caller]
    fn new(scene: &Scene, name: &str) -> Self {
        let dir = scene.dir().join("pinned");
        if !dir.exists() {
            fs::create_dir(&dir).unwrap();
            let path = dir.display().to_string();
            for arguments in [&["--bind", &path, &path][..], &["--make-rshared", &path]] {
                Ran::run(Command::new("mount").args(arguments)).ok();
            }
        }
        let places = [("ipc", "ipc"), ("uts", "uts"), ("network", "net")].map(|(kind, option)| {
            let path = dir.join(format!("{name}-{kind}"));
            fs::write(&path, "").unwrap();
            (kind, option, path)
        });
        let mut unshare = Command::new("unshare");
        for (_, option, path) in &places {
            unshare.arg(format!("--{option}={}", path.display()));
        }
        let script = "hostname of-the-pod; echo domain >/proc/sys/kernel/domainname
            echo 12345678 >/proc/sys/kernel/shmmax; echo '1 2 3 4' >/proc/sys/kernel/sem
            echo 1 >/proc/sys/kernel/shm_rmid_forced; echo 77 >/proc/sys/fs/mqueue/msg_max
            echo 66 >/proc/sys/fs/mqueue/msg_default; echo 321 >/proc/sys/net/core/somaxconn";
        Ran::run(unshare.args(["sh", "-ec", script])).ok();
        Self(places.map(|(kind, _, path)| (kind, path)))
    }

    #[track_caller]
    fn path(&self, kind: &str) -> &Path {
        let found = self.0.iter().find(|(name, _)| *name == kind);
        &found.unwrap().1
    }

    #[track_caller]
    fn give_to(&self, bundle: &Bundle) {
        bundle.change(|config| {
            config.as_object_mut().unwrap().remove("hostname");
            for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
                let kind = namespace["type"].as_str().unwrap().to_owned();
                if self.0.iter().any(|(name, _)| *name == kind) {
                    namespace["path"] = json!(self.path(&kind));
                }
            }
        });
    }

    /// Returns the output of a script in the namespaces at the paths, on the host.
    #[track_caller]
    fn tells(&self, script: &str) -> String {
        let mut nsenter = Command::new("nsenter");
        for (kind, option) in [("ipc", "ipc"), ("uts", "uts"), ("network", "net")] {
            nsenter.arg(format!("--{option}={}", self.path(kind).display()));
        }
        Ran::run(nsenter.args(["sh", "-ec", script])).ok()
    }

    /// Takes the pod away as an engine does, by one unmount each.
    #[track_caller]
    fn remove(self) {
        for (_, path) in self.0 {
            rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"", "nothing lies below");
            fs::remove_file(path).unwrap();
        }
    }
}

const SETTINGS: &str = "cd /proc/sys; cat kernel/hostname kernel/domainname kernel/shmmax kernel/sem \
    kernel/shm_rmid_forced fs/mqueue/msg_max fs/mqueue/msg_default net/core/somaxconn";

const WANTED: &str = "of-the-pod\ndomain\n12345678\n1\t2\t3\t4\n1\n77\n66\n321\n";

#[test]
fn privileged_pinned_namespaces_become_the_containers_with_the_name_and_the_settings_of_the_pod() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let pod = Pod::new(&scene, &format!("{engine:?}"));
        assert_eq!(pod.tells(SETTINGS), WANTED);
        let others = mounts();
        let start = |name: &str| {
            let disk = rig.overlay(Style::Docker, &format!("{engine:?}-{name}"));
            let bundle = rig.bundle(engine, &disk.root);
            pod.give_to(&bundle);
            Container::of_bundle(bundle)
        };
        let mut one = start("one");
        let ids = first_id(&mut one);
        let settings = SETTINGS.replace("cat", "b cat");
        assert_eq!(shell(&mut one, &settings), WANTED, "{engine:?}");
        assert_eq!(pod.tells(SETTINGS), WANTED, "{engine:?}");
        let numbers = |container: &mut Container| {
            shell(
                container,
                "for kind in ipc uts net; do b stat -L -c %i /proc/self/ns/$kind; done",
            )
        };
        let at_paths: String = ["ipc", "uts", "network"]
            .map(|kind| format!("{}\n", fs::metadata(pod.path(kind)).unwrap().ino()))
            .concat();
        assert_eq!(numbers(&mut one), at_paths, "{engine:?}");
        let mut two = start("two");
        assert_eq!(first_id(&mut two), ids, "{engine:?}");
        assert_eq!(numbers(&mut two), at_paths, "{engine:?}");
        // A container that is started anew while another one lives, and one after all.
        drop(one);
        let mut next = start("next");
        assert_eq!(first_id(&mut next), ids, "{engine:?}");
        drop((two, next));
        let mut last = start("last");
        assert!(first_id(&mut last) != ids, "{engine:?}");
        assert_eq!(shell(&mut last, &settings), WANTED, "{engine:?}");
        drop(last);
        // Only the numbers of the namespaces and the disks are others.
        let kept = |all: Vec<String>| -> Vec<String> {
            all.into_iter()
                .filter(|line| !line.contains("/pinned/") && !line.contains(" overlay "))
                .collect()
        };
        assert_eq!(kept(mounts()), kept(others), "{engine:?}");
        pod.remove();
    }
    daemon.end();
}

#[test]
fn privileged_a_pinned_namespace_with_a_process_of_the_host_or_of_another_kind_is_refused() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    for kind in ["ipc", "uts"] {
        let pod = Pod::new(&scene, kind);
        let number = fs::metadata(pod.path(kind)).unwrap().ino();
        let bundle = rig.bundle(Engine::Runc, &disk.root);
        pod.give_to(&bundle);
        let path = pod.path(kind).display().to_string();
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--{kind}={path}"));
        let mut user = nsenter.args(["sleep", "1000"]).spawn().unwrap();
        let theirs = format!("/proc/{}/ns/{kind}", user.id());
        while fs::metadata(&theirs).unwrap().ino() != number {}
        bundle
            .run()
            .refused(&["eci-runc: isolation: ", &path, "host-namespaces"]);
        user.kill().unwrap();
        user.wait().unwrap();
        // The mount of a namespace of another kind stays as it is.
        let network = pod.path("network").display().to_string();
        bundle.change(|config| {
            for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace["type"] == kind {
                    namespace["path"] = json!(network);
                } else {
                    namespace.as_object_mut().unwrap().remove("path");
                }
            }
        });
        let before = fs::metadata(&network).unwrap().ino();
        bundle
            .run()
            .refused(&["eci-runc: isolation: ", &network, "--userns=auto"]);
        assert_eq!(fs::metadata(&network).unwrap().ino(), before);
        pod.remove();
    }
    daemon.end();
}
