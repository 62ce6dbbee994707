//! Engines on cgroup v2 alone: the host's programs and their libraries, in a virtual machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::engines::Image;
use support::{Ran, Scene, find_program};
use xtask::vm::{Kernel, Vm};

/// What the guest needs of this machine. Daemons look for the others in PATH.
pub(crate) const PROGRAMS: [&str; 8] = [
    "runc",
    "crun",
    "conmon",
    "podman",
    "docker",
    "dockerd",
    "containerd",
    "containerd-shim-runc-v2",
];

/// What podman reads.
pub(crate) const FOLDERS: [&str; 2] = ["/etc/containers", "/usr/share/containers"];

/// Runs containers of all engines, each with 128 MiB and half a CPU, and prints a line for each.
const SCRIPT: &str = concat!(include_str!("prelude.sh"), include_str!("engines.sh"));

#[test]
fn privileged_engines_show_their_limits_on_cgroup_v2_with_linux_6_12() {
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let image = Image::build(&scene).archive;
    let vm = Vm::new(Kernel::V6_12)
        .memory_mib(2048)
        .timeout(Duration::from_secs(400))
        .file(crate::static_programs().join("eci-fs"), "/bin/eci-fs")
        .file(image, "/image.tar");
    let vm = FOLDERS.iter().fold(vm, |vm, dir| vm.file(dir, dir));
    let outcome = match with_programs(vm, &PROGRAMS).run(SCRIPT) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{error:#}"),
    };
    println!("ended after {:.1} s", outcome.ended_after.as_secs_f64());
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.status, 0, "{said}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for engine in [
        "docker",
        "docker as default",
        "docker exec",
        "podman crun",
        "podman runc",
        "podman userns",
    ] {
        let wanted = format!("{engine}: 131072 kB, 1 CPU");
        assert!(lines.contains(&wanted.as_str()), "{wanted}: {said}");
    }
    // A privileged container can measure CPUs, so it sees all of them.
    for wanted in [
        "docker privileged: 131072 kB, 2 CPU",
        "podman privileged: 131072 kB, 2 CPU",
        "docker update: 196608 kB, 2 CPU",
        "left: none",
    ] {
        assert!(lines.contains(&wanted), "{wanted}: {said}");
    }
}

/// A machine with these programs of this one, and their libraries.
#[track_caller]
pub(crate) fn with_programs(vm: Vm, names: &[&str]) -> Vm {
    let mut libraries = BTreeSet::new();
    let vm = names.iter().fold(vm, |vm, name| {
        let program = find_program(name);
        libraries.extend(libraries_of(&program));
        vm.file(&program, Path::new("/usr/bin").join(name))
    });
    libraries.iter().fold(vm, |vm, path| vm.file(path, path))
}

/// The libraries that a program is linked with, at the paths at which it looks for them.
#[track_caller]
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let said = Ran::run(Command::new("ldd").arg(program));
    // One that is linked statically has none, and ldd fails.
    let words = said.stdout.split_whitespace();
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}
