//! Tests of what is read and edited.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::container::MAX_ENTRIES;
use super::edits::{PING_GROUPS, clamp_groups};
use super::*;
use crate::oci::hooks::Hook;

fn edits() -> Edits {
    Edits {
        user_namespace: "/stage/user".into(),
        first_id: 524_288,
        ids: 65_536,
        root: "/stage/root".into(),
        ..Edits::default()
    }
}

fn edited(config: &Value, edits: &Edits) -> Value {
    serde_json::from_str(&edit(&config.to_string(), edits).unwrap().0).unwrap()
}

#[test]
fn what_isolation_does_not_change_stays_as_the_text_that_it_is() {
    let odd = r#""z":1.0,"a":123456789012345678901234567890,"b":1e400,"u":"\u00e9\/","nested":{"y":[ 1 , 2.50 ]}"#;
    let text = format!(
        r#"{{{odd},"root":{{"path":"r","readonly":true,"x":1.50}},"mounts":[ {{"destination":"/p","x":[1.0]}} ],"linux":{{"q":1.0}}}}"#
    );
    let (edited, _) = edit(&text, &edits()).unwrap();
    assert!(edited.starts_with(&format!("{{{odd},\"root\":{{\"path\":\"/stage/root\",\"readonly\":true,\"x\":1.50}},\"mounts\":[ {{\"destination\":\"/p\",\"x\":[1.0]}} ],\"linux\":{{\"q\":1.0,\"namespaces\":[")), "{edited}");
}

#[test]
fn a_container_gets_a_time_namespace_if_there_is_one_for_it() {
    let config = json!({"root": {"path": "r"}});
    let namespaces = |time_namespace: Option<PathBuf>| {
        let edits = Edits {
            time_namespace,
            ..edits()
        };
        edited(&config, &edits)["linux"]["namespaces"].clone()
    };
    assert_eq!(
        namespaces(Some("/stage/time".into()))[2],
        json!({"type": "time", "path": "/stage/time"})
    );
    assert_eq!(namespaces(None).as_array().map(Vec::len), Some(2));
    let config = json!({"root": {"path": "r"}, "linux": {"namespaces": [{"type": "time"}]}});
    let edits = Edits {
        time_namespace: Some("/stage/time".into()),
        ..edits()
    };
    let namespaces = &edited(&config, &edits)["linux"]["namespaces"];
    assert_eq!(
        *namespaces,
        json!([{"type": "user", "path": "/stage/user"}, {"type": "cgroup"},
               {"type": "time", "path": "/stage/time"}])
    );
}

#[test]
fn an_overlay_of_the_runtime_becomes_a_bind_mount_with_the_options_of_its_mount() {
    let config = json!({"root": {"path": "r"}, "mounts": [{
        "destination": "/o", "type": "overlay", "source": "merge",
        "options": ["lowerdir=/l", "upperdir=/u", "workdir=/w", "volatile", "private", "rw"],
    }]});
    let container = Container::parse(&config.to_string()).unwrap();
    let overlay = container.mounts[0].overlay.as_ref().unwrap();
    assert_eq!(overlay[0], "lowerdir=/l");
    assert_eq!(container.mounts[0].source, None);
    let source = Source {
        path: "/stage/o".into(),
        options: vec!["nodev"],
        is_overlay: true,
        ..Source::default()
    };
    let edits = Edits {
        sources: [(0, source)].into(),
        ..edits()
    };
    assert_eq!(
        edited(&config, &edits)["mounts"],
        json!([{"destination": "/o", "type": "bind", "source": "/stage/o", "options": ["private", "rw", "bind", "nodev"]}])
    );
}

