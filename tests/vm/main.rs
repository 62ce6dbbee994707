//! Views on hosts whose only hierarchy is cgroup v2, with each kernel that the project knows. Virtual machines run
//! `vm-guest`, which compares every view with the files of the container's cgroup. The checks are in
//! `guest/src/checks`.

#![allow(
    clippy::print_stdout,
    reason = "what a guest said is shown when a test fails"
)]

mod attacks;
mod documents;
mod engines;
mod isolation;
mod lxcfs;
mod runtimes;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use xtask::vm::{Kernel, Vm};

/// The target that is named, so that the flags for it do not reach procedural macros.
const TARGET: &str = "x86_64-unknown-linux-gnu";

#[test]
fn privileged_views_are_right_on_cgroup_v2_with_linux_5_10() {
    check(Kernel::V5_10);
}

#[test]
fn privileged_views_are_right_on_cgroup_v2_with_linux_6_1() {
    check(Kernel::V6_1);
}

#[test]
fn privileged_views_are_right_on_cgroup_v2_with_linux_6_12() {
    check(Kernel::V6_12);
}

/// Makes all checks with one kernel. `VM_CHECKS` names groups of them, for whoever works on one.
#[track_caller]
fn check(kernel: Kernel) {
    let only = env::var("VM_CHECKS").unwrap_or_default();
    let programs = static_programs();
    // Four processors, so that there are sets of them that are neither all nor one; two memory
    // nodes, for the same reason.
    let vm = Vm::new(kernel)
        .cpus(4)
        .memory_mib(768)
        .swap_mib(64)
        // For what network namespaces share of it.
        .module("ip_vs")
        // Twice the time that an idle host takes: a busy one emulates processors at half the speed.
        .timeout(Duration::from_secs(800))
        .file(programs.join("eci-fs"), "/bin/eci-fs")
        .file(programs.join("vm-guest"), "/bin/vm-guest");
    let vm = ["0-1", "2-3"]
        .iter()
        .enumerate()
        .fold(vm, |vm, (node, cpus)| {
            vm.qemu_arg("-object")
                .qemu_arg(format!("memory-backend-ram,id=mem{node},size=384M"))
                .qemu_arg("-numa")
                .qemu_arg(format!("node,nodeid={node},memdev=mem{node},cpus={cpus}"))
        });
    // What a machine is known by, so that there is something to hide.
    let vm = vm
        .qemu_arg("-uuid")
        .qemu_arg("6ba7b810-9dad-41d1-80b4-00c04fd430c8");
    let vm = (1..=3).fold(vm, |vm, kind| {
        vm.qemu_arg("-smbios")
            .qemu_arg(format!("type={kind},serial=of-the-machine-{kind}"))
    });
    let script =
        format!("vm-guest check {only}; status=$?; cat /run/eci-fs/*.log >&2; exit $status");
    let outcome = match vm.run(&script) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{error:#}"),
    };
    println!("{}", outcome.stdout);
    println!("ended after {:.1} s", outcome.ended_after.as_secs_f64());
    let failures: Vec<&str> = outcome
        .stdout
        .lines()
        .filter(|line| line.starts_with("FAIL"))
        .collect();
    // What failed comes last: of what is as long as this the beginning may be all that is shown, or the end.
    assert!(
        outcome.status == 0 && failures.is_empty(),
        "with Linux {kernel}, exit status {}:\n{}\nThe errors of the guest:\n{}\nOnce more, what failed:\n{}",
        outcome.status,
        failures.join("\n"),
        outcome.stderr,
        failures.join("\n"),
    );
}

/// The folder with the two programs, linked statically: the guest has no libraries.
#[track_caller]
fn static_programs() -> PathBuf {
    // A directory of its own: other flags would rebuild everything in the usual one.
    let target = xtask::paths::target_dir().join("static");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .args([
            "--package",
            "eci-fs",
            "--bin",
            "eci-fs",
            "--bin",
            "eci-runc",
        ])
        .args(["--package", "eci-fs-mountd", "--bin", "eci-mountd"])
        .args(["--package", "vm-guest", "--bin", "vm-guest"])
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C debuginfo=0 -C strip=symbols",
        )
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::null())
        .output();
    match built {
        Ok(built) if built.status.success() => target.join(TARGET).join("debug"),
        Ok(built) => panic!(
            "the programs for the guest cannot be built:\n{}",
            String::from_utf8_lossy(&built.stderr)
        ),
        Err(error) => panic!("cargo cannot be started: {error}"),
    }
}
