//! Decisions about containers of a procfs that the tests make.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::*;

/// A procfs with this process and these: pid, user namespace, map.
fn proc(processes: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let own = ("self", "user:[1]", "0 0 4294967295");
    for (pid, user, map) in [own].iter().chain(processes) {
        let process = dir.path().join(pid);
        fs::create_dir_all(process.join("ns")).unwrap();
        symlink(user, process.join("ns/user")).unwrap();
        fs::write(process.join("uid_map"), map).unwrap();
        fs::write(process.join("gid_map"), map).unwrap();
    }
    dir
}

fn container(namespaces: &Value, more: &Value) -> Container {
    let mut config = json!({"root": {"path": "r"}, "linux": {"namespaces": namespaces}});
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    Container::parse(&config.to_string()).unwrap()
}

fn namespaces(paths: &[(&str, &str)]) -> Value {
    let kinds = ["pid", "network", "ipc", "uts", "mount"];
    let all = kinds
        .iter()
        .map(|kind| match paths.iter().find(|(name, _)| name == kind) {
            Some((_, path)) => json!({"type": kind, "path": path}),
            None => json!({"type": kind}),
        });
    all.collect()
}

fn enabled() -> Isolation {
    Isolation {
        enabled: true,
        ..Isolation::default()
    }
}

#[test]
fn a_container_is_isolated_if_the_host_or_the_container_wants_it() {
    let proc = proc(&[]);
    let asks = |settings: &Isolation, value: Option<&str>| {
        let annotations = value.map_or(json!({}), |value| json!({ ISOLATE: value }));
        let container = container(&namespaces(&[]), &json!({ "annotations": annotations }));
        decide(&container, settings, proc.path())
    };
    let off = Isolation::default();
    let may = Isolation {
        opt_out: true,
        ..enabled()
    };
    let alone = Decision::LeaveAlone(None);
    assert_eq!(asks(&off, None).unwrap(), alone);
    assert_eq!(asks(&off, Some("true")).unwrap(), Decision::Own);
    assert_eq!(asks(&off, Some("false")).unwrap(), alone);
    assert_eq!(asks(&enabled(), None).unwrap(), Decision::Own);
    assert_eq!(asks(&may, Some("false")).unwrap(), alone);
    let refused = asks(&enabled(), Some("false")).unwrap_err();
    assert_eq!(refused.kind, Kind::Denied);
    assert!(refused.to_string().contains("opt-out"), "{refused}");
    assert!(asks(&off, Some("perhaps")).is_err());
    // Neither does the annotation about views undo it.
    let without_views = json!({"annotations": {"eci-fs.enabled": "false"}});
    let container = container(&namespaces(&[]), &without_views);
    assert_eq!(
        decide(&container, &enabled(), proc.path()).unwrap(),
        Decision::Own
    );
}

#[test]
fn a_mapping_of_the_engine_is_honoured() {
    let proc = proc(&[]);
    let map = json!([{"containerID": 0, "hostID": 1, "size": 2}]);
    for linux in [
        json!({"namespaces": [{"type": "user", "path": "/run/user"}]}),
        json!({"namespaces": [{"type": "user"}], "uidMappings": map, "gidMappings": map}),
    ] {
        let container = container(&json!([]), &json!({ "linux": linux }));
        let decision = decide(&container, &enabled(), proc.path()).unwrap();
        assert_eq!(decision, Decision::LeaveAlone(None), "{linux}");
    }
}

#[test]
fn a_mapping_that_a_runtime_ignores_or_that_has_the_hosts_root_is_not_honoured() {
    let proc = proc(&[]);
    let decide = |list: Value, host_id: u32| {
        let map = json!([{"containerID": 0, "hostID": host_id, "size": 2}]);
        let linux = json!({"namespaces": list, "uidMappings": map, "gidMappings": map});
        let container = container(&json!([]), &json!({ "linux": linux }));
        decide(&container, &enabled(), proc.path())
    };
    assert_eq!(decide(namespaces(&[]), 1).unwrap(), Decision::Own);
    let mut with_user = namespaces(&[]);
    with_user
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    let refused = decide(with_user, 0).unwrap_err().to_string();
    assert!(refused.contains("user"), "{refused}");
}

