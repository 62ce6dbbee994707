//! Decisions about paths of a host that the tests describe.

use std::fs;

use eci_fs_mountd::container::mountinfo::parse_mountinfo;

use super::*;

/// A host with one disk, a second one at /data, and three directories that are seen at another place, too.
const MOUNTS: &str = "\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 8:2 / /data rw - ext4 /dev/sda2 rw
22 20 8:1 /etc/ssl /srv/tls rw - ext4 /dev/sda1 rw
23 20 8:1 /var/lib /srv/lib rw - ext4 /dev/sda1 rw
24 20 8:1 /etc /var/lib/docker/volumes/evil/_data rw - ext4 /dev/sda1 rw
25 20 8:2 /keys /srv/keys rw - ext4 /dev/sda2 rw
26 20 0:5 / /proc rw - proc proc rw
27 20 0:6 / /srv/other rw - proc proc rw
28 20 0:7 / /mnt/cgroup rw - cgroup2 cgroup2 rw
";

const NONE: Own = Own {
    restricted: &[],
    allowed: &[],
};

#[derive(Debug, Clone, Copy)]
struct Own {
    restricted: &'static [&'static str],
    allowed: &'static [&'static str],
}

#[track_caller]
fn judge(settings: Own, path: &str, purpose: Use, read_only: bool) -> Option<String> {
    let mounts = parse_mountinfo(MOUNTS);
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
    let settings = Isolation {
        restricted_mounts: paths(settings.restricted),
        allowed_mounts: paths(settings.allowed),
        ..Isolation::default()
    };
    let rules = HostRules::new(&settings, &BTreeMap::new(), &mounts);
    let path = Path::new(path);
    let wanted = Wanted {
        written: path,
        purpose,
        read_only: match read_only {
            true => ReadOnly::All,
            false => ReadOnly::None,
        },
        recursive: true,
    };
    let location = rules.names.location(path).unwrap();
    let mut places = vec![(path.to_owned(), location)];
    for below in rules.names.below(path) {
        let point = PathBuf::from(&below.point);
        let location = Location::of(below, &point).unwrap();
        places.push((point, location));
    }
    places
        .iter()
        .find_map(|(path, location)| rules.check_place(path, location, wanted).err())
        .map(|error| error.to_string())
}

#[track_caller]
fn refused(path: &str, words: &[&str]) {
    let text = judge(NONE, path, Use::Volume, false).unwrap_or_else(|| panic!("{path}"));
    for word in words {
        assert!(text.contains(word), "{path}: {text}");
    }
}

#[test]
fn restricted_directories_what_is_below_and_what_is_above_are_refused_with_the_rule() {
    for (path, words) in [
        (
            "/etc",
            &[
                "/etc is /etc, which containers may not have",
                "allowed-mounts",
            ][..],
        ),
        ("/etc/docker/daemon.json", &["is below /etc"]),
        ("/run/docker.sock", &["is below /run"]),
        ("/proc/1", &["is below /proc"]),
        ("/", &["/ contains "]),
        ("/var", &["/var contains /var/lib/"]),
        ("/var/lib", &["contains"]),
        ("/root", &["contains", "/root/."]),
        ("/usr/share", &["is below /usr", "read-only"]),
        (
            "/var/lib/docker/overlay2/a/merged",
            &["is below /var/lib/docker"],
        ),
        ("/var/lib/docker/volumes", &["is below /var/lib/docker"]),
    ] {
        refused(path, words);
    }
    for path in [
        "/home/u",
        "/root/app",
        "/srv/data",
        "/tmp",
        "/opt",
        "/data/x",
        "/var/log",
        "/etcetera",
    ] {
        // The tests run on hosts where /tmp may be a link.
        assert_eq!(judge(NONE, path, Use::Volume, false), None, "{path}");
    }
}

