//! systemd as pid 1.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use eci_fs_emulators::TUNABLES;
use eci_fs_emulators::tunable::{Handler, Tunable};
use support::number_after;

use crate::machine::{Files, MEMORY, Machine};
use crate::scene;

/// A container in which systemd has started all that it is to start.
#[track_caller]
fn boot(scene: &support::Scene, files: Files, sysctls: &str) -> Machine {
    let own = [("etc/sysctl.d/all.conf", sysctls)];
    let machine = Machine::start(
        scene,
        files,
        Path::new("/usr"),
        &["/usr/lib/systemd/systemd"],
        &own,
    );
    // Before it listens it cannot be asked, and once it does it answers when all is started.
    machine.wait_until(&["systemctl", "is-system-running", "--wait"], |ran| {
        ["running\n", "degraded\n"].contains(&ran.stdout.as_str())
    });
    machine
}

/// Those of the table that can be written on this machine, each with a value that is not the machine's.
fn wanted() -> Vec<(&'static str, String)> {
    let all = TUNABLES.iter().copied().flatten();
    // systemd reads what it writes: it sets none that can only be written, on no machine.
    let takes = |path: &str| fs::metadata(path).is_ok_and(|file| file.mode() & 0o600 == 0o600);
    all.filter(|tunable| tunable.path().starts_with("/proc/sys/"))
        .filter(|tunable| tunable.namespaced.is_none() && takes(tunable.path()))
        // A write of this one sets overcommit_ratio to 0.
        .filter(|tunable| !tunable.path().ends_with("/overcommit_kbytes"))
        .filter_map(|tunable| Some((tunable.path(), value(tunable)?)))
        .collect()
}

fn value(tunable: &Tunable) -> Option<String> {
    let (least, most, count) = match tunable.handler {
        Handler::Int { least, most, count } => (i64::from(least), i64::from(most), count),
        Handler::Ulong { .. } => (0, i64::MAX, 1),
        _ => return None,
    };
    let machine = fs::read_to_string(tunable.path()).unwrap_or_default();
    let mut values = [1_234_567, most, most - 1].into_iter();
    let value = values.find(|value| {
        (least..=most).contains(value)
            && !machine
                .split_whitespace()
                .any(|had| had == value.to_string())
    });
    Some(vec![value?.to_string(); count].join("\t"))
}

/// Units that have failed.
#[track_caller]
fn failed(machine: &Machine) -> BTreeSet<String> {
    let list = [
        "systemctl",
        "list-units",
        "--failed",
        "--plain",
        "--no-legend",
    ];
    let said = machine.run(&list).ok();
    let names = said.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn privileged_systemd_is_the_init_of_a_container_and_sets_every_tunable() {
    let scene = scene();
    let wanted = wanted();
    assert!(wanted.len() > 20, "{wanted:?}");
    let lines = wanted
        .iter()
        .map(|(path, value)| format!("{} = {value}\n", path.trim_start_matches("/proc/sys/")));
    let sysctls: String = lines.collect();
    let of_the_machine = || -> Vec<_> {
        wanted
            .iter()
            .map(|(path, _)| fs::read_to_string(path).ok())
            .collect()
    };
    let before = of_the_machine();

    let with = boot(&scene, Files::Grafted, &sysctls);
    let unit = "systemd-sysctl.service";
    let show = [
        "systemctl",
        "show",
        "--property=ActiveState,SubState,Result,ExecMainStatus",
        unit,
    ];
    let state = with.run(&show).ok();
    let all: BTreeSet<&str> = state.lines().collect();
    let good = [
        "ActiveState=active",
        "SubState=exited",
        "Result=success",
        "ExecMainStatus=0",
    ];
    assert_eq!(all, BTreeSet::from(good));
    // From inside: what lies below net is another file for who is in another network namespace.
    let (paths, values): (Vec<&str>, Vec<&str>) = wanted
        .iter()
        .map(|(path, value)| (*path, value.as_str()))
        .unzip();
    let said = with.run(&[&["cat"], paths.as_slice()].concat()).ok();
    for ((path, value), line) in paths.iter().zip(values).zip(said.lines()) {
        assert_eq!(line, value, "{path}");
    }
    assert_eq!(said.lines().count(), wanted.len(), "{said}");
    let strictly = [
        "/usr/lib/systemd/systemd-sysctl",
        "--strict",
        "/etc/sysctl.d/all.conf",
    ];
    let ran = with.run(&strictly);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert_eq!(of_the_machine(), before);

    let without = boot(&scene, Files::Kernels, &sysctls);
    // There it writes nothing, and passes over that unless it is told not to.
    assert_eq!(without.run(&strictly).code, Some(1));
    assert_eq!(of_the_machine(), before);
    let (with, without) = (failed(&with), failed(&without));
    println!("failed units: {with:?}; without eci-fs: {without:?}");
    assert!(with.is_subset(&without), "{with:?} {without:?}");
}

/// Settings of units with a mount namespace of their own, and whether such a unit reads the figures of the host:
/// systemd mounts a procfs for those.
const UNITS: &[(&str, bool)] = &[
    ("DynamicUser=yes", false),
    ("MountAPIVFS=yes", false),
    ("PrivateDevices=yes", false),
    ("PrivateIPC=yes", false),
    ("PrivateMounts=yes", false),
    ("PrivateNetwork=yes", false),
    ("PrivateTmp=yes", false),
    ("PrivateUsers=yes", false),
    ("ProtectClock=yes", false),
    ("ProtectControlGroups=yes", true),
    ("ProtectHome=yes", false),
    ("ProtectHostname=yes", false),
    ("ProtectKernelLogs=yes", false),
    ("ProtectKernelModules=yes", false),
    ("ProtectKernelTunables=yes", true),
    ("ProtectProc=default", false),
    ("ProtectProc=invisible", true),
    ("ProtectSystem=strict", false),
    ("ReadOnlyPaths=/proc/sys", false),
    ("RootDirectory=/mnt", true),
];

/// What makes an empty directory the root of a unit.
const ROOT: [&str; 4] = [
    "--property",
    "MountAPIVFS=yes",
    "--property",
    "BindReadOnlyPaths=/usr /usr/bin:/bin /usr/lib:/lib /usr/lib64:/lib64",
];

#[test]
fn privileged_units_of_systemd_read_the_figures_of_the_host_where_the_documents_say() {
    let scene = scene();
    let machine = boot(&scene, Files::Grafted, "");
    let host = fs::read_to_string("/proc/meminfo").unwrap();
    let host = number_after(&host, "MemTotal:");
    let document = include_str!("../../docs/security.md");
    let mut wrong = Vec::new();
    for (setting, reads_host) in UNITS {
        let options = ["--quiet", "--wait", "--pipe", "--property", setting];
        let root: &[&str] = match *setting {
            "RootDirectory=/mnt" => &ROOT,
            _ => &[],
        };
        let command = ["cat", "/proc/meminfo"];
        let words = [&["systemd-run"][..], &options, root, &command].concat();
        let total = number_after(&machine.run(&words).ok(), "MemTotal:");
        let wanted = match reads_host {
            true => host,
            false => MEMORY >> 10,
        };
        if total != wanted {
            wrong.push((setting, total));
        }
        let (name, _) = setting.split_once('=').unwrap();
        let is_documented = document.contains(&format!("`{name}="));
        assert!(is_documented || !reads_host, "{setting} is not documented");
    }
    assert_eq!(wrong, []);
    let list = scene.list();
    assert_eq!(list[0]["fresh_procfs"]["can"], "yes", "{list:?}");
}
