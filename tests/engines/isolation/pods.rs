//! Pods of containerd as a kubelet makes them: the containers of a pod have the ids of the pod, and no other has them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::Scene;
use support::engines::{Containerd, IMAGE};
use xtask::vm::{Kernel, packages};

use super::configuration;
use super::ids::{IDS, nobody_of_the_host, parse_map, program};
use crate::cri::cri;
use crate::host::Host;
use crate::scene;

/// The programs that make the networks of pods.
#[track_caller]
fn network_plugins() -> PathBuf {
    let root = packages(Kernel::V6_1, &["containernetworking-plugins"]).unwrap();
    root.join("usr/lib/cni")
}

/// A containerd whose pods have a bridge, and whose runtime classes `eci-runc` and `eci-crun` isolate.
#[track_caller]
fn containerd(host: &Host<'_>, scene: &Scene, more: &str) -> Containerd {
    let settings = configuration(scene, more);
    let networks = scene.dir().join("cni");
    fs::create_dir(&networks).unwrap();
    let addresses = json!({
        "type": "host-local",
        "dataDir": scene.dir().join("addresses"),
        "ranges": [[{ "subnet": "10.77.0.0/24" }]],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    let bridge = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            { "type": "bridge", "bridge": "pods0", "isGateway": true, "ipam": addresses },
            { "type": "tuning", "sysctl": { "net.core.somaxconn": "321" } },
        ],
    });
    fs::write(networks.join("pods.conflist"), bridge.to_string()).unwrap();
    let cri = "[plugins.\"io.containerd.grpc.v1.cri\"";
    let mut text = format!(
        "{cri}.cni]\n  bin_dir = {:?}\n  conf_dir = {networks:?}\n",
        network_plugins()
    );
    for runtime in RUNTIMES {
        let program = program(host, scene, &settings, runtime);
        text += &format!(
            "{cri}.containerd.runtimes.eci-{runtime}]\n  runtime_type = \"io.containerd.runc.v2\"\n\
             {cri}.containerd.runtimes.eci-{runtime}.options]\n  BinaryName = {program:?}\n"
        );
    }
    host.containerd_with(&[], &text)
}

/// The runtimes that make pods.
const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// A pod.
struct Pod<'a> {
    containerd: &'a Containerd,
    config: Value,
    id: String,
}

impl<'a> Pod<'a> {
    #[track_caller]
    fn new(containerd: &'a Containerd, runtime: &str, name: &str, pid: &str) -> Self {
        let config = pod(containerd, name, "pod", pid);
        let handler = format!("eci-{runtime}");
        let id = cri(containerd, &["pod", &handler, &config.to_string()]).ok();
        Self {
            containerd,
            config,
            id: id.trim().to_owned(),
        }
    }

    /// A container in it that runs a shell.
    #[track_caller]
    fn add(&self, container: &Value, script: &str) -> String {
        let (config, container) = (self.config.to_string(), container.to_string());
        let add = ["add", &self.id, &config, IMAGE, &container, "sh", "-c"];
        let id = cri(self.containerd, &[&add[..], &[script]].concat()).ok();
        id.trim().to_owned()
    }

    #[track_caller]
    fn exec(&self, container: &str, script: &str) -> String {
        cri(self.containerd, &["exec", container, "sh", "-ec", script]).ok()
    }

    #[track_caller]
    fn end(&self) {
        cri(self.containerd, &["end", &self.id]).ok();
    }
}

fn pod(containerd: &Containerd, name: &str, network: &str, pid: &str) -> Value {
    let cgroup = containerd.cgroup().path();
    json!({
        "name": name,
        "cgroup": cgroup,
        "network": network,
        "pid": pid,
        // A kubelet gives none to a pod that has the host's.
        "hostname": if network == "pod" { format!("host-{name}") } else { String::new() },
        "privileged": true,
    })
}

/// The files that a kubelet gives a container: a log of its end, a volume, and a secret in memory.
#[track_caller]
fn files(dir: &Path) -> Value {
    let [log, volume, secret] = ["log", "volume", "secret"].map(|name| dir.join(name));
    fs::create_dir_all(&volume).unwrap();
    fs::create_dir_all(&secret).unwrap();
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
    rustix::mount::mount(
        "tmpfs",
        &secret,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=1m"),
    )
    .unwrap();
    fs::write(secret.join("key"), "secret\n").unwrap();
    chown(secret.join("key"), Some(0), Some(2000)).unwrap();
    fs::set_permissions(secret.join("key"), fs::Permissions::from_mode(0o640)).unwrap();
    json!([
        [log, "/dev/termination-log", false],
        [volume, "/volume", false],
        [secret, "/secret", true],
    ])
}

