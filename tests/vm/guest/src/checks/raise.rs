//! Tunables of the host that are raised to the values of containers, and restored.

use std::fs;

use super::survival::{eci_fs, process, signal};
use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::{host, within};
use crate::report::{Report, equal};
use rustix::process::Signal;
use std::time::Duration;

const NR_OPEN: &str = "/proc/sys/fs/nr_open";
const FILE_MAX: &str = "/proc/sys/fs/file-max";
const CONNTRACK_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";
const CONFIG: &str = "/etc/eci-fs/config.toml";

/// What the daemon notices by itself is waited for; the machine is an emulated one.
const SOON: Duration = Duration::from_secs(30);

pub(super) fn checks(report: &mut Report) {
    report.group("raise", |report| {
        let machine = [number(NR_OPEN)?, number(FILE_MAX)?];
        let done = raise(report, machine).and_then(|()| conntrack(report));
        // Groups after this one have none.
        let removed = fs::remove_file(CONFIG).map_err(|e| e.to_string());
        for (path, value) in [(NR_OPEN, machine[0]), (FILE_MAX, machine[1])] {
            fs::write(path, value.to_string()).map_err(|e| format!("{path}: {e}"))?;
        }
        done.and(removed)
    });
}

fn number(path: &str) -> Result<u64> {
    let text = host(path)?;
    text.trim().parse().map_err(|_| text)
}

/// A container, and its cgroup.
fn start(name: &str) -> Result<(Cgroup, Container)> {
    let cgroup = Cgroup::new(name)?;
    let container = Container::attach(&cgroup, false)?;
    Ok((cgroup, container))
}

fn end((cgroup, container): (Cgroup, Container)) -> Result<()> {
    container.end()?;
    cgroup.remove()
}

fn set(container: &mut (Cgroup, Container), path: &str, value: u64) -> Result<()> {
    container
        .1
        .tell(&["write", path, &value.to_string()])
        .map(drop)
}

/// What the machine has, at once.
fn has(report: &mut Report, name: &str, path: &str, value: u64) -> Result<()> {
    report.equal(name, &number(path)?, &value);
    Ok(())
}

/// The same, soon.
fn will_have(report: &mut Report, name: &str, path: &str, value: u64) {
    let seen = within(
        SOON,
        || Ok(number(path)?.to_string()),
        |seen| equal("the machine's", &seen, &value.to_string().as_str()),
    );
    report.check(name, seen);
}

fn configure(text: &str) -> Result<()> {
    fs::create_dir_all("/etc/eci-fs")
        .and_then(|()| fs::write(CONFIG, text))
        .map_err(|e| format!("{CONFIG}: {e}"))
}

fn raise(report: &mut Report, [nr_open, file_max]: [u64; 2]) -> Result<()> {
    let mut first = start("raise-first")?;
    configure("")?;
    eci_fs(&["upgrade"])?;
    set(&mut first, NR_OPEN, nr_open + 64)?;
    has(
        report,
        "without a ceiling the machine's stays",
        NR_OPEN,
        nr_open,
    )?;

    configure("[raise]\n\"/proc/sys/kernel/panic\" = 1\n")?;
    let refused = eci_fs(&["upgrade"]).err().unwrap_or_default();
    report.check(
        "an upgrade says what is wrong with the configuration",
        match refused.contains(CONFIG) && refused.contains("line 2") {
            true => Ok(()),
            false => Err(refused),
        },
    );
    let ceiling = nr_open + 4096;
    configure(&format!("[raise]\n\"{NR_OPEN}\" = {ceiling}\n"))?;
    eci_fs(&["upgrade"])?;
    let name = "what was set before is raised by the next daemon";
    will_have(report, name, NR_OPEN, nr_open + 64);

    let mut second = start("raise-second")?;
    set(&mut first, NR_OPEN, nr_open + 1024)?;
    has(
        report,
        "raised when the write returns",
        NR_OPEN,
        nr_open + 1024,
    )?;
    set(&mut second, NR_OPEN, nr_open + 2048)?;
    set(&mut second, FILE_MAX, file_max / 2)?;
    has(report, "the higher wish wins", NR_OPEN, nr_open + 2048)?;
    has(report, "what has no ceiling stays", FILE_MAX, file_max)?;
    let shown = eci_fs(&["show", &second.1.pid.to_string(), "--tunables"])?;
    let line = format!(
        "{NR_OPEN}  {}  (at first {nr_open}; the machine's is raised from {nr_open} to {0})",
        nr_open + 2048
    );
    report.check(
        "show says so",
        match shown.lines().any(|shown| shown == line) {
            true => Ok(()),
            false => Err(format!("{shown:?} does not have {line:?}")),
        },
    );
    set(&mut second, NR_OPEN, u64::from(i32::MAX as u32 & !63))?;
    has(report, "no more than the ceiling", NR_OPEN, ceiling)?;
    end(second)?;
    will_have(report, "the next wish counts", NR_OPEN, nr_open + 1024);

    // Nobody is there when it ends, and the next daemon finds that out.
    let third = start("raise-third")?;
    signal("lock", Signal::KILL)?;
    set(&mut first, NR_OPEN, nr_open + 512)?;
    has(report, "without a daemon", NR_OPEN, nr_open + 1024)?;
    eci_fs(&["attach", &third.1.pid.to_string()])?;
    let name = "what was set without a daemon";
    will_have(report, name, NR_OPEN, nr_open + 512);
    signal("lock", Signal::KILL)?;
    end(first)?;
    has(report, "who ends without a daemon", NR_OPEN, nr_open + 512)?;
    eci_fs(&["attach", &third.1.pid.to_string()])?;
    will_have(report, "is found out", NR_OPEN, nr_open);
    both_die(report, third, nr_open)
}