#[test]
fn a_container_gets_its_namespaces_and_its_mapping() {
    let config = json!({"root": {"path": "r"}, "linux": {"namespaces": [{"type": "pid"}]}});
    let after = edited(&config, &edits());
    assert_eq!(
        after["linux"]["namespaces"],
        json!([{"type": "pid"}, {"type": "user", "path": "/stage/user"}, {"type": "cgroup"}])
    );
    let mapping = json!([{"containerID": 0, "hostID": 524_288, "size": 65_536}]);
    assert_eq!(after["linux"]["uidMappings"], mapping);
    assert_eq!(after["linux"]["gidMappings"], mapping);
    // A runtime that takes it from the namespace, also where the engine has written one that would have been ignored.
    let alone = Edits {
        without_mapping: true,
        ..edits()
    };
    let after = edited(&after, &alone);
    assert_eq!(after["linux"].as_object().unwrap().len(), 1, "{after}");
    let config = json!({"root": {"path": "r"}, "linux": {"namespaces": [{"type": "cgroup"}]}});
    let after = edited(&config, &edits());
    assert_eq!(after["linux"]["namespaces"].as_array().unwrap().len(), 2);
}

#[test]
fn sources_and_devices_lead_to_the_stage_and_rules_of_the_cgroup_stay() {
    let config = json!({
        "root": {"path": "r"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/v", "source": "vol", "options": ["rbind", "ro"]},
            {"destination": "/w", "type": "bind", "source": "/w", "options": ["bind"]},
            {"destination": "/m", "source": "/m", "options": ["rbind", "idmap"]},
        ],
        "linux": {
            "devices": [
                {"path": "/dev/p", "type": "p"},
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o20_666, "uid": 1, "gid": 2},
                {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0},
            ],
            "resources": {"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
            ]},
        },
    });
    let container = Container::parse(&config.to_string()).unwrap();
    let sources: Vec<_> = container
        .mounts
        .iter()
        .map(|m| (m.source.clone(), m.recursive))
        .collect();
    assert_eq!(sources[0].0, None);
    assert_eq!(sources[1], (Some("vol".into()), true));
    assert_eq!(sources[2], (Some("/w".into()), false));
    assert_eq!(sources[3].0, Some("/m".into()));
    let is_mapped = container.mounts.iter().map(|m| m.is_mapped);
    let mapped = [false, false, false, true];
    assert!(is_mapped.eq(mapped), "the engine maps the last one");
    let read_only = container.mounts.iter().map(|m| m.read_only);
    let top = |read_only| match read_only {
        true => ReadOnly::Top,
        false => ReadOnly::None,
    };
    assert!(read_only.eq([false, true, false, false].map(top)));
    assert_eq!(container.devices.len(), 2);
    let fuse = &container.devices[0];
    assert!(fuse.allowed_by_number && !fuse.block);
    assert_eq!((fuse.mode, fuse.uid, fuse.gid), (0o666, 1, 2));
    assert!(!container.devices[1].allowed_by_number);
    let mut edits = edits();
    let source = Source {
        path: "/stage/m1".into(),
        options: vec!["nosuid", "nodev"],
        below: vec!["a".into(), "a/b".into()],
        is_overlay: false,
    };
    edits.sources.insert(1, source);
    edits.devices.insert(0, "/stage/d0".into());
    let after = edited(&config, &edits);
    assert_eq!(after["mounts"][1]["source"], "/stage/m1");
    let options = after["mounts"][1]["options"].as_array().unwrap();
    for kept in ["nosuid", "nodev"] {
        assert!(options.contains(&json!(kept)), "{options:?}");
    }
    assert!(!options.contains(&json!("noexec")), "{options:?}");
    for (place, below) in [(2, "a"), (3, "a/b")] {
        let entry = json!({
            "destination": format!("/v/{below}"), "type": "bind", "source": format!("/stage/m1/{below}"), "options": ["bind"]
        });
        assert_eq!(after["mounts"][place], entry);
    }
    assert_eq!(after["mounts"][4], config["mounts"][2]);
    assert_eq!(
        after["mounts"][6],
        json!({"destination": "/dev/fuse", "type": "bind", "source": "/stage/d0", "options": ["bind"]})
    );
    let kept = &config["linux"]["devices"];
    assert_eq!(after["linux"]["devices"], json!([kept[0], kept[2]]));
    assert_eq!(after["linux"]["resources"], config["linux"]["resources"]);
}

