//! Directory grafts in /proc/sys/net: the files that a container's network namespace lacks, beside those that it has.

use std::process::Command;

use support::{Container, Scene};

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
const QDISC: &str = "/proc/sys/net/core/default_qdisc";
const CORE: &str = "/proc/sys/net/core";
const NEIGH: &str = "/proc/sys/net/ipv4/neigh";

fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_eci-fs"))
}

/// A container with a network namespace.
#[track_caller]
fn start(scene: &Scene, user: bool) -> Container {
    let builder = scene.container().user_namespace(user);
    builder.options(&["--network"]).start()
}

/// What a command prints that the machine runs in the network namespace of a container, on its own /proc.
#[track_caller]
fn beside(container: &Container, command: &[&str]) -> String {
    let ran = Command::new("nsenter")
        .args(["--net", "--target", &container.pid().to_string()])
        .args(command)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{command:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

/// Set something in that namespace.
#[track_caller]
fn set_beside(container: &Container, path: &str, value: &str) {
    let command = format!("echo {value} > {path}");
    beside(container, &["sh", "-c", &command]);
}

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn privileged_a_network_namespace_that_is_the_machines_is_left_alone() {
    let scene = scene();
    let container = scene.container().user_namespace(true).start();
    scene.attach(&container);
    let grafts = container.grafts();
    let of_network = |graft: &&String| graft.starts_with("/proc/sys/net");
    assert_eq!(grafts.iter().find(of_network), None);
}

#[test]
fn privileged_a_directory_lists_what_its_namespace_has_and_what_that_lacks() {
    let scene = scene();
    for user in [false, true] {
        let mut container = start(&scene, user);
        let own = names(&beside(&container, &["ls", CORE]));
        assert!(!own.contains(&"default_qdisc".to_owned()), "{own:?}");
        scene.attach(&container);
        let mut wanted = own;
        for name in [
            "default_qdisc",
            "netdev_max_backlog",
            "rmem_max",
            "wmem_max",
        ] {
            wanted.push(name.to_owned());
        }
        wanted.sort();
        wanted.dedup();
        assert_eq!(names(&container.busybox(&["ls", CORE])), wanted);
        assert_eq!(names(&container.busybox(&["ls", NEIGH])), ["default", "lo"]);
        let default = format!("{NEIGH}/default");
        let thresholds = ["gc_thresh1", "gc_thresh2", "gc_thresh3"];
        assert_eq!(names(&container.busybox(&["ls", &default])), thresholds);
        let device = format!("{NEIGH}/lo");
        let wanted = names(&beside(&container, &["ls", &device]));
        assert_eq!(names(&container.busybox(&["ls", &device])), wanted);
    }
}

#[test]
fn privileged_what_a_namespace_has_itself_is_its_own_and_never_stale() {
    let scene = scene();
    let (mut one, mut two) = (start(&scene, true), start(&scene, false));
    scene.attach(&one);
    scene.attach(&two);
    let machine = std::fs::read_to_string(SOMAXCONN).unwrap();
    let others = two.read(SOMAXCONN);
    for value in ["77", "12345", "8"] {
        assert_eq!(one.ask(&["write", SOMAXCONN, value]), value.len());
        assert_eq!(beside(&one, &["cat", SOMAXCONN]), format!("{value}\n"));
        assert_eq!(one.read(SOMAXCONN), format!("{value}\n"));
    }
    for value in ["1", "4321", "99"] {
        set_beside(&one, SOMAXCONN, value);
        assert_eq!(one.read(SOMAXCONN), format!("{value}\n"));
        assert_eq!(one.busybox(&["cat", SOMAXCONN]), format!("{value}\n"));
    }
    assert_eq!(two.read(SOMAXCONN), others);
    assert_eq!(std::fs::read_to_string(SOMAXCONN).unwrap(), machine);
    // By one descriptor, too.
    assert_eq!(
        one.ask(&["write-and-read", SOMAXCONN, "5"]),
        serde_json::json!(["99\n", "5\n"])
    );
}

#[test]
fn privileged_every_way_of_reading_what_a_namespace_has_says_the_same() {
    let scene = scene();
    let mut container = start(&scene, true);
    scene.attach(&container);
    let all: Vec<String> = names(&beside(&container, &["ls", CORE]))
        .iter()
        // Some kernels show the machine's of these, for nobody to set.
        .filter(|name| !matches!(name.as_str(), "rmem_max" | "wmem_max"))
        .map(|name| format!("{CORE}/{name}"))
        .collect();
    let mut command = vec!["read"];
    command.extend(all.iter().map(String::as_str));
    let read = container.ask(&command);
    for path in &all {
        let kernels = beside(&container, &["cat", path]);
        assert_eq!(read[path], kernels, "{path}");
        assert_eq!(container.busybox(&["cat", path]), kernels, "{path}");
        let stat = |text: String| text.trim().to_owned();
        // The kernel's names for the owner are those of the host here, and of the container there.
        let wanted = stat(beside(&container, &["stat", "-c", "%a %F", path]));
        let wanted = wanted.replace("regular empty file", "regular file");
        assert_eq!(
            stat(container.busybox(&["stat", "-c", "%a %F", path])),
            wanted
        );
        assert_eq!(
            stat(container.busybox(&["stat", "-c", "%u %g", path])),
            "0 0"
        );
    }
}

#[test]
fn privileged_what_a_namespace_has_answers_as_the_kernel_does() {
    let scene = scene();
    let (mut bare, mut attached) = (start(&scene, true), start(&scene, true));
    scene.attach(&attached);
    let missing = format!("{CORE}/nothing");
    let read_only = format!("{CORE}/rmem_default");
    let deep = format!("{SOMAXCONN}/x");
    for command in [
        &["write", SOMAXCONN, "x"][..],
        &["write", SOMAXCONN, "-1"],
        &["write", SOMAXCONN, "99999999999"],
        &["write", SOMAXCONN, " 7 8\n"],
        &["write-at", SOMAXCONN, "1", "9"],
        &["append", SOMAXCONN, "11\n"],
        &["write", &read_only, "1"],
        &["write", &missing, "1"],
        &["write", CORE, "1"],
        &["write", &deep, "1"],
        &["read", &missing],
        &["read", CORE],
        &["open-for-writing", SOMAXCONN, &read_only, &missing, CORE],
        &["read", SOMAXCONN],
    ] {
        assert_eq!(
            attached.try_ask(command),
            bare.try_ask(command),
            "{command:?}"
        );
    }
    let neighbours = format!("{NEIGH}/lo");
    for command in [
        &["mkdir", &missing][..],
        &["mknod", &missing, "p"],
        &["ln", "-s", "x", &missing],
        &["ln", SOMAXCONN, &missing],
        &["mv", SOMAXCONN, &missing],
        &["rm", "-f", SOMAXCONN],
        &["rmdir", &neighbours],
        &["chmod", "777", SOMAXCONN],
        &["chown", "1", SOMAXCONN],
    ] {
        let end = |container: &mut Container| {
            let busybox = container.program("busybox");
            let ran = container.try_run(&[&[busybox.as_str()], command].concat());
            (ran.code, ran.stderr)
        };
        assert_eq!(end(&mut attached), end(&mut bare), "{command:?}");
    }
}

#[test]
fn privileged_who_may_not_administer_a_network_may_not_set_it() {
    let scene = scene();
    for user in [false, true] {
        let (mut bare, mut attached) = (start(&scene, user), start(&scene, user));
        scene.attach(&attached);
        for who in [
            "setpriv",
            "setpriv --bounding-set -net_admin",
            "setpriv --bounding-set -all",
            "setpriv --reuid 1000 --clear-groups",
        ] {
            let write = |container: &mut Container, path: &str| {
                let probe = container.program("probe");
                let mut command: Vec<&str> = who.split(' ').collect();
                command.extend([probe.as_str(), "write", path, "9"]);
                let ran = container.try_run(&command);
                let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
                answer["error"].as_str().map(str::to_owned)
            };
            let wanted = write(&mut bare, SOMAXCONN);
            assert_eq!(write(&mut attached, SOMAXCONN), wanted, "{who}, {user}");
        }
    }
}

/// A process with CAP_SETUID can make a user namespace with the same users. It has all capabilities there, and none in the
/// namespace that owns the network.
#[test]
fn privileged_a_user_namespace_with_the_same_users_may_not_set_the_network() {
    let scene = scene();
    for user in [false, true] {
        let (mut bare, mut attached) = (start(&scene, user), start(&scene, user));
        scene.attach(&attached);
        let write = |container: &mut Container, path: &str| {
            let probe = container.program("probe");
            let script = format!(
                "unshare --user sh -c 'until [ \"$(id -u)\" = 0 ]; do :; done; exec {probe} write {path} 4000' & \
                inner=$!; own=$(readlink /proc/self/ns/user); \
                until [ \"$(readlink /proc/$inner/ns/user)\" != \"$own\" ]; do :; done; \
                set -- $(cat /proc/self/uid_map); \
                echo 0 0 $3 >/proc/$inner/gid_map; echo 0 0 $3 >/proc/$inner/uid_map; wait $inner"
            );
            let ran = container.try_run(&["sh", "-c", &script]);
            let answer: serde_json::Value = serde_json::from_str(&ran.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", ran.stdout));
            answer["error"].as_str().map(str::to_owned)
        };
        let wanted = write(&mut bare, SOMAXCONN);
        assert_eq!(wanted.as_deref(), user.then_some("EACCES"));
        assert_eq!(write(&mut attached, SOMAXCONN), wanted, "{user}");
        assert_eq!(write(&mut attached, QDISC).as_deref(), Some("EPERM"));
        // A process of the container itself may.
        attached.ask(&["write", SOMAXCONN, "4001"]);
    }
}

#[test]
fn privileged_a_network_namespace_in_a_container_sees_its_own() {
    let scene = scene();
    let mut container = start(&scene, true);
    scene.attach(&container);
    container.ask(&["write", SOMAXCONN, "77"]);
    let listed = container.try_run(&["unshare", "--net", "ls", CORE]);
    assert!(!names(&listed.stdout).contains(&"default_qdisc".to_owned()));
    let inner = container.try_run(&["unshare", "--net", "cat", SOMAXCONN]);
    assert_ne!((inner.code, inner.stdout.as_str()), (Some(0), "77\n"));
    assert_eq!(container.read(SOMAXCONN), "77\n");
}

#[test]
fn privileged_a_device_that_comes_later_has_its_directory() {
    let scene = scene();
    let mut container = start(&scene, true);
    scene.attach(&container);
    let listed = |container: &mut Container| names(&container.busybox(&["ls", NEIGH]));
    assert_eq!(listed(&mut container), ["default", "lo"]);
    beside(
        &container,
        &["ip", "link", "add", "one", "type", "veth", "peer", "two"],
    );
    assert_eq!(listed(&mut container), ["default", "lo", "one", "two"]);
    let solicit = format!("{NEIGH}/one/mcast_solicit");
    container.ask(&["write", &solicit, "55"]);
    assert_eq!(container.read(&solicit), "55\n");
    assert_eq!(beside(&container, &["cat", &solicit]), "55\n");
    container.ask(&["hold", "held", &solicit]);
    beside(&container, &["ip", "link", "delete", "one"]);
    assert_eq!(listed(&mut container), ["default", "lo"]);
    let gone = container.try_ask(&["write", &solicit, "56"]);
    assert_eq!(gone, Err("ENOENT".to_owned()));
}

#[test]
fn privileged_servers_and_daemons_that_die_take_nothing_of_it_along() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut container = start(&scene, true);
    scene.attach(&container);
    container.ask(&["write", SOMAXCONN, "77"]);
    container.ask(&["write", QDISC, "fq"]);
    for _ in 0..3 {
        daemon.kill_server();
        assert_eq!(container.read(SOMAXCONN), "77\n");
        assert_eq!(container.read(QDISC), "fq\n");
        assert_eq!(names(&container.busybox(&["ls", NEIGH])), ["default", "lo"]);
        daemon.wait_for("the server died");
    }
    daemon.die();
    let daemon = scene.daemon(&[]);
    set_beside(&container, SOMAXCONN, "78");
    assert_eq!(container.read(SOMAXCONN), "78\n");
    container.ask(&["write", SOMAXCONN, "79"]);
    assert_eq!(beside(&container, &["cat", SOMAXCONN]), "79\n");
    drop(container);
    daemon.end();
}

#[test]
fn privileged_below_a_read_only_mount_only_what_is_computed_can_be_set() {
    let scene = scene();
    let mut container = start(&scene, false);
    scene.attach(&container);
    assert_eq!(container.ask(&["write", SOMAXCONN, "77"]), 2);
    for command in [
        &["mount", "-o", "bind", "/proc/sys", "/proc/sys"][..],
        &["mount", "-o", "remount,bind,ro", "/proc/sys"],
    ] {
        container.busybox(command);
    }
    assert_eq!(container.read(SOMAXCONN), "77\n");
    let refused = container.try_ask(&["write", SOMAXCONN, "78"]);
    assert_eq!(refused, Err("EROFS".to_owned()));
    assert_eq!(beside(&container, &["cat", SOMAXCONN]), "77\n");
}

#[test]
fn privileged_detaching_leaves_the_namespace_as_it_was() {
    let scene = scene();
    let mut container = start(&scene, true);
    let before = container.mounts();
    let own = names(&container.busybox(&["ls", CORE]));
    scene.attach(&container);
    let pid = container.pid().to_string();
    assert!(container.grafts().iter().any(|graft| graft == CORE));
    scene.eci_fs(&["detach", &pid]).ok();
    assert_eq!(container.mounts(), before);
    assert_eq!(names(&container.busybox(&["ls", CORE])), own);
}

/// Everything that a container sees of a device, and the listing that it is in.
fn read_device(container: &mut Container, name: &str) -> Vec<String> {
    let directory = format!("{NEIGH}/{name}");
    let files = names(&container.busybox(&["ls", &directory]));
    assert!(files.len() > 10, "{files:?}");
    let read = |file: &String| container.read(&format!("{directory}/{file}"));
    files.iter().map(read).collect()
}

/// The two names had one node id when ids were hashes without a key, in one table for all containers.
#[test]
fn privileged_a_device_that_one_container_names_hides_none_of_another() {
    let scene = scene();
    let (mut attacker, mut victim) = (start(&scene, true), start(&scene, true));
    let add = |container: &Container, name: &str, peer: &str| {
        let command = ["ip", "link", "add", name, "type", "veth", "peer", peer];
        beside(container, &command);
    };
    add(&attacker, "xd4akqbrx", "there");
    add(&victim, "eth0", "there");
    scene.attach(&attacker);
    scene.attach(&victim);
    for daemon in 0..2 {
        // Whichever is looked up first.
        let listed = names(&attacker.busybox(&["ls", NEIGH]));
        assert_eq!(listed, ["default", "lo", "there", "xd4akqbrx"]);
        read_device(&mut attacker, "xd4akqbrx");
        let listed = names(&victim.busybox(&["ls", NEIGH]));
        assert_eq!(listed, ["default", "eth0", "lo", "there"], "{daemon}");
        assert_eq!(
            read_device(&mut victim, "eth0"),
            read_device(&mut victim, "there")
        );
        read_device(&mut attacker, "xd4akqbrx");
        if daemon == 0 {
            scene.eci_fs(&["upgrade", "--only", "server"]).ok();
        }
    }
}

/// An attacker who does not know the key makes names at random: with more of them than are kept, and everything of
/// everybody is read all the same.
#[test]
fn privileged_a_container_with_more_names_than_are_kept_harms_nobody() {
    let scene = scene();
    let (mut attacker, mut victim) = (start(&scene, true), start(&scene, true));
    beside(&victim, &["ip", "link", "add", "eth0", "type", "ifb"]);
    let devices = 240;
    let batch: String = (0..devices)
        .map(|number| format!("link add x{number} type ifb\n"))
        .collect();
    let command = format!("ip -batch - <<'END'\n{batch}END\n");
    beside(&attacker, &["sh", "-c", &command]);
    scene.attach(&attacker);
    scene.attach(&victim);
    let own = read_device(&mut victim, "eth0");
    attacker.ask(&["hold", "held", &format!("{NEIGH}/x0/mcast_solicit")]);
    let found = attacker.busybox(&["find", NEIGH]);
    // MOST_KNOWN of src/server/ids/paths.
    assert!(found.lines().count() > 1 << 12, "{}", found.lines().count());
    assert_eq!(read_device(&mut victim, "eth0"), own);
    // What was forgotten of its own is found again.
    read_device(&mut attacker, "x0");
    assert_eq!(names(&victim.busybox(&["ls", NEIGH])).len(), 3);
}

/// A listing of 5300 such names is longer than a packet of the broker.
#[test]
fn privileged_a_listing_of_5300_devices_harms_nobody() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let (mut attacker, mut victim) = (start(&scene, true), start(&scene, true));
    let batch: String = (0..5300)
        .map(|number| format!("link add longlonglo{number:04} type ifb\n"))
        .collect();
    // Longer than an argument may be.
    let lines = scene.dir().join("devices");
    std::fs::write(&lines, batch).unwrap();
    beside(&attacker, &["ip", "-batch", lines.to_str().unwrap()]);
    scene.attach(&attacker);
    scene.attach(&victim);
    let somaxconn = "/proc/sys/net/core/somaxconn";
    let before = victim.read(somaxconn);
    // All of them, default and lo.
    assert_eq!(names(&attacker.busybox(&["ls", NEIGH])).len(), 5302);
    assert_eq!(victim.read(somaxconn), before);
    assert_eq!(names(&victim.busybox(&["ls", NEIGH])).len(), 2);
    read_device(&mut attacker, "longlonglo5299");
    drop((attacker, victim));
    daemon.end();
}

const PING: &str = "/proc/sys/net/ipv4/ping_group_range";

#[test]
fn privileged_a_range_of_groups_is_cut_to_those_of_the_user_namespace() {
    let scene = scene();
    let mut container = start(&scene, true);
    // Without a graft the kernel refuses what systemd and podman write.
    let all = "0 2147483647";
    let refused = container.try_ask(&["write", PING, all]);
    assert_eq!(refused, Err("EINVAL".to_owned()));
    let before = container.read(PING);
    scene.attach(&container);
    assert_eq!(container.read(PING), before);
    assert_eq!(container.ask(&["write", PING, all]), all.len());
    let map = std::fs::read_to_string(format!("/proc/{}/gid_map", container.pid())).unwrap();
    let map: Vec<u64> = map
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    assert_eq!((map.len(), map[0]), (3, 0), "{map:?}");
    assert_eq!(container.read(PING), format!("0\t{}\n", map[2] - 1));
    let last = map[1] + map[2] - 1;
    assert_eq!(
        beside(&container, &["cat", PING]),
        format!("{}\t{last}\n", map[1])
    );
    let sysctl = container.try_run(&["sysctl", "-w", "net.ipv4.ping_group_range=0 2147483647"]);
    assert_eq!((sysctl.code, sysctl.stderr.as_str()), (Some(0), ""));
    // What is set beside is seen: nothing is kept of it.
    set_beside(
        &container,
        PING,
        &format!("'{} {}'", map[1] + 5, map[1] + 7),
    );
    assert_eq!(container.read(PING), "5\t7\n");
    assert_eq!(container.busybox(&["cat", PING]), "5\t7\n");
    assert_eq!(
        container.ask(&["write-and-read", PING, all]),
        serde_json::json!(["5\t7\n", format!("0\t{}\n", map[2] - 1)])
    );
}

#[test]
fn privileged_other_ranges_of_groups_are_taken_and_refused_as_by_the_kernel() {
    let scene = scene();
    let (mut bare, mut attached) = (start(&scene, true), start(&scene, true));
    scene.attach(&attached);
    for text in [
        "0 5",
        "7",
        "5",
        "5 3",
        "",
        "x",
        "1 x",
        "-1 5",
        "0 65535",
        "70000 80000",
        "3 3\n",
        "1 2 3",
        "1\t2",
        "2147483648",
        "0 2147483648",
    ] {
        for command in [&["write", PING, text][..], &["append", PING, text]] {
            assert_eq!(
                attached.try_ask(command),
                bare.try_ask(command),
                "{command:?}"
            );
            assert_eq!(attached.read(PING), bare.read(PING), "{command:?}");
        }
    }
    assert_eq!(
        attached.try_ask(&["write-at", PING, "1", "9"]),
        bare.try_ask(&["write-at", PING, "1", "9"])
    );
    for who in [
        "setpriv",
        "setpriv --bounding-set -net_admin",
        "setpriv --bounding-set -all",
        "setpriv --reuid 1000 --clear-groups",
    ] {
        let write = |container: &mut Container| {
            let probe = container.program("probe");
            let mut command: Vec<&str> = who.split(' ').collect();
            command.extend([probe.as_str(), "write", PING, "0 9"]);
            let ran = container.try_run(&command);
            let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            answer["error"].as_str().map(str::to_owned)
        };
        assert_eq!(write(&mut attached), write(&mut bare), "{who}");
    }
    let stat = |container: &mut Container| container.busybox(&["stat", "-c", "%a %u %g %F", PING]);
    let empty = |text: String| text.replace("regular empty file", "regular file");
    assert_eq!(empty(stat(&mut attached)), empty(stat(&mut bare)));
}

#[test]
fn privileged_a_range_of_groups_is_left_to_the_kernel_where_that_takes_all() {
    let scene = scene();
    for (user, network) in [(false, true), (true, false)] {
        let builder = scene.container().user_namespace(user);
        let options: &[&str] = if network { &["--network"] } else { &[] };
        let container = builder.options(options).start();
        scene.attach(&container);
        assert!(
            !container.grafts().iter().any(|graft| graft == PING),
            "{user}"
        );
    }
}

#[test]
fn privileged_a_range_of_groups_below_a_read_only_mount_cannot_be_set() {
    let scene = scene();
    let mut container = start(&scene, true);
    scene.attach(&container);
    let before = container.read(PING);
    for command in [
        &["mount", "-o", "bind", "/proc/sys", "/proc/sys"][..],
        &["mount", "-o", "remount,bind,ro", "/proc/sys"],
    ] {
        container.busybox(command);
    }
    assert_eq!(container.read(PING), before);
    let refused = container.try_ask(&["write", PING, "0 5"]);
    assert_eq!(refused, Err("EROFS".to_owned()));
}
