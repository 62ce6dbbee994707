//! The kernel's own tests of /proc (tools/testing/selftests/proc), run in a container.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scene;

/// Builds a test of the kernel, as its Makefile does but statically, and returns the program.
#[track_caller]
fn build(dir: &Path, name: &str) -> PathBuf {
    // Beside the profile's folder: `cargo xtask setup` unpacks it there.
    let programs = Path::new(env!("CARGO_BIN_EXE_eci-fs"));
    let target = programs.parent().and_then(Path::parent).unwrap();
    let source = target.join("selftests/proc").join(format!("{name}.c"));
    assert!(
        source.exists(),
        "{} is missing: `cargo xtask setup` unpacks it",
        source.display()
    );
    let program = dir.join(name);
    let built = Command::new("cc")
        .args(["-O2", "-static", "-D_GNU_SOURCE", "-o"])
        .args([&program, &source])
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    program
}

/// A test of the kernel ends with 0 when it has passed.
#[track_caller]
fn passes(name: &str) {
    let scene = scene();
    let program = build(scene.dir(), name).display().to_string();
    // With one CPU neither of the numbers of /proc/uptime gets a digit more while the container is younger than 10 s.
    scene
        .eci_fs(&["run", "--cpus", "1", "--", program.as_str()])
        .ok();
}

#[test]
fn privileged_the_kernels_test_finds_an_uptime_that_never_falls() {
    passes("proc-uptime-001");
}

#[test]
fn privileged_the_kernels_test_finds_an_uptime_that_never_falls_on_whichever_cpu_it_is_read() {
    passes("proc-uptime-002");
}

#[test]
fn privileged_the_kernels_test_can_read_and_list_everything_in_proc() {
    passes("read");
}