#[test]
fn groups_that_the_container_does_not_have_may_not_ping() {
    for (text, wanted) in [
        ("0 2147483647", "0 65535"),
        ("0\t1000", "0\t1000"),
        ("1 0", "1 0"),
        ("70000 80000", "1 0"),
        ("65535 65536", "65535 65535"),
        ("many", "many"),
    ] {
        assert_eq!(clamp_groups(text, 65_536), wanted, "{text}");
    }
    let config = json!({"root": {"path": "r"}, "linux": {"sysctl": {"a": "1", PING_GROUPS: "0 2147483647"}}});
    let after = edited(&config, &edits());
    assert_eq!(
        after["linux"]["sysctl"],
        json!({"a": "1", PING_GROUPS: "0 65535"})
    );
}

#[test]
fn the_user_and_the_working_directory_are_read() {
    let config = json!({
        "root": {"path": "r"},
        "process": {"cwd": "/w", "user": {"uid": 1000, "gid": 42, "additionalGids": [7]}},
    });
    let container = Container::parse(&config.to_string()).unwrap();
    assert_eq!(
        (container.ids, container.cwd),
        (vec![1000, 42, 7], "/w".into())
    );
    let bare = Container::parse(r#"{"root":{"path":"r"},"process":null,"linux":null}"#).unwrap();
    assert_eq!(
        (bare.ids, bare.cwd, bare.maps_host_root),
        (vec![], "/".into(), false)
    );
}

#[test]
fn hostile_configurations_are_refused() {
    let many: Vec<Value> = vec![json!({"destination": "/x"}); MAX_ENTRIES + 1];
    for text in [
        String::new(),
        "[]".into(),
        "{}".into(),
        // Some runtimes take a field whatever its case.
        r#"{"root":{"path":"r"},"Linux":{"namespaces":[]}}"#.into(),
        r#"{"root":{"path":"r"},"linux":{"Namespaces":[]}}"#.into(),
        r#"{"root":{"path":"r"},"root":{"path":"s"}}"#.into(),
        r#"{"root":{"path":"r"},"linux":{"uidMappings":[],"UIDMAPPINGS":[]}}"#.into(),
        r#"{"root":{"path":"r"},"mounts":[{"destination":"/x","type":"bind","Source":"/etc"}]}"#
            .into(),
        r#"{"root":{"path":"r"},"linux":{"sysctl":{"net.x":"1"},"Sysctl":{}}}"#.into(),
        r#"{"root":{"path":"r"},"linux":{"devices":[{"path":"/d","type":"x"}]}}"#.into(),
        json!({"root": {"path": "r"}, "mounts": many}).to_string(),
        r#"{"root":{"path":"r"},"linux\u0000":{}}"#.into(),
        r#"{"root":{"path":"r"},"linux":{"namespaces":[{"type":"pid"},{"type":"pid","path":"/proc/1/ns/pid"}]}}"#.into(),
    ] {
        assert!(Container::parse(&text).is_err(), "{text:.100}");
    }
}

fn system_calls(wait_killable: bool) -> Edits {
    Edits {
        system_calls: Some(SystemCalls {
            listener: "/run/eci-fs/system-calls.sock".into(),
            metadata: "key".to_owned(),
            keep_speculation: wait_killable,
            wait_killable,
        }),
        ..edits()
    }
}

/// Returns the edited section of a container, and what became of it.
fn trapped(section: &Value) -> (Value, Trapped) {
    let config = json!({ "root": { "path": "r" }, "linux": { "seccomp": section } });
    let (text, trapped) = edit(&config.to_string(), &system_calls(false)).unwrap();
    let edited: Value = serde_json::from_str(&text).unwrap();
    (edited["linux"]["seccomp"].clone(), trapped.unwrap())
}

const NOTIFY: &str = "SCMP_ACT_NOTIFY";

fn no_vsock() -> Value {
    json!({
        "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
        "args": [
            { "index": 0, "value": 0xffff_ffff_u32, "valueTwo": 40, "op": "SCMP_CMP_MASKED_EQ" },
            { "index": 1, "value": 0xfff0_0000_u32, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" },
        ],
    })
}

/// The rules that permit sockets of all families but 40.
fn other_sockets() -> Vec<Value> {
    let rule = |(mask, value): (u32, u32)| {
        json!({
            "names": ["socket"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" }],
        })
    };
    [(1, 1), (2, 2), (4, 4), (8, 0), (16, 16), (32, 0)]
        .map(rule)
        .into()
}

#[test]
fn a_container_without_a_profile_gets_one_that_only_traps() {
    for killable in [false, true] {
        let config = json!({ "root": { "path": "r" } });
        let section = &edited(&config, &system_calls(killable))["linux"]["seccomp"];
        assert_eq!(section["defaultAction"], "SCMP_ACT_ALLOW");
        assert_eq!(section["listenerPath"], "/run/eci-fs/system-calls.sock");
        assert_eq!(section["listenerMetadata"], "key");
        let flags = match killable {
            true => json!([
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
            ]),
            false => Value::Null,
        };
        assert_eq!(section["flags"], flags);
        if cfg!(target_arch = "x86_64") {
            let all = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
            assert_eq!(section["architectures"], all);
        }
        let rules = json!([{ "names": ["sysinfo"], "action": NOTIFY }, no_vsock()]);
        assert_eq!(section["syscalls"], rules);
    }
}

#[test]
fn a_profile_that_permits_what_it_does_not_name_is_only_added_to() {
    let own = json!({ "names": ["swapon"], "action": "SCMP_ACT_ERRNO" });
    let section = json!({ "defaultAction": "SCMP_ACT_ALLOW", "x": 1, "syscalls": [own] });
    let (edited, done) = trapped(&section);
    assert_eq!(done, Trapped::Yes);
    let notify = json!({ "names": ["sysinfo"], "action": NOTIFY });
    assert_eq!(edited["syscalls"], json!([own, no_vsock(), notify]));
    assert_eq!((&edited["x"], &edited["flags"]), (&json!(1), &Value::Null));
}

#[test]
fn a_profile_that_permits_calls_by_name_keeps_all_others() {
    let allow = |names: &[&str]| json!({ "names": names, "action": "SCMP_ACT_ALLOW", "x": 1.50 });
    let section = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [allow(&["read", "sysinfo", "socket"]), allow(&["sysinfo"]), allow(&["write"])],
    });
    let (edited, done) = trapped(&section);
    assert_eq!(done, Trapped::Yes);
    let notify = json!({ "names": ["sysinfo"], "action": NOTIFY });
    let mut rules = vec![allow(&["read"]), allow(&["write"])];
    rules.extend(other_sockets());
    rules.push(notify.clone());
    assert_eq!(edited["syscalls"], Value::from(rules));
    // As Docker's profile has it.
    let others = json!({
        "names": ["socket"], "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": 40, "op": "SCMP_CMP_NE" }],
    });
    let section = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [allow(&["sysinfo"]), others],
    });
    assert_eq!(trapped(&section).0["syscalls"], json!([others, notify]));
}

