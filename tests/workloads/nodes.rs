//! The tunables that programs of a cluster's node set when they start, in the same order and way: a file is written as
//! a whole if it has another value.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::machine::{Files, Machine};
use crate::scene;

/// kube-proxy: server_linux.go, conntrack.go, and the proxier of iptables, with `strictARP` of the other one: what its
/// network namespace has.
const KUBE_PROXY: &[(&str, &str)] = &[
    (
        "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established",
        "86400",
    ),
    (
        "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait",
        "3600",
    ),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "45"),
    (
        "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream",
        "240",
    ),
    ("/proc/sys/net/ipv4/conf/all/route_localnet", "1"),
    ("/proc/sys/net/bridge/bridge-nf-call-iptables", "1"),
    ("/proc/sys/net/ipv4/ip_forward", "1"),
    ("/proc/sys/net/ipv4/conf/all/arp_ignore", "1"),
    ("/proc/sys/net/ipv4/conf/all/arp_announce", "2"),
];

/// kube-proxy: conntrack.go, what all network namespaces share.
const CONNTRACK: &[(&str, &str)] = &[
    ("/proc/sys/net/netfilter/nf_conntrack_max", "301056"),
    ("/sys/module/nf_conntrack/parameters/hashsize", "75264"),
];

/// kubelet: container_manager_linux.go.
const KUBELET: &[(&str, &str)] = &[
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
];

/// Elasticsearch: "Important system configuration" of its manual.
const ELASTICSEARCH: &[(&str, &str)] = &[
    ("/proc/sys/vm/max_map_count", "262144"),
    ("/proc/sys/vm/swappiness", "1"),
    ("/proc/sys/fs/file-max", "65536"),
    ("/proc/sys/net/ipv4/tcp_retries2", "5"),
];

/// What the files say after the writes; none where one was refused.
fn write(machine: &Machine, writes: &[(&str, &str)]) -> BTreeMap<String, Option<String>> {
    let script = r#"
        while [ $# -gt 0 ]; do
            if [ "$(cat "$1")" = "$2" ] || echo "$2" > "$1"; then echo "$1 $(cat "$1")"; else echo "$1"; fi
            shift 2
        done"#;
    let mut command = vec!["/bin/sh", "-uc", script, "sh"];
    let words = writes.iter().flat_map(|&(path, value)| [path, value]);
    command.extend(words);
    let said = machine.run(&command).ok();
    let lines = said.lines().map(|line| match line.split_once(' ') {
        Some((path, value)) => (path.to_owned(), Some(value.to_owned())),
        None => (line.to_owned(), None),
    });
    lines.collect()
}

#[test]
fn privileged_programs_of_nodes_set_what_they_want() {
    let scene = scene();
    let start = |files| Machine::start(&scene, files, Path::new("/usr"), &["sleep", "100000"], &[]);
    let (without, with) = (start(Files::Kernels), start(Files::Grafted));
    let mut refused = BTreeMap::new();
    for (program, writes) in [
        ("kube-proxy", KUBE_PROXY),
        ("conntrack", CONNTRACK),
        ("kubelet", KUBELET),
        ("Elasticsearch", ELASTICSEARCH),
    ] {
        // Modules that this machine has not loaded have none.
        let writes: Vec<_> = writes
            .iter()
            .copied()
            .filter(|(path, _)| Path::new(path).exists())
            .collect();
        let machine = || -> Vec<_> {
            writes
                .iter()
                .map(|(path, _)| fs::read_to_string(path).unwrap())
                .collect()
        };
        let before = machine();
        let wanted: BTreeMap<_, _> = writes
            .iter()
            .map(|(path, value)| ((*path).to_owned(), Some((*value).to_owned())))
            .collect();
        assert_eq!(write(&with, &writes), wanted, "{program}");
        let bare = write(&without, &writes);
        refused.insert(
            program,
            bare.values().filter(|value| value.is_none()).count(),
        );
        assert_eq!(machine(), before, "{program}");
    }

    // Without grafts: what is not of the network namespace, unless the machine has it already.
    assert_eq!(refused["kube-proxy"], 0);
    assert_eq!(refused["conntrack"], CONNTRACK.len());
    assert!(
        refused["kubelet"] + refused["Elasticsearch"] > 0,
        "{refused:?}"
    );
}
