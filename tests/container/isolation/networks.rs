//! Networks that an engine made before the container, as podman and a CRI do.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use support::{Bundle, Container, Engine, Ran, Scene};

use super::rig::{Rig, Style, first_id, mounts, shell};
use crate::scene;

/// A network namespace that an engine keeps at a path, and another one at the other end of its interface.
struct Network {
    path: PathBuf,
    peer: PathBuf,
}

impl Network {
    /// Make both, in a directory whose mounts are shared with others, as that of podman is.
    #[track_caller]
    fn new(scene: &Scene, name: &str) -> Self {
        let dir = scene.dir().join("netns");
        if !dir.exists() {
            fs::create_dir(&dir).unwrap();
            let path = dir.display().to_string();
            for arguments in [&["--bind", &path, &path][..], &["--make-rshared", &path]] {
                Ran::run(Command::new("mount").args(arguments)).ok();
            }
        }
        let [path, peer] = ["", "-peer"].map(|end| {
            let path = dir.join(format!("{name}{end}"));
            fs::write(&path, "").unwrap();
            let mut unshare = Command::new("unshare");
            unshare.arg(format!("--net={}", path.display())).arg("true");
            Ran::run(&mut unshare).ok();
            path
        });
        let this = Self { path, peer };
        this.ip_at_peer(&format!(
            "link add host0 index 77 type veth peer name eth0 netns {}",
            this.path.display()
        ));
        for words in [
            "addr add 10.9.0.1/24 dev host0",
            "addr add fd09::1/64 dev host0 nodad",
            "link set host0 up",
            "link set lo up",
        ] {
            this.ip_at_peer(words);
        }
        this
    }

    #[track_caller]
    fn at(path: &Path, program: &str, words: &str) -> Ran {
        let mut nsenter = Command::new("nsenter");
        nsenter
            .arg(format!("--net={}", path.display()))
            .arg(program);
        Ran::run(nsenter.args(words.split(' ').filter(|word| !word.is_empty())))
    }

    #[track_caller]
    fn ip_at_peer(&self, words: &str) -> String {
        Self::at(&self.peer, "ip", words).ok()
    }

    #[track_caller]
    fn ip(&self, words: &str) -> String {
        Self::at(&self.path, "ip", words).ok()
    }

    /// Give the interface what engines and their plugins do.
    #[track_caller]
    fn fill(&self) {
        let sysctls = [
            ("net/core/somaxconn", "77"),
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/eth0/arp_notify", "1"),
            ("net/ipv4/conf/eth0/forwarding", "0"),
            ("net/ipv6/conf/eth0/accept_ra", "0"),
        ];
        for (name, value) in sysctls {
            let script = format!("echo {value} >/proc/sys/{name}");
            let mut nsenter = Command::new("nsenter");
            nsenter.arg(format!("--net={}", self.path.display()));
            Ran::run(nsenter.args(["sh", "-c", &script])).ok();
        }
        for words in [
            "link set lo up",
            "link set eth0 mtu 1400 alias of-an-engine txqueuelen 77",
            "addr add 10.9.0.2/24 brd 10.9.0.255 dev eth0",
            "addr add 10.9.0.3/24 dev eth0",
            "addr add 10.8.0.2/32 dev lo",
            "addr add fd09::2/64 dev eth0 nodad",
            "addr add fd09::3/128 dev eth0 nodad noprefixroute",
            "link set eth0 up",
            "route add default via 10.9.0.1 src 10.9.0.3 metric 100",
            "route add 10.7.0.0/16 via 10.9.0.9 dev eth0 mtu 1300",
            "route add 10.6.0.0/16 via 192.0.2.1 dev eth0 onlink",
            "route add 10.5.0.0/16 nexthop via 10.9.0.4 weight 2 nexthop via 10.9.0.5",
            "route add 10.4.0.0/16 via 10.7.0.1 dev eth0 onlink table 77",
            "route add 10.3.0.0/16 dev eth0 scope link proto 42",
            "route add blackhole 10.2.0.0/16",
            "-6 route add default via fd09::1 metric 50",
            "-6 route add fd08::/64 via fe80::1 dev eth0",
            "-6 route add unreachable fd07::/64",
            "neigh add 10.9.0.4 lladdr 02:00:00:00:00:04 dev eth0 nud permanent",
            "-6 neigh add proxy fd09::77 dev eth0",
            "rule add from 10.9.0.3 lookup 77 priority 99",
            "-6 rule add fwmark 7 lookup 77 priority 98",
        ] {
            self.ip(words);
        }
        // The kernel asks for a second whether another host has the address that it made by itself.
        while !self.ip("-6 addr show tentative").is_empty() {}
    }