#[test]
fn what_a_profile_refuses_stays_refused() {
    let errno =
        |names: &[&str]| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38 });
    let allow = json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW" });
    for section in [
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [errno(&["sysinfo"]), errno(&["socket"])] }),
        json!({ "defaultAction": "SCMP_ACT_KILL", "syscalls": [errno(&["sysinfo"]), errno(&["socket"])] }),
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allow] }),
    ] {
        assert_eq!(trapped(&section), (section, Trapped::Refused));
    }
    // With some arguments, or twice.
    let mut some = errno(&["sysinfo"]);
    some["args"] = json!([{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }]);
    let both = json!({ "names": ["sysinfo"], "action": "SCMP_ACT_ALLOW" });
    for rules in [
        json!([some, errno(&["socket"])]),
        json!([both, errno(&["sysinfo"]), errno(&["socket"])]),
    ] {
        let section = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
        let (edited, done) = trapped(&section);
        assert_eq!(done, Trapped::Refused);
        let refused = json!({ "names": ["sysinfo"], "action": "SCMP_ACT_ERRNO" });
        assert_eq!(edited["syscalls"], json!([errno(&["socket"]), refused]));
        assert_eq!(edited["listenerPath"], Value::Null);
    }
}

#[test]
fn a_profile_with_a_listener_of_its_own_keeps_it_and_the_host_answers_no_sysinfo() {
    let mount = json!({ "names": ["mount"], "action": NOTIFY });
    let of = |rules: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/other.sock", "syscalls": rules });
    let refused = json!({ "names": ["sysinfo"], "action": "SCMP_ACT_ERRNO" });
    let allow = json!({ "names": ["sysinfo"], "action": "SCMP_ACT_ALLOW" });
    for rules in [json!([mount]), json!([mount, allow])] {
        let (edited, done) = trapped(&of(rules));
        assert_eq!(done, Trapped::OtherListener);
        assert_eq!(edited, of(json!([mount, no_vsock(), refused])));
    }
    let own = json!({ "names": ["sysinfo"], "action": NOTIFY });
    let (edited, done) = trapped(&of(json!([own])));
    assert_eq!(
        (edited, done),
        (of(json!([own, no_vsock()])), Trapped::OtherListener)
    );
}

