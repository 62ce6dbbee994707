//! Bundles and disks that are odd or hostile, and disks that are full.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use serde_json::json;
use support::{Container, Engine, Scene};

use super::rig::{Rig, Style, first_id, mounts, shell};
use super::volumes::bind;
use crate::scene;

/// Letters that mean something in the options of an overlay, in mountinfo, or in JSON.
const ODD: &str = "a,b:c d\te\nf\\g\"h'#i*..=upperdir=";

/// Mounts a file system that is unmounted when this value is dropped.
struct Mounted(PathBuf);

impl Mounted {
    #[track_caller]
    fn new(kind: &str, point: &Path, options: &str) -> Self {
        fs::create_dir_all(point).unwrap();
        let options = CString::new(options).unwrap();
        mount(kind, point, kind, MountFlags::empty(), options.as_c_str()).unwrap();
        Self(point.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A path as an option of an overlay wants it.
fn quoted(path: &Path) -> String {
    let mut text = path.to_str().unwrap().replace('\\', "\\\\");
    for letter in [',', ':'] {
        text = text.replace(letter, &format!("\\{letter}"));
    }
    text
}

#[test]
fn privileged_names_with_letters_that_mean_something_are_taken_as_names() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let top = scene.dir().join(ODD);
    let at = |name: &str| top.join(format!("{name}{ODD}"));
    for name in ["upper", "work", "lower", "volume"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("lower").join("odd"), "lower\n").unwrap();
    fs::write(at("volume").join("f"), "volume\n").unwrap();
    chown(at("volume").join("f"), Some(1000), Some(1000)).unwrap();
    let options = format!(
        "lowerdir={}:{}:{},upperdir={},workdir={}",
        quoted(&at("lower")),
        quoted(&scene.dir().join("layer")),
        quoted(scene.root()),
        quoted(&at("upper")),
        quoted(&at("work")),
    );
    let overlay = Mounted::new("overlay", &at("root"), &options);
    let before = mounts();
    for engine in Engine::RUNTIMES {
        let bundle = rig.bundle(engine, &overlay.0);
        bind(&bundle, &at("volume"), &format!("/v{ODD}"), &["rbind"]);
        let mut container = Container::of_bundle(bundle);
        first_id(&mut container);
        let seen = shell(
            &mut container,
            "b cat /odd /v*/f; b stat -c %u:%g /odd /v*/f; echo w >/written; b chown 7:7 /written",
        );
        assert_eq!(seen, "lower\nvolume\n0:0\n1000:1000\n", "{engine:?}");
        drop(container);
        assert_eq!(mounts(), before, "{engine:?}");
    }
    assert_eq!(fs::metadata(at("upper").join("written")).unwrap().uid(), 7);
    drop(overlay);
    daemon.end();
}

#[test]
fn privileged_layers_that_are_links_are_followed_and_links_to_nowhere_are_refused() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let (first, second) = (scene.dir().join("link"), scene.dir().join("link-to-link"));
    let layer = scene.dir().join("real");
    fs::create_dir(&layer).unwrap();
    fs::write(layer.join("which"), "real\n").unwrap();
    chown(layer.join("which"), Some(1000), Some(1000)).unwrap();
    symlink(&layer, &first).unwrap();
    symlink(&first, &second).unwrap();
    let disk = rig.overlay_with(Style::Containerd, "a", "", std::slice::from_ref(&second));
    for engine in Engine::RUNTIMES {
        let mut container = rig.start(engine, &disk.root);
        let seen = shell(&mut container, "b cat /which; b stat -c %u /which");
        assert_eq!(seen, "real\n1000\n", "{engine:?}");
    }
    let before = mounts();
    for leads_to in [
        scene.dir().join("nothing"),
        second.clone(),
        scene.dir().join("layer/etc/passwd"),
    ] {
        fs::remove_file(&first).unwrap();
        symlink(&leads_to, &first).unwrap();
        let bundle = rig.bundle(Engine::Runc, &disk.root);
        bundle
            .run()
            .refused(&["eci-runc: isolation: ", "the overlay at "]);
        assert_eq!(mounts(), before, "{leads_to:?}");
    }
    daemon.end();
}

#[test]
fn privileged_a_root_that_is_a_mount_of_something_else_is_mapped_or_refused() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let fill = |root: &Path| {
        for dir in ["bin", "proc", "sys", "dev", "etc"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        for name in ["busybox", "probe"] {
            fs::copy(
                scene.root().join("bin").join(name),
                root.join("bin").join(name),
            )
            .unwrap();
        }
        symlink("busybox", root.join("bin/sh")).unwrap();
        fs::write(root.join("above"), "").unwrap();
        chown(root.join("above"), Some(70_000), Some(70_000)).unwrap();
    };
    let tmpfs = Mounted::new("tmpfs", &scene.dir().join("tmpfs"), "");
    fill(&tmpfs.0);
    let before = mounts();
    for engine in Engine::RUNTIMES {
        let mut container = rig.start(engine, &tmpfs.0);
        // An id that no container has is nobody's.
        let seen = shell(&mut container, "b stat -c %u:%g /bin /above; b touch /made");
        assert_eq!(seen, "0:0\n65534:65534\n", "{engine:?}");
        drop(container);
        assert_eq!(fs::metadata(tmpfs.0.join("made")).unwrap().uid(), 0);
        assert_eq!(mounts(), before, "{engine:?}");
    }
    let ramfs = Mounted::new("ramfs", &scene.dir().join("ramfs"), "");
    fill(&ramfs.0);
    let before = mounts();
    // Of each of these the kernel maps no owners.
    for root in [&ramfs.0, Path::new("/proc"), Path::new("/sys")] {
        let bundle = rig.bundle(Engine::Crun, root);
        let words = ["eci-runc: isolation: ", root.to_str().unwrap()];
        bundle.run().refused(&words);
        assert_eq!(mounts(), before, "{root:?}");
    }
    drop((ramfs, tmpfs));
    daemon.end();
}

/// An overlay with both of its directories on another file system.
#[track_caller]
fn overlay_on(scene: &Scene, disk: &Path, name: &str) -> Mounted {
    for dir in ["upper", "work"] {
        fs::create_dir(disk.join(dir)).unwrap();
    }
    let options = format!(
        "lowerdir={}:{},upperdir={},workdir={}",
        quoted(&scene.dir().join("layer")),
        quoted(scene.root()),
        quoted(&disk.join("upper")),
        quoted(&disk.join("work")),
    );
    Mounted::new("overlay", &scene.dir().join(name), &options)
}

#[test]
fn privileged_a_disk_without_inodes_is_a_clear_error_and_nothing_is_left() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let mut daemon = scene.daemon(&[]);
    let full = Mounted::new("tmpfs", &scene.dir().join("full"), "nr_inodes=50");
    let overlay = overlay_on(&scene, &full.0, "merged");
    let mut names = (0..50).map(|number| full.0.join(format!("filled{number}")));
    let error = names.find_map(|name| fs::File::create(name).err()).unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    let before = mounts();
    let bundle = rig.bundle(Engine::Runc, &overlay.0);
    bundle.program(&["/bin/busybox", "true"]);
    let words = [
        "eci-runc: isolation: ",
        "work-eci",
        "No space left on device",
    ];
    bundle.run().refused(&words);
    assert_eq!(mounts(), before);
    drop(bundle);
    daemon.wait_for("range free");
    // With space, the same container starts.
    mount_remount(&full.0, MountFlags::empty(), c"nr_inodes=1k").unwrap();
    let mut container = rig.start(Engine::Runc, &overlay.0);
    shell(&mut container, "b touch /made; b chown 5:5 /made");
    drop(container);
    assert_eq!(fs::metadata(full.0.join("upper/made")).unwrap().uid(), 5);
    drop((overlay, full));
    daemon.end();
}

