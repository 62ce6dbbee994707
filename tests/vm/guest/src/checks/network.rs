//! /proc/sys/net: the files that a network namespace lacks, beside those that it has.

use std::collections::BTreeSet;
use std::path::Path;

use eci_fs_emulators::TUNABLES;
use eci_fs_emulators::tunable::{Handler, Tunable};
use nix::sched::{CloneFlags, setns};

use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::host;
use crate::report::{Report, equal};

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";

/// Directories of which a container may be shown more than its namespace has.
const DIRECTORIES: &[&str] = &["/proc/sys/net/core", "/proc/sys/net/ipv4/vs"];

/// What kube-proxy sets where it works with IPVS (pkg/proxy/ipvs, NewProxier).
const KUBE_PROXY: &[(&str, &str)] = &[
    ("/proc/sys/net/ipv4/vs/conntrack", "1"),
    ("/proc/sys/net/ipv4/vs/conn_reuse_mode", "0"),
    ("/proc/sys/net/ipv4/vs/expire_nodest_conn", "1"),
    ("/proc/sys/net/ipv4/vs/expire_quiescent_template", "1"),
    ("/proc/sys/net/ipv4/ip_forward", "1"),
    ("/proc/sys/net/ipv4/conf/all/arp_ignore", "1"),
    ("/proc/sys/net/ipv4/conf/all/arp_announce", "2"),
    ("/proc/sys/net/netfilter/nf_conntrack_max", "131072"),
    ("/sys/module/nf_conntrack/parameters/hashsize", "32768"),
    (
        "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established",
        "86400",
    ),
];

pub(super) fn checks(report: &mut Report) {
    for user in [false, true] {
        let name = if user {
            "network of a user namespace"
        } else {
            "network"
        };
        report.group(name, |report| {
            let (first, second) = (Cgroup::new("net-writer")?, Cgroup::new("net-reader")?);
            let mut writer = Container::attach(&first, user)?;
            let mut reader = Container::attach(&second, user)?;
            for dir in DIRECTORIES {
                let own = in_network_of(writer.pid, || list(dir))?;
                report.check(dir, listed(&mut writer, dir, &own));
            }
            let mut lacking = 0;
            for tunable in TUNABLES.iter().copied().flatten() {
                let path = tunable.path();
                if !tunable.in_network || !Path::new(path).exists() {
                    continue;
                }
                let settable = in_network_of(writer.pid, || is_settable(path))?;
                if settable == "true" {
                    report.skip(path, "the kernel keeps it for the namespace");
                    continue;
                }
                lacking += 1;
                report.check(path, private(&mut writer, &mut reader, tunable));
            }
            report.check(
                "there is something to check",
                match lacking {
                    0 => Err("the kernel keeps all".to_owned()),
                    _ => Ok(()),
                },
            );
            for (path, value) in KUBE_PROXY {
                let name = format!("kube-proxy: {path}");
                report.check(&name, set(&mut writer, path, value));
            }
            // Older kernels show a network namespace of another user namespace nothing there.
            if in_network_of(writer.pid, || is_settable(SOMAXCONN))? == "true" {
                report.check(SOMAXCONN, namespaced(&mut writer, &mut reader));
            } else {
                let refused = writer.ask(&["write", SOMAXCONN, "77"]).err();
                report.equal(SOMAXCONN, &refused.as_deref(), &Some("ENOENT"));
            }
            writer.end()?;
            reader.end()?;
            first.remove()?;
            second.remove()
        });
    }
}

/// Do `work` in the network namespace of a process, with the machine's /proc, which nobody has grafted.
fn in_network_of(pid: i32, work: impl FnOnce() -> Result<String> + Send) -> Result<String> {
    let work = || {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = std::fs::File::open(&path).map_err(|e| format!("{path}: {e}"))?;
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|e| format!("{path}: {e}"))?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_| "the thread panicked".to_owned())?
}