fn pods(runtime: &str) {
    let scene = scene();
    let host = Host::new(&scene);
    let containerd = containerd(&host, &scene, "");
    let first = Pod::new(&containerd, runtime, "first", "container");
    first.end();
    let mounts = files(&scene.dir().join("files"));
    let before = host.left(containerd.cgroup());
    let serve = "while :; do echo hello | nc -l -p 80; done";
    let red = Pod::new(&containerd, runtime, "red", "container");
    let blue = Pod::new(&containerd, runtime, "blue", "pod");
    let one = red.add(&json!({ "name": "one", "mounts": mounts }), serve);
    let user = json!({ "name": "two", "user": 1000, "readonly": true, "mounts": mounts });
    let two = red.add(&user, "sleep 100000");
    let three = blue.add(&json!({ "name": "three", "privileged": true }), serve);
    let four = blue.add(&json!({ "name": "four" }), "sleep 100000");
    let map = |pod: &Pod<'_>, container: &str| pod.exec(container, "cat /proc/self/uid_map");
    assert_eq!(map(&red, &one), map(&red, &two));
    assert_eq!(map(&blue, &three), map(&blue, &four));
    let ids = [map(&red, &one), map(&blue, &three)].map(|map| parse_map(&map));
    assert!(ids[0].abs_diff(ids[1]) >= IDS, "{ids:?}");
    // With the two pause containers.
    assert!(nobody_of_the_host(containerd.cgroup()) >= 6);
    // The network and the name of the pod.
    for (pod, name, containers) in [
        (&red, "red", [&one, &two]),
        (&blue, "blue", [&three, &four]),
    ] {
        for container in containers {
            let said = pod.exec(container, "hostname; ls /sys/class/net");
            assert_eq!(said, format!("host-{name}\neth0\nlo\n"));
        }
    }
    let settings = red.exec(&one, "cat /proc/sys/net/core/somaxconn");
    assert_eq!(settings, "321\n");
    let address = |pod: &Pod<'_>, container: &str| {
        let show = "ip -4 -o addr show eth0 | sed 's/.*inet //; s,/.*,,'";
        pod.exec(container, show).trim().to_owned()
    };
    // The server answers one at a time.
    let get = |address: &str| {
        let once = format!("nc -w 5 {address} 80 </dev/null | grep hello");
        format!("n=0; until {once}; do n=$((n + 1)); test $n -lt 100; done")
    };
    let (of_red, of_blue) = (address(&red, &one), address(&blue, &three));
    for (pod, container, address) in [
        (&red, &two, "127.0.0.1"),
        (&red, &one, of_blue.as_str()),
        (&blue, &four, of_red.as_str()),
    ] {
        assert_eq!(pod.exec(container, &get(address)), "hello\n", "{address}");
    }
    // The processes of the other containers are seen in the pod that shares them, and only there.
    let processes = |pod: &Pod<'_>, container: &str| {
        let count = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c '^sleep$' || :";
        pod.exec(container, count)
    };
    assert_eq!(processes(&red, &one), "0\n");
    assert_eq!(processes(&blue, &three), "1\n");
    // Files of the engine and of a kubelet.
    let owners = "stat -c '%n %u:%g %a' /etc/hosts /etc/hostname /etc/resolv.conf /dev/shm /dev/termination-log /volume \
                  /secret/key";
    let wanted = "/etc/hosts 0:0 644\n/etc/hostname 0:0 644\n/etc/resolv.conf 0:0 644\n/dev/shm 0:0 1777\n\
                  /dev/termination-log 0:0 666\n/volume 0:0 755\n/secret/key 0:2000 640\n";
    for container in [&one, &two] {
        assert_eq!(red.exec(container, owners), wanted);
    }
    assert_eq!(
        red.exec(&one, "cat /secret/key; cat /etc/hostname"),
        "secret\nhost-red\n"
    );
    red.exec(
        &one,
        "echo end >/dev/termination-log; touch /volume/f; chown 7:8 /volume/f",
    );
    let on_the_host = scene.dir().join("files/volume/f");
    let on_the_host = fs::metadata(on_the_host).unwrap();
    assert_eq!((on_the_host.uid(), on_the_host.gid()), (7, 8));
    red.exec(
        &two,
        "echo of-user >/dev/shm/x; test $(id -u) = 1000; ! touch /x 2>/dev/null",
    );
    assert_eq!(
        red.exec(&one, "cat /dev/shm/x; stat -c %u /dev/shm/x"),
        "of-user\n1000\n"
    );
    // A container that ends is followed by another one in the same pod.
    cri(&containerd, &["remove", &one]).ok();
    let next = json!({ "name": "one", "attempt": 1, "mounts": mounts });
    let one = red.add(&next, serve);
    assert_eq!(map(&red, &one), map(&red, &two));
    assert_eq!(
        red.exec(&one, &format!("{owners} | head -1; cat /dev/shm/x")),
        "/etc/hosts 0:0 644\nof-user\n"
    );
    assert_eq!(blue.exec(&three, &get(&of_red)), "hello\n");
    red.end();
    blue.end();
    host.is_as(&before, containerd.cgroup(), runtime);
}

#[test]
fn privileged_pods_of_a_kubelet_have_ids_and_a_network_of_their_own_with_runc_and_leave_nothing() {
    pods("runc");
}

#[test]
fn privileged_pods_of_a_kubelet_have_ids_and_a_network_of_their_own_with_crun_and_leave_nothing() {
    pods("crun");
}

#[test]
fn privileged_a_pod_with_the_network_of_the_host_is_refused_or_left_alone() {
    for (more, refused) in [("", true), ("host-namespaces = 'leave-alone'\n", false)] {
        let scene = scene();
        let host = Host::new(&scene);
        let containerd = containerd(&host, &scene, more);
        let config = pod(&containerd, "open", "node", "container").to_string();
        let ran = cri(&containerd, &["pod", "eci-runc", &config]);
        if refused {
            let said = &ran.stderr;
            assert!(
                said.contains("network") && said.contains("host-namespaces"),
                "{ran:?}"
            );
            continue;
        }
        let id = ran.ok().trim().to_owned();
        let pod = Pod {
            containerd: &containerd,
            config: serde_json::from_str(&config).unwrap(),
            id,
        };
        let one = pod.add(&json!({ "name": "one" }), "sleep 100000");
        let map = pod.exec(&one, "cat /proc/self/uid_map");
        assert!(map.contains("4294967295"), "{map}");
        pod.end();
    }
}