#[test]
fn what_the_hook_does_is_taken_over_and_the_rest_is_left_to_the_runtime() {
    let config = json!({
        "root": {"path": "r", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
            {"destination": "/dev/shm", "type": "bind", "source": "/s", "options": ["rbind", "ro"]},
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
            {"destination": "v/../w", "source": "/v", "options": ["rbind", "rw", "ro"]},
            {"destination": "/x", "type": "bind", "source": "/x", "options": ["ro", "rw"]},
            {"destination": "/y", "source": "/y", "options": ["bind", "rro", "idmap"]},
        ],
        "linux": {
            "maskedPaths": ["/proc/kcore", "/etc/secret", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/etc"],
            "sysctl": {"net.core.somaxconn": "7", "vm.swappiness": "3", PING_GROUPS: "0 2147483647"},
        },
    });
    let container = Container::parse(&config.to_string()).unwrap();
    assert!(container.root_read_only);
    let taken = TakenOver::of(&container, 65_536);
    let points: Vec<_> = taken
        .locks
        .mounts
        .iter()
        .map(|mount| (mount.point.to_str(), mount.recursive))
        .collect();
    let wanted = [
        ("/sys", false),
        ("/sys/fs/cgroup", false),
        ("/w", false),
        ("/y", true),
    ];
    assert_eq!(
        points,
        wanted.map(|(point, recursive)| (Some(point), recursive))
    );
    assert_eq!(
        taken.locks.masked,
        ["/proc/kcore", "/sys/firmware"].map(PathBuf::from)
    );
    assert_eq!(taken.locks.read_only, [PathBuf::from("/proc/sys")]);
    let sysctls: Vec<_> = taken
        .sysctls
        .iter()
        .map(|(path, value)| (path.to_str().unwrap(), value.as_str()))
        .collect();
    assert_eq!(
        sysctls,
        [
            ("net/core/somaxconn", "7"),
            ("net/ipv4/ping_group_range", "0 65535")
        ]
    );

    let hook = Hook {
        path: "/usr/bin/eci-fs".into(),
        args: ["eci-fs", "hook", "createRuntime"]
            .map(str::to_owned)
            .to_vec(),
        env: Vec::new(),
        timeout: 15,
    };
    let with_hook = Edits {
        hook: Some(("createRuntime", hook)),
        ..edits()
    };
    let after = edited(&config, &with_hook);
    assert_eq!(after["linux"]["maskedPaths"], json!(["/etc/secret"]));
    assert_eq!(after["linux"]["readonlyPaths"], json!(["/etc"]));
    assert_eq!(after["linux"]["sysctl"], json!({"vm.swappiness": "3"}));
    assert_eq!(
        after["hooks"]["createRuntime"][0]["path"],
        "/usr/bin/eci-fs"
    );
    assert_eq!(after["mounts"], config["mounts"]);
    let without = edited(&config, &edits());
    assert_eq!(
        without["linux"]["maskedPaths"],
        config["linux"]["maskedPaths"]
    );
    assert_eq!(without["hooks"], Value::Null);
}
