//! The files of isolated containers, inside and on the disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use support::{Container, Engine};

use super::rig::{Rig, Style, first_id, mounts, shell};
use crate::scene;

/// Operations that write to the disk in all ways that an overlay knows.
const OPERATIONS: &str = r#"
    b touch /made; b chown 42:43 /made; b mkdir /dir /dir/sub; b touch /dir/sub/file
    b echo more >> /srv/max; b chown 1000:1000 /srv/data/x; b chmod 0600 /srv/data/x
    b rm /srv/gone; b rm -r /home/u; b mkdir -p /home/u; b chown 1000:1000 /home/u; b touch /home/u/new
    b ln /made /linked; b ln /srv/max /srv/max2; b ln -s /etc/passwd /symbolic; b mkfifo /fifo
    b mv /dir /moved; b mv /srv/max2 /srv/renamed; b cp /bin/busybox /suid; b chown 1000:1000 /suid; b chmod 6755 /suid
    b mkdir -m 1777 /sticky; b mkdir -m 2775 /setgid; b chgrp 1000 /setgid; b touch /setgid/inherits
    b touch /sticky/a; b mv /sticky/a /sticky/b; b rm /sticky/b; b truncate -s 4096 /holes; b chmod 444 /holes
    b su u -s /bin/sh -c "busybox touch /home/u/byuser; busybox mkdir /home/u/d; busybox ln -s f /home/u/l"
    b su u -s /bin/sh -c "busybox touch /setgid/refused" || b echo refused > /refused
    b cp /bin/busybox /capable; b touch /acl; b touch -h /symbolic
"#;

/// An ACL of user 1000, and a file capability, as the kernel keeps them.
const ACL: &str =
    "0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff";
const CAPABILITY: &str = "0100000200040000000000000000000000000000";

/// All entries of a tree: what they are, whose, and their extended attributes.
fn tree(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let kind = stat.file_type();
        let content = if kind.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            format!(
                "{} bytes, {:x}",
                bytes.len(),
                bytes
                    .iter()
                    .fold(0_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte))
            )
        } else if kind.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            String::new()
        } else {
            assert!(kind.is_fifo() || kind.is_char_device(), "{path:?}");
            format!("{}", stat.rdev())
        };
        let line = format!(
            "{:o} {}:{} {} links {} {content} {:?}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            kind.is_dir(),
            if kind.is_dir() { 0 } else { stat.nlink() },
            xattrs(&path)
        );
        found.insert(path.strip_prefix(top).unwrap().to_owned(), line);
    }
    found
}

/// The extended attributes, but for the number by which an overlay knows a copied file.
fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    let names = names.split('\0').filter(|name| !name.is_empty());
    let value = |name: &str| {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        value[..length].to_vec()
    };
    names
        .map(|name| {
            (
                name.to_owned(),
                if name.ends_with("overlay.origin") || name.ends_with("overlay.uuid") {
                    vec![]
                } else {
                    value(name)
                },
            )
        })
        .collect()
}

/// Do the operations, and say what is on the disk then.
#[track_caller]
fn after_operations(mut container: Container, upper: &Path) -> BTreeMap<PathBuf, String> {
    shell(&mut container, OPERATIONS);
    container.ask(&["set-xattr", "/acl", "system.posix_acl_access", ACL]);
    container.ask(&["set-xattr", "/capable", "security.capability", CAPABILITY]);
    drop(container);
    tree(upper)
}

#[test]
fn privileged_the_disk_is_as_a_container_without_isolation_writes_it() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for (engine, style) in [
        (Engine::Runc, Style::Docker),
        (Engine::Crun, Style::Containerd),
    ] {
        let plain = rig.overlay(style, "plain");
        let ours = rig.overlay(style, "ours");
        let wanted = after_operations(
            Container::of_bundle(rig.plain(engine, &plain.root)),
            &plain.upper,
        );
        let found = after_operations(rig.start(engine, &ours.root), &ours.upper);
        assert!(wanted.len() >= 25, "{wanted:#?}");
        assert_eq!(found, wanted, "{engine:?}");
    }
    daemon.end();
}

#[test]
fn privileged_programs_with_a_user_or_capabilities_have_them() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let mut container = rig.start(Engine::Runc, &disk.root);
    shell(&mut container, "b cp /bin/probe /bin/capprobe");
    container.ask(&[
        "set-xattr",
        "/bin/capprobe",
        "security.capability",
        CAPABILITY,
    ]);
    let mut status = |program: &str| {
        let line = r#"["read","/proc/self/status"]"#;
        let script = format!("echo '{line}' | /bin/{program} agent measuring");
        container.busybox(&["su", "v", "-s", "/bin/sh", "-c", &script])
    };
    let suid = status("suidprobe");
    assert!(suid.contains(r"Uid:\t2000\t1000\t1000\t1000\n"), "{suid}");
    let capable = status("capprobe");
    assert!(
        capable.contains(r"CapEff:\t0000000000000400\n"),
        "{capable}"
    );
    drop(container);
    daemon.end();
}

