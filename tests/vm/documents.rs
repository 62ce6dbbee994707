//! docs/engines.md and docs/operating.md, followed word for word on a fresh Debian 12 with systemd in a virtual
//! machine. The test executes the commands that are written there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::Scene;
use support::engines::Image;
use xtask::vm::{Kernel, Vm, system};

/// What somebody has installed who wants containers, from Debian itself.
const PACKAGES: [&str; 13] = [
    "procps",
    "busybox-static",
    "docker.io",
    "podman",
    "crun",
    "runc",
    "netavark",
    "lxc",
    "systemd-container",
    "iptables",
    "uidmap",
    "python3-grpcio",
    "apparmor",
];

/// What is in the pages and cannot be followed there: Debian 12 has no CRI-O.
const NOT_RUN: [&str; 1] = ["engines/cri-o"];

/// Follows the pages, and prints what comes of it.
const SCRIPT: &str = include_str!("documents.sh");

#[test]
fn privileged_what_the_pages_say_holds_on_a_fresh_machine_with_systemd() {
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let programs = crate::static_programs();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (blocks, names) = blocks(&scene);
    let disk = system(&PACKAGES).unwrap_or_else(|error| panic!("{error:#}"));
    let vm = Vm::new(Kernel::V6_12)
        .system(disk)
        .memory_mib(2048)
        .timeout(Duration::from_secs(850))
        .echo(true)
        .file(tests.join("mountd"), "/root/mountd")
        .file(tests.join("tests/engines/cri.py"), "/root/cri.py")
        .file(Image::build(&scene).archive, "/root/image.tar")
        .file(blocks, "/root/blocks");
    let vm = ["eci-fs", "eci-runc", "eci-mountd"]
        .iter()
        .fold(vm, |vm, name| {
            vm.file(programs.join(name), Path::new("/root").join(name))
        });
    let outcome = vm.run(SCRIPT).unwrap_or_else(|error| panic!("{error:#}"));
    println!("booted after {:.1} s", outcome.booted_after.as_secs_f64());
    println!("ended after {:.1} s", outcome.ended_after.as_secs_f64());
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.status, 0, "{said}");
    let lines: Vec<String> = outcome
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let has = |wanted: &str| lines.iter().any(|line| line == wanted);
    for what in [
        "engines/docker:",
        "engines/podman:",
        "engines/containerd:",
        "pod:",
        "lxc:",
        "nspawn:",
        "unshare:",
        "config.json of runc:",
        "config.json of crun:",
        "docker before:",
        "docker when both have died:",
        "podman when both have died:",
        "docker after a reload:",
        "docker attached again:",
    ] {
        assert!(
            has(&format!("{what} MemTotal: 262144 kB")),
            "{what}: {said}"
        );
    }
    for wanted in [
        "daemon: active",
        "kept: NFileDescriptorStore=6",
        "readers: all alike",
        "grafts when both have died: the same",
        "grafts after a reload: the same",
        "docker after a restart: as the machine",
        "restarts: NRestarts=1",
        "doctor: ok docker uses eci-fs",
        "doctor: ok podman uses eci-fs",
        "doctor: ok containerd uses eci-fs",
        "left: none",
    ] {
        assert!(has(wanted), "{wanted}: {said}");
    }
    for name in names {
        let ran = has(&format!("ran {name}"));
        assert_ne!(ran, NOT_RUN.contains(&name.as_str()), "{name}: {said}");
    }
}

/// A folder with what is to be typed in or written down, by page and heading, and the names of what is to be typed in.
#[track_caller]
fn blocks(scene: &Scene) -> (PathBuf, Vec<String>) {
    let dir = scene.dir().join("blocks");
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for page in ["engines", "operating"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/{page}.md"));
        let text = fs::read_to_string(path).unwrap_or_default();
        for section in text.split("\n## ").skip(1) {
            let heading = section.lines().next().unwrap_or_default().to_lowercase();
            let words = heading.split(|c: char| !c.is_alphanumeric());
            let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
            let mut parts = section.split("\n```");
            parts.next();
            while let Some(block) = parts.next() {
                let (kind, block) = block.split_once('\n').unwrap_or_default();
                let name = format!("{page}/{}.{kind}", words.join("-"));
                all.entry(name).or_default().push_str(&format!("{block}\n"));
                parts.next();
            }
        }
    }
    for (name, text) in &all {
        let path = dir.join(name);
        let made = fs::create_dir_all(path.parent().unwrap_or(&dir));
        let written = made.and_then(|()| fs::write(&path, text));
        assert!(written.is_ok(), "{}: {written:?}", path.display());
    }
    let names = all.keys().filter_map(|name| name.strip_suffix(".sh"));
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(names.len() >= 8, "{names:?}");
    (dir, names)
}