#[test]
fn another_name_of_a_restricted_directory_is_refused_too() {
    refused("/srv/tls", &["/srv/tls (which is /etc/ssl) is below /etc"]);
    refused("/srv/lib", &["contains /var/lib/"]);
    refused(
        "/srv/lib/docker/containers",
        &["/var/lib/docker/containers"],
    );
    // A volume that a user made of a directory of the host, and what has such a mount below it.
    refused(
        "/var/lib/docker/volumes/evil/_data",
        &["(which is /etc) is /etc"],
    );
    refused("/srv", &["contain"]);
    // A procfs that was mounted once more, for a volume for instance.
    refused("/srv/other", &["(which is /proc) is /proc"]);
    refused(
        "/srv/other/1/environ",
        &["(which is /proc/1/environ) is below /proc"],
    );
    assert_eq!(judge(NONE, "/mnt/cgroup", Use::Volume, false), None);
    let own = Own {
        restricted: &["/srv/keys"],
        allowed: &[],
    };
    let text = judge(own, "/data/keys/x", Use::Volume, true).unwrap();
    assert!(text.contains("is below /srv/keys"), "{text}");
    let text = judge(own, "/data", Use::Volume, true).unwrap();
    assert!(text.contains("/data contains /srv/keys"), "{text}");
}

#[test]
fn what_engines_put_into_containers_is_allowed() {
    for path in [
        "/var/lib/docker/volumes/v/_data",
        "/var/lib/docker/containers/c/hosts",
        "/run/containers/storage/overlay-containers/c/userdata/resolv.conf",
        "/var/lib/kubelet/pods/p/volumes/kubernetes.io~secret/s",
        "/dev/null",
        "/sys/fs/cgroup",
    ] {
        assert_eq!(judge(NONE, path, Use::Volume, false), None, "{path}");
    }
    for path in ["/usr/bin", "/etc/hosts", "/etc/ssl/certs/ca.pem"] {
        assert_eq!(judge(NONE, path, Use::Volume, true), None, "{path}");
        assert!(judge(NONE, path, Use::Volume, false).is_some(), "{path}");
    }
    for path in ["/var/lib/docker/overlay2/c/merged", "/srv/root"] {
        assert_eq!(judge(NONE, path, Use::Root, false), None, "{path}");
    }
    for path in [
        "/",
        "/etc",
        "/var/lib/docker",
        "/var/lib/docker/volumes/evil/_data",
    ] {
        assert!(judge(NONE, path, Use::Root, false).is_some(), "{path}");
    }
    // A layer of an image is read, and written only as the upper directory of a root file system.
    let layer = "/var/lib/docker/overlay2/c/diff";
    let overlay = "/var/lib/containers/storage/overlay-containers/c/userdata/overlay/1/upper";
    for (path, purpose, read_only, allowed) in [
        (layer, Use::Layer, true, true),
        (layer, Use::Layer, false, false),
        (layer, Use::RootUpper, false, true),
        (layer, Use::Root, false, false),
        (layer, Use::Volume, true, false),
        (overlay, Use::Layer, false, true),
    ] {
        let found = judge(NONE, path, purpose, read_only).is_none();
        assert_eq!(found, allowed, "{path} {purpose:?} {read_only}");
    }
}

#[test]
fn the_administrator_decides_and_the_longest_path_among_the_administrators() {
    let own = Own {
        restricted: &["/home", "/etc/app/key", "/var/lib/docker/volumes/*"],
        allowed: &["/home/*/public", "/etc/app", "/var"],
    };
    for (path, allowed) in [
        ("/home/u", false),
        ("/home/u/public/x", true),
        ("/etc/app/x", true),
        ("/etc/app/key", false),
        ("/etc/app", false),
        ("/etc/other", false),
        ("/var/log", true),
        ("/var/lib/kubelet", true),
    ] {
        assert_eq!(
            judge(own, path, Use::Volume, false).is_none(),
            allowed,
            "{path}"
        );
    }
    let all = Own {
        restricted: &[],
        allowed: &["/"],
    };
    assert_eq!(judge(all, "/etc", Use::Volume, false), None);
}