    /// All that the kernel tells of it, but for what changes by itself.
    #[track_caller]
    fn contents(&self) -> Vec<String> {
        // The kernel notices a moment later that the other end is up.
        while self.ip("link show dev eth0").contains("NO-CARRIER") {}
        let mut all = Vec::new();
        for words in [
            "-d link show",
            "addr show",
            "route show table all",
            "-6 route show table all",
            "neigh show nud permanent",
            "neigh show proxy",
            "-6 neigh show proxy",
            "rule show",
            "-6 rule show",
        ] {
            all.extend(
                self.ip(words)
                    .lines()
                    .map(|line| format!("{words}: {line}")),
            );
        }
        let find = "find /proc/sys/net -type f -readable -exec grep -H . {} +";
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--net={}", self.path.display()));
        let sysctls =
            Ran::run(nsenter.args(["sh", "-c", &format!("{find} 2>/dev/null; true")])).ok();
        all.extend(sysctls.lines().map(str::to_owned));
        // Whether another host has the address was asked before, and is not asked again.
        for line in &mut all {
            *line = line.replace(" nodad", "");
        }
        all.sort();
        all
    }

    /// A process of the host that is in it.
    #[track_caller]
    fn user(&self) -> Child {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--net={}", self.path.display()));
        nsenter.args(["sh", "-c", "echo; exec sleep 1000"]);
        let mut child = nsenter.stdout(Stdio::piped()).spawn().unwrap();
        let mut byte = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
        child
    }

    /// Have a container use it.
    #[track_caller]
    fn give_to(&self, bundle: &Bundle) {
        give(bundle, &self.path);
    }

    /// Take both away as an engine does, by one unmount each.
    #[track_caller]
    fn remove(self) {
        for path in [self.path, self.peer] {
            rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"", "nothing lies below");
            fs::remove_file(path).unwrap();
        }
    }
}

#[track_caller]
fn give(bundle: &Bundle, path: &Path) {
    bundle.change(|config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = json!(path);
            }
        }
        let names = config["process"]["capabilities"].as_object_mut().unwrap();
        for set in names.values_mut() {
            let more = ["CAP_NET_RAW", "CAP_NET_ADMIN"].map(|name| json!(name));
            set.as_array_mut().unwrap().extend(more);
        }
    });
}

/// The networks that runtimes are giving to containers, by their inodes.
#[track_caller]
fn given(scene: &Scene) -> Vec<u64> {
    let file = fs::metadata(scene.runtime_dir().join("networks")).unwrap();
    let all = fs::read_to_string("/proc/locks").unwrap();
    let fields = all
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = fields.filter(|fields| {
        let end = format!(":{}", file.ino());
        fields.get(5).is_some_and(|inode| inode.ends_with(&end)) && fields[1] == "POSIX"
    });
    ours.map(|fields| fields[6].parse().unwrap()).collect()
}

#[track_caller]
fn same(before: &[String], after: &[String], what: &str) {
    let less = before.iter().filter(|line| !after.contains(line));
    // The kernel shows some settings only in namespaces of the host.
    let is_hidden = |line: &&String| {
        ["/neigh/", "/ipv6/route/", "/core/xfrm_"]
            .iter()
            .any(|dir| line.contains(dir))
            && line.starts_with("/proc/sys/net/")
    };
    let less: Vec<_> = less.filter(|line| !is_hidden(line)).collect();
    let more: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(
        less.is_empty() && more.is_empty(),
        "{what}: gone {less:#?}, new {more:#?}"
    );
}

#[test]
fn privileged_the_network_of_the_engine_becomes_the_containers_with_all_that_is_in_it() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        let disk = rig.overlay(Style::Docker, &format!("{engine:?}"));
        let network = Network::new(&scene, &format!("{engine:?}"));
        network.fill();
        let before = network.contents();
        let others = mounts();
        let bundle = rig.bundle(engine, &disk.root);
        network.give_to(&bundle);
        let mut container = Container::of_bundle(bundle);
        first_id(&mut container);
        same(&before, &network.contents(), &format!("{engine:?}"));
        let inside = "b ls /sys/class/net | b tr '\\n' ' '; b ping -c1 -W5 10.9.0.1 >/dev/null
            b ping -c1 -W5 fd09::1 >/dev/null; b ping -c1 -W5 127.0.0.1 >/dev/null
            b ip addr add 10.1.0.1/32 dev lo; b ip addr del 10.1.0.1/32 dev lo
            b nc -l -p 80 -e /bin/busybox echo answer & until b nc 10.9.0.2 80 </dev/null; do :; done
            b cat /proc/sys/net/core/somaxconn
            # The lock of the start is the runtime's alone.
            b ls -l /proc/1/fd /proc/self/fd | b grep /networks || :";
        let said = shell(&mut container, inside);
        assert_eq!(said, "eth0 lo answer\n77\n", "{engine:?}");
        assert_eq!(
            Network::at(&network.peer, "ping", "-c1 -W5 10.9.0.2").code,
            Some(0)
        );
        drop(container);
        same(
            &before,
            &network.contents(),
            &format!("{engine:?}, after its end"),
        );
        // Only the number of the namespace is another one.
        let kept = |all: Vec<String>| -> Vec<String> {
            all.into_iter()
                .filter(|line| !line.contains("/netns/"))
                .collect()
        };
        assert_eq!(kept(mounts()), kept(others), "{engine:?}");
        network.remove();
    }
    daemon.end();
}

