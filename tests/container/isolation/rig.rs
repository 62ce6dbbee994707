//! Root file systems as engines leave them, and bundles that are isolated.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use support::{
    Bundle, Container, Engine, Limits, Ran, Scene, give_engines_capabilities, mounts_of,
};

use crate::runtime::Wrapper;

/// How an engine keeps its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Short links, relative to the directory of all layers, which only root can enter.
    Docker,
    /// Absolute paths below a directory that only root can enter.
    Containerd,
}

/// The disk of one container.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    /// Where the engine mounted it.
    pub(super) root: PathBuf,
    /// What the container writes.
    pub(super) upper: PathBuf,
}

/// The host of the test.
pub(super) struct Rig<'a> {
    pub(super) scene: &'a Scene,
    pub(super) wrapper: Wrapper,
    mounted: RefCell<Vec<PathBuf>>,
}

impl<'a> Rig<'a> {
    #[track_caller]
    pub(super) fn new(scene: &'a Scene, more: &str) -> Self {
        let this = Self {
            scene,
            wrapper: Wrapper::new(scene, &format!("[isolation]\nenabled = true\n{more}")),
            mounted: RefCell::default(),
        };
        this.layer();
        this
    }

    /// A layer over the root of the scene, with files of several owners.
    #[track_caller]
    fn layer(&self) -> PathBuf {
        let layer = self.scene.dir().join("layer");
        for dir in ["etc", "home/u", "srv/data", "bin"] {
            fs::create_dir_all(layer.join(dir)).unwrap();
        }
        symlink("busybox", layer.join("bin/sh")).unwrap();
        let probe = self.scene.root().join("bin/probe");
        fs::copy(&probe, layer.join("bin/suidprobe")).unwrap();
        for (path, text, id, mode) in [
            (
                "etc/passwd",
                "root:x:0:0::/:/bin/sh\nu:x:1000:1000::/:/bin/sh\nv:x:2000:2000::/:/bin/sh\n",
                0,
                0o644,
            ),
            ("home/u/f", "f\n", 1000, 0o600),
            ("srv/max", "max\n", 65_535, 0o644),
            ("srv/gone", "gone\n", 0, 0o644),
            ("srv/data/x", "x\n", 7, 0o640),
        ] {
            let path = layer.join(path);
            fs::write(&path, text).unwrap();
            chown(&path, Some(id), Some(id)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        chown(layer.join("home/u"), Some(1000), Some(1000)).unwrap();
        let suid = layer.join("bin/suidprobe");
        chown(&suid, Some(1000), Some(1000)).unwrap();
        fs::set_permissions(&suid, fs::Permissions::from_mode(0o6755)).unwrap();
        layer
    }

    #[track_caller]
    pub(super) fn overlay(&self, style: Style, name: &str) -> Disk {
        self.overlay_with(style, name, "", &[])
    }

    /// An overlay with more options and more layers on top.
    #[track_caller]
    pub(super) fn overlay_with(
        &self,
        style: Style,
        name: &str,
        options: &str,
        more: &[PathBuf],
    ) -> Disk {
        let top = self.scene.dir().join(format!("{style:?}"));
        let dir = top.join(name);
        let docker = style == Style::Docker;
        let (upper, root) = match docker {
            true => (dir.join("diff"), dir.join("merged")),
            false => (
                dir.join("fs"),
                self.scene.dir().join(format!("task-{name}")),
            ),
        };
        for dir in [&upper, &root, &dir.join("work"), &top.join("l")] {
            fs::create_dir_all(dir).unwrap();
        }
        let mode = if docker { 0o710 } else { 0o700 };
        fs::set_permissions(&top, fs::Permissions::from_mode(mode)).unwrap();
        let own = [self.scene.dir().join("layer"), self.scene.root().to_owned()];
        let layers = more.iter().chain(&own).enumerate().map(|(place, layer)| {
            if !docker {
                return layer.display().to_string();
            }
            let link = top.join("l").join(format!("{name}{place}"));
            symlink(layer, link).unwrap();
            format!("l/{name}{place}")
        });
        let layers = layers.collect::<Vec<_>>().join(":");
        let work = dir.join("work").display().to_string();
        let text = format!(
            "lowerdir={layers},upperdir={},workdir={work}{options}",
            upper.display()
        );
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "overlay", "overlay", "-o", &text])
            .arg(&root)
            .current_dir(&top);
        Ran::run(&mut mount).ok();
        self.mounted.borrow_mut().push(root.clone());
        Disk { root, upper }
    }

    /// A bundle on a disk, with the capabilities that engines give, which goes through the wrapper.
    #[track_caller]
    pub(super) fn bundle(&self, engine: Engine, root: &Path) -> Bundle {
        let mut bundle = self.plain(engine, root);
        let words = self.wrapper.words(engine);
        bundle.wrap(&words.iter().map(String::as_str).collect::<Vec<_>>());
        bundle
    }

    /// A bundle on a disk, which goes through the wrapper to the runtime of another release. `usr` is the /usr of that.
    #[track_caller]
    pub(super) fn bundle_of_release(&self, engine: Engine, usr: &Path, root: &Path) -> Bundle {
        let mut bundle = self.plain(engine, root);
        let usr = usr.display().to_string();
        let script = r#"mount --bind "$0" /usr && exec "$@""#;
        let unshare = ["unshare", "--mount", "sh", "-c", script, &usr].map(str::to_owned);
        let mut words = self.wrapper.words(engine);
        // The name of the runtime is looked up in the other /usr.
        words[2] = engine.program().to_owned();
        let words = [&unshare[..], &words].concat();
        bundle.wrap(&words.iter().map(String::as_str).collect::<Vec<_>>());
        bundle
    }

    /// The same, which goes to the runtime directly.
    #[track_caller]
    pub(super) fn plain(&self, engine: Engine, root: &Path) -> Bundle {
        let bundle = Bundle::new(self.scene, engine, &Limits::default(), false);
        bundle.change(|config| {
            config["root"] = json!({ "path": root });
            give_engines_capabilities(config);
        });
        bundle
    }

    /// Start an isolated container on a disk.
    #[track_caller]
    pub(super) fn start(&self, engine: Engine, root: &Path) -> Container {
        Container::of_bundle(self.bundle(engine, root))
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        // A daemon that ends just after a container may take its range for used, and leaves the stage to the next daemon.
        let stage = self.scene.runtime_dir().join("stage");
        for mount in self.mounted.borrow().iter().chain([&stage]) {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Run a shell in a container.
#[track_caller]
pub(super) fn shell(container: &mut Container, script: &str) -> String {
    container.busybox(&[
        "sh",
        "-euc",
        &format!("PATH=/bin; b() {{ busybox \"$@\"; }}\n{script}"),
    ])
}

/// The first id of the host in a container.
#[track_caller]
pub(super) fn first_id(container: &mut Container) -> u32 {
    let map = container.read("/proc/self/uid_map");
    let words: Vec<u32> = map
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    assert_eq!((words[0], words[2]), (0, 65_536), "{map}");
    assert_eq!(container.read("/proc/self/gid_map"), map);
    assert!(words[1] >= 65_536, "{map}");
    words[1]
}

/// The mounts of the test's own namespace, but for the stage of the daemon.
pub(super) fn mounts() -> Vec<String> {
    let all = mounts_of("thread-self").into_iter();
    all.filter(|line| !line.contains("/run/stage ")).collect()
}