#[test]
fn a_user_namespace_without_a_map_or_with_the_hosts_root_in_it_is_the_hosts() {
    let process = proc(&[("7", "user:[2]", "0 0 1\n")]);
    let map = json!([{"containerID": 0, "hostID": 1, "size": 2}]);
    for linux in [
        json!({"namespaces": [{"type": "user"}]}),
        json!({"namespaces": [{"type": "user", "path": ""}], "uidMappings": map}),
        json!({"namespaces": [{"type": "user", "path": "/proc/7/ns/user"}]}),
    ] {
        let container = container(&json!([]), &json!({ "linux": linux }));
        let refused = decide(&container, &enabled(), process.path()).unwrap_err();
        assert!(refused.to_string().contains("user"), "{linux}: {refused}");
    }
}

#[test]
fn a_namespace_of_the_host_that_another_container_has_is_the_hosts() {
    let map = "         0     524288      65536\n";
    let proc = proc(&[("7", "user:[2]", map)]);
    let own = proc.path().join("self/ns/net");
    symlink("net:[1]", &own).unwrap();
    symlink("net:[1]", proc.path().join("7/ns/net")).unwrap();
    assert!(is_namespace(&proc.path().join("7/ns/net"), &own));
    assert!(!is_namespace(&proc.path().join("7/ns/user"), &own));
}

#[test]
fn sharing_with_the_host_is_refused_or_left_alone_as_it_is_set() {
    let proc = proc(&[("7", "user:[1]", "0 0 4294967295")]);
    let own_user = proc.path().join("self/ns/user");
    for (list, word) in [
        (
            json!([{"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]),
            "pid",
        ),
        (
            namespaces(&[("network", "/run/netns/x")]),
            "network (/run/netns/x)",
        ),
        (
            namespaces(&[("network", "/proc/7/ns/net")]),
            "network (/proc/7/ns/net)",
        ),
        (namespaces(&[("ipc", "/proc/8/ns/ipc")]), "ipc"),
        (
            json!([{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                   {"type": "mount"}, {"type": "user", "path": own_user}]),
            "user",
        ),
    ] {
        let container = container(&list, &json!({}));
        let refused = decide(&container, &enabled(), proc.path()).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains(word) && text.contains("host-namespaces"),
            "{text}"
        );
        assert!(
            text.contains("--userns=auto") && text.contains("hostUsers: false"),
            "{text}"
        );
        let alone = Isolation {
            host_namespaces: HostNamespaces::LeaveAlone,
            ..enabled()
        };
        let decision = decide(&container, &alone, proc.path()).unwrap();
        assert!(
            matches!(&decision, Decision::LeaveAlone(Some(why)) if why.contains(word)),
            "{decision:?}"
        );
    }
}

#[test]
fn a_container_that_joins_another_joins_its_user_namespace() {
    let map = "         0     524288      65536\n";
    let proc = proc(&[
        ("7", "user:[2]", map),
        ("8", "user:[2]", map),
        ("9", "user:[3]", "0 589824 65536\n"),
        ("10", "user:[4]", "0 1000 1\n1 100000 65536\n"),
    ]);
    let joins = |paths: &[(&str, &str)]| {
        decide(
            &container(&namespaces(paths), &json!({})),
            &enabled(),
            proc.path(),
        )
    };
    let joined = Decision::Join(Joined {
        pid: 7,
        ids: 65_536,
    });
    let pod = [("network", "/proc/7/ns/net"), ("ipc", "/proc/8/ns/ipc")];
    assert_eq!(joins(&pod).unwrap(), joined);
    assert!(joins(&[("network", "/proc/7/ns/net"), ("pid", "/proc/9/ns/pid")]).is_err());
    assert!(joins(&[("network", "/proc/10/ns/net")]).is_err());
}

#[test]
fn what_an_isolated_container_cannot_have_is_refused_by_its_name() {
    let proc = proc(&[]);
    let refused = |list: &Value, more: &Value| {
        let container = container(list, more);
        decide(&container, &enabled(), proc.path())
            .unwrap_err()
            .to_string()
    };
    let user = json!({"process": {"user": {"uid": 70_000, "gid": 0}}});
    let text = refused(&namespaces(&[]), &user);
    assert!(text.contains("70000") && text.contains("65535"), "{text}");
    let list = json!([{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}]);
    assert!(refused(&list, &json!({})).contains("mount namespace"));
}