#[test]
fn privileged_a_second_container_joins_the_first_on_its_network_and_a_later_one_has_it_alone() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let network = Network::new(&scene, "shared");
    network.fill();
    let before = network.contents();
    let link = scene.dir().join("link");
    symlink(&network.path, &link).unwrap();
    let start = |name: &str, path: &Path| {
        let disk = rig.overlay(Style::Containerd, name);
        let bundle = rig.bundle(Engine::Runc, &disk.root);
        give(&bundle, path);
        Container::of_bundle(bundle)
    };
    let mut first = start("a", &link);
    // The runtime that made it lives, and still has the lock that keeps others from its network.
    assert_eq!(given(&scene), [fs::metadata(&network.path).unwrap().ino()]);
    let mut second = start("b", &network.path);
    let ids = first_id(&mut first);
    assert_eq!(first_id(&mut second), ids);
    drop((first, second));
    assert!(given(&scene).is_empty(), "the runtimes have ended");
    let mut third = start("c", &network.path);
    assert!(first_id(&mut third) != ids);
    shell(
        &mut third,
        "b ping -c1 -W5 10.9.0.1 >/dev/null; b ip link set eth0 mtu 1400",
    );
    drop(third);
    same(&before, &network.contents(), "three containers");
    network.remove();
    daemon.end();
}

#[test]
fn privileged_a_network_that_cannot_be_moved_is_refused_and_stays_as_it_was() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let changes: [(&str, &str, &[&str]); 6] = [
        ("bridge", "ip link add br0 type bridge", &["br0", "bridge"]),
        (
            "pair",
            "ip link add one type veth peer name two",
            &["depends on another"],
        ),
        (
            "queue",
            "tc qdisc add dev eth0 root tbf rate 1mbit burst 32kbit latency 400ms",
            &["eth0", "queueing"],
        ),
        (
            "object",
            "ip nexthop add id 7 via 10.9.0.9 dev eth0; ip route add 10.1.0.0/16 nhid 7",
            &["next hop"],
        ),
        (
            "filter",
            "iptables -A OUTPUT -p tcp --dport 25 -j DROP",
            &["filters"],
        ),
        ("used", "true", &["--userns=auto"]),
    ];
    for (name, change, words) in changes {
        let network = Network::new(&scene, name);
        network.fill();
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--net={}", network.path.display()));
        let made = Ran::run(nsenter.args(["sh", "-ec", change]));
        if name == "queue" && made.code != Some(0) {
            // Not every kernel has it.
            network.remove();
            continue;
        }
        made.ok();
        let mut user = (name == "used").then(|| network.user());
        let before = network.contents();
        let others = mounts();
        let bundle = rig.bundle(Engine::Runc, &disk.root);
        network.give_to(&bundle);
        let path = network.path.display().to_string();
        bundle
            .run()
            .refused(&[&["eci-runc: isolation: ", &path, "--userns=auto"], words].concat());
        same(&before, &network.contents(), name);
        assert_eq!(mounts(), others, "{name}");
        if let Some(user) = &mut user {
            user.kill().unwrap();
            user.wait().unwrap();
        }
        network.remove();
    }
    // The network at such a path is another one when the process has another root.
    let network = Network::new(&scene, "linked");
    let before = network.contents();
    let bundle = rig.bundle(Engine::Runc, &disk.root);
    let path = format!(
        "/proc/{}/root{}",
        std::process::id(),
        network.path.display()
    );
    give(&bundle, Path::new(&path));
    bundle.run().refused(&["eci-runc: isolation: ", &path]);
    // As another start does while it replaces the network.
    network.give_to(&bundle);
    let mut options = fs::File::options();
    let lock = options.create(true).write(true).truncate(false);
    let lock = lock.open(scene.runtime_dir().join("replaced")).unwrap();
    rustix::fs::fcntl_lock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let own = network.path.display().to_string();
    bundle
        .run()
        .refused(&["eci-runc: isolation: ", &own, "start the container again"]);
    drop(lock);
    same(&before, &network.contents(), &path);
    // A lock of the namespace itself, which a process in it can have, keeps nobody from it.
    let lock = fs::File::open(&network.path).unwrap();
    lock.lock().unwrap();
    first_id(&mut Container::of_bundle(bundle));
    network.remove();
    daemon.end();
}