#[test]
fn privileged_a_second_start_under_other_ids_sees_the_files_of_the_first() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for (place, options) in [
        "",
        ",metacopy=on,redirect_dir=on",
        ",volatile",
        ",userxattr",
        ",index=on",
    ]
    .into_iter()
    .enumerate()
    {
        let disk = rig.overlay_with(Style::Containerd, &format!("o{place}"), options, &[]);
        let mut ids = Vec::new();
        for script in [
            "b echo kept > /srv/data/x; b mkdir /d; b touch /d/f; b chown 33:34 /d/f; b mv /srv/data /srv/moved || b true; b rm /srv/gone",
            "b true",
        ] {
            let mut container = rig.start(Engine::Crun, &disk.root);
            ids.push(first_id(&mut container));
            shell(&mut container, script);
            let seen = shell(
                &mut container,
                "b stat -c %u:%g /d/f /home/u/f; b cat /srv/*/x; b ls /srv/gone 2>&1 || b true",
            );
            assert_eq!(
                seen, "33:34\n1000:1000\nkept\nls: /srv/gone: No such file or directory\n",
                "{options}"
            );
        }
        assert_ne!(ids[0], ids[1]);
    }
    daemon.end();
}

#[test]
fn privileged_hundreds_of_layers_are_mapped() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let layers: Vec<PathBuf> = (0..250)
        .map(|number| {
            let layer = scene.dir().join(format!("many/{number}"));
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(format!("file{number}")), "").unwrap();
            layer
        })
        .collect();
    let disk = rig.overlay_with(Style::Docker, "m", "", &layers);
    let mut container = rig.start(Engine::Runc, &disk.root);
    assert_eq!(
        shell(
            &mut container,
            "b stat -c %u /file* | b uniq -c | b tr -d ' '"
        ),
        "2500\n"
    );
    drop(container);
    daemon.end();
}

#[test]
fn privileged_a_directory_and_a_read_only_root_are_mapped_too() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let link = scene.dir().join("link");
    std::os::unix::fs::symlink(scene.root(), &link).unwrap();
    let mut container = rig.start(Engine::Runc, &link);
    assert_eq!(
        shell(&mut container, "b touch /made; b stat -c %u:%g /made"),
        "0:0\n"
    );
    assert_eq!(fs::metadata(scene.root().join("made")).unwrap().uid(), 0);
    drop(container);
    let disk = rig.overlay(Style::Docker, "r");
    for engine in Engine::RUNTIMES {
        let bundle = rig.bundle(engine, &disk.root);
        bundle.change(|config| config["root"]["readonly"] = json!(true));
        let mut container = Container::of_bundle(bundle);
        let refused = shell(&mut container, "b touch /made 2>&1 || b true");
        assert!(
            refused.contains("Read-only file system"),
            "{engine:?} {refused}"
        );
    }
    daemon.end();
}

#[test]
fn privileged_what_the_engine_writes_beside_a_held_directory_is_seen_there() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    bundle.change(|config| config["process"]["cwd"] = json!("/srv/data"));
    let mut container = Container::of_bundle(bundle);
    fs::write(disk.root.join("srv/data/copied"), "in\n").unwrap();
    assert_eq!(
        shell(&mut container, "b cat copied; b touch mine; b ls /srv/data"),
        "in\ncopied\nmine\nx\n"
    );
    drop(container);
    daemon.end();
}

#[test]
fn privileged_a_second_container_on_the_disk_of_one_that_lives_is_refused_and_takes_nothing_from_it()
 {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let mut one = rig.start(Engine::Runc, &disk.root);
    let before = mounts();
    let other = rig.bundle(Engine::Crun, &disk.root);
    let words = ["isolation: ", "work-eci", "another container that lives"];
    other.run().refused(&words);
    // One that joins the first is another container, too.
    let net = format!("/proc/{}/ns/net", one.pid());
    other.change(|config| {
        let list = config["linux"]["namespaces"].as_array_mut().unwrap();
        for namespace in list.iter_mut().filter(|one| one["type"] == "network") {
            namespace["path"] = json!(net);
        }
    });
    other.run().refused(&words);
    assert_eq!(mounts(), before);
    // What changes a file of a layer or takes one away needs the work directory.
    let script =
        "echo new > /srv/max; b rm /srv/gone; b mkdir /srv/data/d; b cat /srv/max; b ls /srv";
    assert_eq!(shell(&mut one, script), "new\ndata\nmax\n");
    let left: Vec<_> = fs::read_dir(disk.upper.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with("-test"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    drop((one, other));
    // When it has ended, another one may have its disk.
    let mut next = rig.start(Engine::Crun, &disk.root);
    assert_eq!(
        shell(&mut next, "b cat /srv/max; echo more > /srv/more"),
        "new\n"
    );
    drop(next);
    daemon.end();
}
