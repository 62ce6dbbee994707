//! `docker run --privileged`: all capabilities, and nothing of the host.

use std::fs;
use std::os::unix::fs::MetadataExt;

use support::engines::CommandLine;

use super::docker;
use crate::host::Host;
use crate::scene;

/// Tries to open each device node for reading and for writing. Prints those that can be.
const DEVICES: &str = "for node in $(find /dev -type b -o -type c); do \
    for how in '<' '>'; do (eval \"timeout 1 true $how$node\") 2>/tmp/e && echo \"$node\"; done; done | sort -u";

/// The device nodes of the container's own terminals and network.
const OWN: [&str; 3] = ["/dev/console", "/dev/ptmx", "/dev/pts/ptmx"];

/// Returns whether everybody on the host may use the node, as /dev/null.
fn is_for_everybody(node: &str) -> bool {
    fs::metadata(node).is_ok_and(|node| node.mode() & 0o006 != 0)
}

/// Settings that are the host's own: each of another subsystem.
const SYSCTLS: [&str; 8] = [
    "kernel/panic",
    "kernel/printk",
    "kernel/core_pattern",
    "kernel/sysrq",
    "vm/swappiness",
    "vm/overcommit_memory",
    "fs/file-max",
    "fs/suid_dumpable",
];

#[test]
fn privileged_a_privileged_container_of_docker_has_ids_of_its_own_and_no_device_or_setting_of_the_host()
 {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = docker(&host, &scene);
    let start = ["--detach", "--privileged", "--name"];
    let mut firsts = Vec::new();
    for name in ["one", "two"] {
        let run = [&start[..], &[name]].concat();
        docker.run(&run, &["sleep", "1000"]).ok();
        firsts.push(super::ids::first_id(&docker, name));
    }
    assert!(firsts[0].abs_diff(firsts[1]) >= 65_536, "{firsts:?}");
    let exec = |script: &str| docker.call(&["exec", "one", "sh", "-c", script]);
    let capabilities = exec("grep CapEff /proc/1/status").ok();
    let capabilities = capabilities.trim().rsplit('\t').next().unwrap();
    let bits = u64::from_str_radix(capabilities, 16).unwrap();
    // More than a container has that is not privileged: CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_SYS_MODULE.
    for capability in [21, 12, 16] {
        assert!(bits & 1 << capability != 0, "{capabilities}");
    }
    let opened = exec(DEVICES).ok();
    let others: Vec<_> = opened
        .lines()
        .filter(|node| !OWN.contains(node) && !is_for_everybody(node))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(opened.contains("/dev/null"), "{opened}");
    for path in SYSCTLS {
        let file = format!("/proc/sys/{path}");
        let Ok(before) = fs::read_to_string(&file) else {
            continue;
        };
        // One of the container's own takes it, and one of the host refuses.
        exec(&format!("echo 1 >{file}"));
        let after = fs::read_to_string(&file).unwrap();
        assert_eq!(after, before, "{file}");
    }
    for script in [
        "dmesg",
        "mknod /tmp/vda b 254 0",
        "mount -t proc none /mnt -o remount /proc/sys/kernel && false",
        "echo c >/proc/sysrq-trigger",
        "swapoff -a && swapon /etc/passwd",
        "date -s @1; test $(date +%s) -lt 1000",
    ] {
        let ran = exec(script);
        assert_ne!(ran.code, Some(0), "{script}: {ran:?}");
    }
    // What root of a user namespace may do.
    exec("mkdir /t && mount -t tmpfs t /t && touch /t/x && ip address add 10.9.9.9/32 dev lo && hostname other").ok();
    docker.call(&["rm", "--force", "one", "two"]).ok();
}
