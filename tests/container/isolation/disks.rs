//! Containers whose files are on disks of other file systems than the host's own.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use support::{Container, Engine, Ran, find_program};

use super::rig::{Rig, first_id, mounts, shell};
use super::volumes::bind;
use crate::scene;

/// File systems whose owners the kernel maps, and the commands that make them, without the path of the disk.
const FILE_SYSTEMS: [(&str, &[&str]); 3] = [
    ("ext4", &["mke2fs", "-q", "-t", "ext4"]),
    ("xfs", &["mkfs.xfs", "-q"]),
    ("btrfs", &["mkfs.btrfs", "-q"]),
];

#[track_caller]
fn call(program: &str, arguments: &[&str], path: &Path) {
    Ran::run(
        Command::new(find_program(program))
            .args(arguments)
            .arg(path),
    )
    .ok();
}

#[test]
fn privileged_files_on_ext4_xfs_and_btrfs_are_mapped() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for (kind, make) in FILE_SYSTEMS {
        let image = scene.dir().join(format!("{kind}.img"));
        // xfs makes no smaller one.
        let size = File::create(&image).and_then(|file| file.set_len(512 << 20));
        size.unwrap();
        call(make[0], &make[1..], &image);
        let disk = scene.dir().join(kind);
        fs::create_dir(&disk).unwrap();
        let source = image.to_str().unwrap();
        call("mount", &["-t", kind, "-o", "loop", source], &disk);

        let volume = disk.join("volume");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("f"), "").unwrap();
        chown(volume.join("f"), Some(1000), Some(1000)).unwrap();
        // The layers, as of the overlay of an engine, and a whole tree, as of the other drivers. Of btrfs that is a
        // snapshot of a subvolume.
        let tree = disk.join("tree");
        if kind == "btrfs" {
            let first = disk.join("first");
            call("btrfs", &["-q", "subvolume", "create"], &first);
            fill(&rig, &first);
            let first = first.to_str().unwrap();
            call("btrfs", &["-q", "subvolume", "snapshot", first], &tree);
        } else {
            fs::create_dir(&tree).unwrap();
            fill(&rig, &tree);
        }
        let (upper, merged) = (disk.join("o/diff"), disk.join("o/merged"));
        for dir in [&upper, &merged, &disk.join("o/work")] {
            fs::create_dir_all(dir).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            tree.display(),
            upper.display(),
            disk.join("o/work").display()
        );
        call(
            "mount",
            &["-t", "overlay", "overlay", "-o", &options],
            &merged,
        );

        let before = mounts();
        let mut firsts = Vec::new();
        for (root, on_the_disk) in [(&merged, &upper), (&tree, &tree)] {
            let bundle = rig.bundle(Engine::Runc, root);
            bind(&bundle, &volume, "/v", &["rbind"]);
            let mut container = Container::of_bundle(bundle);
            firsts.push(first_id(&mut container));
            let seen = shell(
                &mut container,
                "b stat -c %u:%g:%a /home/u/f /srv/max /v/f; b touch /made /v/made; b chown 33:34 /made /v/made",
            );
            let wanted = "1000:1000:600\n65535:65535:644\n1000:1000:644\n";
            assert_eq!(seen, wanted, "{kind} {root:?}");
            for path in [on_the_disk.join("made"), volume.join("made")] {
                let stat = fs::metadata(&path).unwrap();
                assert_eq!((stat.uid(), stat.gid()), (33, 34), "{kind} {path:?}");
            }
            fs::remove_file(volume.join("made")).unwrap();
            drop(container);
            assert_eq!(mounts(), before, "{kind} {root:?}");
        }
        assert_ne!(firsts[0], firsts[1], "{kind}");
        call("umount", &[], &merged);
        call("umount", &[], &disk);
    }
    daemon.end();
}

/// Copies the files of the rig to a tree.
#[track_caller]
fn fill(rig: &Rig<'_>, tree: &Path) {
    for layer in [rig.scene.root().to_owned(), rig.scene.dir().join("layer")] {
        let from = layer.join(".").display().to_string();
        call("cp", &["--archive", &from], tree);
    }
}