#[test]
fn descriptors_are_judged_and_what_is_gone_is_refused() {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = parse_mountinfo(&text);
    let dir = tempfile::tempdir().unwrap();
    let settings = Isolation {
        restricted_mounts: vec![dir.path().join("secret")],
        ..Isolation::default()
    };
    for name in ["secret", "open", "gone"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink("secret", dir.path().join("link")).unwrap();
    let rules = HostRules::new(&settings, &BTreeMap::new(), &mounts);
    let check = |name: &str, file: &fs::File| {
        let wanted = Wanted {
            written: Path::new(name),
            purpose: Use::Volume,
            read_only: ReadOnly::Top,
            recursive: false,
        };
        rules.check(file, wanted).map_err(|error| error.to_string())
    };
    let open = |name: &str| fs::File::open(dir.path().join(name)).unwrap();
    assert_eq!(check("open", &open("open")), Ok(()));
    let text = check("link", &open("link")).unwrap_err();
    assert!(
        text.contains("link (which is ") && text.contains("secret"),
        "{text}"
    );
    let gone = open("gone");
    fs::remove_dir(dir.path().join("gone")).unwrap();
    assert!(check("gone", &gone).is_err());
}

#[test]
fn devices_that_reach_past_permissions_are_refused() {
    let mounts = Vec::new();
    let settings = Isolation {
        allowed_devices: vec!["/dev/zero".into()],
        ..Isolation::default()
    };
    let rules = HostRules::new(&settings, &BTreeMap::new(), &mounts);
    for (block, major, minor, allowed_by_number, allowed) in [
        (true, 8, 0, true, false),
        // Of a privileged container, which cannot use it.
        (true, 8, 0, false, true),
        (false, 1, 1, true, false),
        (false, 1, 11, true, false),
        (false, 1, 3, true, true),
        (false, 1, 5, true, true),
        (false, 10, 229, true, true),
        (false, 21, 3, true, false),
    ] {
        let device = Device {
            path: "/dev/x".into(),
            block,
            major,
            minor,
            mode: 0o600,
            uid: 0,
            gid: 0,
            allowed_by_number,
        };
        let found = rules.check_device(&device).is_ok();
        assert_eq!(found, allowed, "{device:?}");
    }
}

#[test]
fn an_image_is_allowed_more_where_the_administrator_names_the_annotation() {
    let digest = format!("sha256:{:064}", 7);
    let mounts = parse_mountinfo(MOUNTS);
    for (believed, key, value, allowed) in [
        ("image", "image", format!("docker:cli@{digest}"), true),
        ("image", "image", digest.clone(), true),
        ("image", "other", digest.clone(), false),
        ("", "", digest.clone(), true),
        ("image", "image", "docker:cli".to_owned(), false),
        (
            "image",
            "image",
            format!("{digest}@sha256:{:064}", 8),
            false,
        ),
    ] {
        let settings = Isolation {
            image_annotation: believed.to_owned(),
            allowed_images: [(digest.clone(), vec!["/run/docker.sock".into()])].into(),
            ..Isolation::default()
        };
        let annotations = [(key.to_owned(), value.clone())].into();
        let rules = HostRules::new(&settings, &annotations, &mounts);
        let path = Path::new("/run/docker.sock");
        let location = rules.names.location(path).unwrap();
        let wanted = Wanted {
            written: path,
            purpose: Use::Volume,
            read_only: ReadOnly::None,
            recursive: false,
        };
        let found = rules.check_place(path, &location, wanted).is_ok();
        assert_eq!(
            found,
            allowed && !believed.is_empty(),
            "{believed} {key} {value}"
        );
    }
}

#[test]
fn the_documentation_lists_all_built_in_rules() {
    let document = include_str!("../../../docs/isolation.md");
    let restricted = builtin::restricted().map(|(path, _)| path);
    let allowed = builtin::allowed().map(|(path, _)| path);
    for path in restricted.chain(allowed) {
        assert!(document.contains(&format!("`{path}`")), "{path}");
    }
}