#[test]
fn privileged_a_disk_without_space_is_full_for_the_container_as_for_a_plain_one() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let full = Mounted::new("tmpfs", &scene.dir().join("full"), "size=256k");
    let overlay = overlay_on(&scene, &full.0, "merged");
    let written = fs::write(full.0.join("filled"), vec![1; 1 << 20]);
    let error = written.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    let before = mounts();
    let script = "b touch /made; b chown 5:5 /made; b sh -c 'echo x >/made' 2>&1 || b true; b stat -c '%u %s' /made";
    let mut container = rig.start(Engine::Crun, &overlay.0);
    let seen = shell(&mut container, script);
    assert!(seen.contains("No space left on device"), "{seen}");
    assert!(seen.ends_with("5 0\n"), "{seen}");
    drop(container);
    assert_eq!(mounts(), before);
    drop((overlay, full));
    daemon.end();
}

#[test]
fn privileged_odd_paths_in_a_configuration_change_nothing_on_the_host() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let outside = scene.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    // A link of the image that leads out of it when it is followed from the host.
    let up = "../".repeat(20);
    symlink(
        format!("{up}{}", outside.display()),
        disk.root.join("escape"),
    )
    .unwrap();
    symlink(&outside, disk.root.join("absolute")).unwrap();
    let volume = scene.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let before = mounts();
    for destination in [
        "/escape/x".to_owned(),
        "/absolute/x".to_owned(),
        format!("{up}{}/x", outside.display()),
    ] {
        let bundle = rig.bundle(Engine::Runc, &disk.root);
        bind(&bundle, &volume, &destination, &["rbind"]);
        bundle.change(|config| config["process"]["cwd"] = json!("/escape"));
        bundle.program(&["/bin/busybox", "true"]);
        // The runtime may refuse it or resolve it within the root: both leave the host as it was.
        let ran = bundle.run();
        assert_eq!(mounts(), before, "{destination} {ran:?}");
        let found: Vec<_> = fs::read_dir(&outside).unwrap().collect();
        assert!(found.is_empty(), "{destination} {found:?}");
    }
    daemon.end();
}
