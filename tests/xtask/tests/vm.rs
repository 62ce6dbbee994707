//! Tests of the virtual machines. They need QEMU, which `cargo xtask setup` installs. The first run fetches the
//! kernels from the Debian archive.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use xtask::vm::{Kernel, Vm, packages};

/// Boots one kernel and checks all properties of a virtual machine.
fn check(kernel: Kernel) -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("given"), "from outside\n")?;
    let script = r"
        uname -r
        cat /etc/given
        cat /sys/fs/cgroup/cgroup.subtree_control
        grep -c /dev/vdb /proc/swaps
        [ -c /dev/fuse ] && echo fuse
        mkdir -p /new && mount -t tmpfs new /new && mkdir /new/old
        unshare -m sh -c 'pivot_root /new /new/old && echo pivoted'
        echo oops >&2
        mkdir /out/folder && echo back > /out/folder/file
        # Whoever is left holds the output open; the machine has to end all the same.
        sleep 1000 &
        exit 7
    ";
    let outcome = Vm::new(kernel)
        .file(dir.path().join("given"), "/etc/given")
        .swap_mib(16)
        .run(script)?;
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let [release, given, controllers, rest @ ..] = &lines[..] else {
        panic!("too little came back: {:?}", outcome.stdout);
    };
    assert_eq!(outcome.status, 7);
    assert!(release.starts_with(&format!("{kernel}.")), "{release}");
    assert_eq!(*given, "from outside");
    for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
        assert!(
            controllers.split(' ').any(|name| name == controller),
            "{controllers}"
        );
    }
    assert_eq!(rest, ["1", "fuse", "pivoted"]);
    assert_eq!(outcome.stderr, "oops\n");
    assert_eq!(
        fs::read_to_string(outcome.out().join("folder/file"))?,
        "back\n"
    );
    Ok(())
}

#[test]
fn a_machine_with_the_oldest_kernel_runs_a_script_and_hands_back_what_it_made() -> Result<()> {
    check(Kernel::V5_10)
}

#[test]
fn a_machine_with_the_newest_kernel_runs_a_script_and_hands_back_what_it_made() -> Result<()> {
    check(Kernel::V6_12)
}

#[test]
fn a_machine_that_does_not_end_is_ended_and_reported() {
    let vm = Vm::new(Kernel::V6_1).timeout(Duration::from_secs(1));
    let error = format!("{:#}", vm.run("sleep 1000").unwrap_err());
    assert!(error.contains("kernel 6.1 did not"), "{error}");
    assert!(error.contains("all it said is in"), "{error}");
}

#[test]
fn a_machine_that_panics_is_reported_with_the_panic() {
    let error = Vm::new(Kernel::V6_1)
        .run("echo c > /proc/sysrq-trigger")
        .unwrap_err();
    assert!(format!("{error:#}").contains("Kernel panic"), "{error:#}");
}

#[test]
fn a_file_that_the_guest_would_hide_is_refused() {
    let vm = Vm::new(Kernel::V6_1).file("/etc/passwd", "/proc/passwd");
    assert!(format!("{:#}", vm.run("true").unwrap_err()).contains("hidden by /proc"));
}

#[test]
fn packages_of_another_release_are_unpacked_once() -> Result<()> {
    let root = packages(Kernel::V6_12, &["hostname", "netbase"])?;
    assert!(root.join("usr/bin/hostname").exists(), "{}", root.display());
    assert!(root.join("etc/protocols").exists(), "{}", root.display());
    let made = fs::metadata(&root)?.modified()?;
    assert_eq!(
        packages(Kernel::V6_12, &["hostname", "netbase"])?,
        root,
        "another folder"
    );
    assert_eq!(fs::metadata(&root)?.modified()?, made, "fetched twice");
    Ok(())
}

#[test]
fn a_package_that_is_none_is_refused_before_anything_is_fetched() {
    for name in ["", "../lxcfs", "--version", "lxcfs/sid"] {
        let error = packages(Kernel::V6_12, &[name]).unwrap_err();
        assert!(
            format!("{error:#}").contains("no name of a package"),
            "{name}"
        );
    }
}