fn list(path: &str) -> Result<String> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Ok(String::new());
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect::<Vec<_>>().join("\n"))
}

/// Whether the kernel lets root of the namespace set it.
fn is_settable(path: &str) -> Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map(|meta| meta.permissions().mode());
    let own = path.starts_with("/proc/sys/net/");
    Ok((own && mode.is_ok_and(|mode| mode & 0o200 != 0)).to_string())
}

/// A directory lists what the namespace has, and the tunables that it lacks.
fn listed(container: &mut Container, dir: &str, own: &str) -> Result<()> {
    let mut wanted: BTreeSet<String> = own.lines().map(str::to_owned).collect();
    let is_there = Path::new(dir).exists() && container.list(dir).is_ok();
    if !is_there {
        return equal("nothing is there", &wanted.len(), &0);
    }
    for tunable in TUNABLES.iter().copied().flatten() {
        let name = tunable.path().strip_prefix(dir);
        let name = name.and_then(|rest| rest.strip_prefix('/'));
        if let Some(name) = name.filter(|_| Path::new(tunable.path()).exists()) {
            wanted.insert(name.to_owned());
        }
    }
    let seen: BTreeSet<String> = container.list(dir)?.into_iter().collect();
    equal("names", &seen, &wanted)
}

fn set(container: &mut Container, path: &str, value: &str) -> Result<()> {
    container.tell(&["write", path, value])?;
    let read = container.read(path)?.replace('\t', " ");
    equal("what was written", &read.trim(), &value)
}

/// A value that it takes, other than the machine's; and one that it does not take, with the errno.
fn values(tunable: &Tunable, machine: &str) -> (&'static str, &'static str, &'static str) {
    let [value, other, nonsense, errno] = match tunable.handler {
        Handler::Qdisc => ["pfifo", "bfifo", "nonsense", "ENOENT"],
        Handler::Buckets => ["512", "1024", "x", "EINVAL"],
        Handler::Checked { count: 1, .. } => ["4", "2", "3", "EINVAL"],
        Handler::Checked { .. } => ["3 9", "4 9", "-1", "EINVAL"],
        Handler::Int { most, .. } if most < 1000 => ["1", "0", "9", "EINVAL"],
        _ => ["12345", "23456", "x", "EINVAL"],
    };
    let value = if machine.trim() == value {
        other
    } else {
        value
    };
    (value, nonsense, errno)
}

fn private(writer: &mut Container, reader: &mut Container, tunable: &Tunable) -> Result<()> {
    let path = tunable.path();
    let machine = host(path)?;
    let (value, nonsense, errno) = values(tunable, &machine);
    equal("at first", &writer.read(path)?, &machine)?;
    set(writer, path, value)?;
    let written = writer.read(path)?;
    let copied = writer.tell(&["sendfile", path])?;
    equal("what is copied by the kernel", &copied, &written)?;
    let refused = writer.ask(&["write", path, nonsense]).err();
    equal("writing nonsense", &refused.as_deref(), &Some(errno))?;
    equal("after nonsense", &writer.read(path)?, &written)?;
    equal("in another container", &reader.read(path)?, &machine)?;
    equal("on the machine", &host(path)?, &machine)
}

/// What the namespace has itself.
fn namespaced(writer: &mut Container, reader: &mut Container) -> Result<()> {
    set(writer, SOMAXCONN, "77")?;
    let own = in_network_of(writer.pid, || host(SOMAXCONN))?;
    equal("the kernel's own", &own.trim(), &"77")?;
    let copied = writer.tell(&["sendfile", SOMAXCONN])?;
    equal("what is copied by the kernel", &copied.trim(), &"77")?;
    let others = in_network_of(reader.pid, || host(SOMAXCONN))?;
    equal("in another container", &reader.read(SOMAXCONN)?, &others)?;
    equal("still", &host(SOMAXCONN)?, &others)
}