fn both_die(report: &mut Report, mut third: (Cgroup, Container), nr_open: u64) -> Result<()> {
    set(&mut third, NR_OPEN, nr_open + 256)?;
    has(report, "before both die", NR_OPEN, nr_open + 256)?;
    let server = process("server")?;
    signal("server", Signal::KILL)?;
    let another = || Ok((process("server")? != server).to_string());
    let is_another = |seen: &str| equal("another", &seen, &"true");
    report.check("another server", within(SOON, another, is_another));
    has(report, "a server that dies", NR_OPEN, nr_open + 256)?;
    signal("lock", Signal::KILL)?;
    signal("server", Signal::KILL)?;
    let pid = third.1.pid.to_string();
    eci_fs(&["attach", &pid])?;
    has(
        report,
        "both die, the container lives",
        NR_OPEN,
        nr_open + 256,
    )?;
    // Somebody else's value is left alone.
    fs::write(NR_OPEN, (nr_open + 128).to_string()).map_err(|e| e.to_string())?;
    eci_fs(&["detach", &pid])?;
    let name = "what the administrator has set is not given back";
    has(report, name, NR_OPEN, nr_open + 128)?;
    fs::write(NR_OPEN, nr_open.to_string()).map_err(|e| e.to_string())?;
    let name = "nothing is left to be given back";
    let record = std::path::Path::new("/run/eci-fs/raised.json").exists();
    report.equal(name, &record, &false);
    end(third)
}

/// What all network namespaces share of connection tracking.
fn conntrack(report: &mut Report) -> Result<()> {
    let (most, buckets) = (number(CONNTRACK_MAX)?, number(HASHSIZE)?);
    configure(&format!(
        "[raise]\n\"{CONNTRACK_MAX}\" = {}\n\"{HASHSIZE}\" = {}\n",
        most + 1000,
        buckets + 1024
    ))?;
    // The daemon that is there ends with its last container, and that one has ended.
    let mut container = start("raise-conntrack")?;
    eci_fs(&["upgrade"])?;
    set(&mut container, CONNTRACK_MAX, most + 500)?;
    has(report, "connections are raised", CONNTRACK_MAX, most + 500)?;
    set(&mut container, HASHSIZE, buckets + 1)?;
    has(
        report,
        "buckets too, in whole pages",
        HASHSIZE,
        buckets + 512,
    )?;
    set(&mut container, HASHSIZE, buckets * 4)?;
    has(report, "up to the ceiling", HASHSIZE, buckets + 1024)?;
    end(container)?;
    will_have(report, "connections are given back", CONNTRACK_MAX, most);
    will_have(report, "and buckets", HASHSIZE, buckets);
    Ok(())
}
