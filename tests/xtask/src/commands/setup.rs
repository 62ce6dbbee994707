//! `cargo xtask setup`: installs what the tests and the tasks need.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::paths::target_dir;
use crate::process::{command, run as run_command};
use crate::vm::{newer_runtimes, said_versions};

/// Debian packages, and what needs them.
const PACKAGES: &[(&str, &str)] = &[
    ("atop", "its figures are read in tests"),
    (
        "bpftrace",
        "is asked for the CPUs that it measures in tests",
    ),
    ("btop", "its screen is read in tests"),
    (
        "btrfs-progs",
        "makes the disks of isolated containers in tests",
    ),
    ("bubblewrap", "an engine that containers are tested with"),
    (
        "busybox-static",
        "root file systems of test containers, and the shell of guests",
    ),
    ("collectl", "its figures are read in tests"),
    ("cpio", "packs the initramfs of guests"),
    ("crun", "an OCI runtime that containers are tested with"),
    (
        "debian-archive-keyring",
        "checks the releases that kernels of guests come from",
    ),
    (
        "default-jdk-headless",
        "Java is asked what it finds in tests",
    ),
    (
        "docker.io",
        "dockerd and docker; containerd comes with it, and is an engine of its own in tests",
    ),
    ("dstat", "its figures are read in tests"),
    ("e2fsprogs", "makes the disks of guests with systemd"),
    ("fio", "is bound to CPUs in tests"),
    (
        "g++",
        "builds the fuzzer, and a program with google-benchmark for tests",
    ),
    ("gcc", "builds a program with libbpf for tests"),
    (
        "golang-github-cilium-ebpf-dev",
        "a program with cilium/ebpf is built for tests",
    ),
    ("golang-go", "builds a program with cilium/ebpf for tests"),
    ("htop", "its screen is read in tests"),
    ("hwloc", "lstopo is asked what it finds in tests"),
    ("i3status", "its figures are read in tests"),
    (
        "kmod",
        "finds the modules that guests need (depmod, modprobe)",
    ),
    (
        "libbenchmark-dev",
        "a program with google-benchmark is built for tests",
    ),
    ("libbpf-dev", "a program with libbpf is built for tests"),
    ("libjemalloc-dev", "is loaded into a program in tests"),
    ("likwid", "likwid-topology is asked what it finds in tests"),
    (
        "linux-perf",
        "is asked for the CPUs that it measures in tests",
    ),
    ("lshw", "is asked what it finds in tests"),
    (
        "linux-source-6.1",
        "the kernel's own tests of /proc are run in a container",
    ),
    ("lxc", "an engine that containers are tested with"),
    ("lxcfs", "the views are compared with its files in tests"),
    ("mmdebstrap", "installs the systems of guests with systemd"),
    (
        "monitoring-plugins-basic",
        "check_load and check_disk are asked for their verdicts in tests",
    ),
    ("netavark", "the networks of podman"),
    ("nmon", "its figures are read in tests"),
    ("nodejs", "Node.js is asked what it finds in tests"),
    ("numactl", "is asked what it finds in tests"),
    ("podman", "an engine that containers are tested with"),
    (
        "procps",
        "free, top, uptime and vmstat read the views in tests",
    ),
    (
        "prometheus-node-exporter",
        "what it exports is read in tests",
    ),
    (
        "python3-grpcio",
        "speaks to containerd in tests as a kubelet does",
    ),
    ("python3-psutil", "is asked what it finds in tests"),
    ("qemu-system-x86", "runs guests with other kernels"),
    ("qps", "its window is opened in tests"),
    ("rt-tests", "cyclictest is bound to CPUs in tests"),
    ("runc", "an OCI runtime that containers are tested with"),
    ("strace", "counts the system calls of the server in tests"),
    ("stress-ng", "is bound to CPUs in tests"),
    ("sysstat", "mpstat, sar and iostat read the views in tests"),
    (
        "systemd",
        "is the init of a container in tests, and sets tunables",
    ),
    ("util-linux", "unshare, nsenter, setpriv, lscpu and lsmem"),
    (
        "valgrind",
        "counts the instructions that rendering a view takes",
    ),
    (
        "xfsprogs",
        "makes the disks of isolated containers in tests",
    ),
    ("xz-utils", "unpacks modules of kernels"),
    ("zabbix-agent", "is asked for the memory in tests"),
    ("zstd", "unpacks modules of kernels"),
];

/// The packages of which the tests need only the programs, and the services that come with them.
const SERVICES: [(&str, &[&str]); 9] = [
    (
        "atop",
        &["atop.service", "atopacct.service", "atop-rotate.timer"],
    ),
    ("collectl", &["collectl.service"]),
    (
        "docker.io",
        &["docker.service", "docker.socket", "containerd.service"],
    ),
    (
        "lxc",
        &["lxc.service", "lxc-net.service", "lxc-monitord.service"],
    ),
    ("lxcfs", &["lxcfs.service"]),
    (
        "podman",
        &[
            "podman.service",
            "podman.socket",
            "podman-auto-update.timer",
            "podman-restart.service",
        ],
    ),
    (
        "prometheus-node-exporter",
        &["prometheus-node-exporter.service"],
    ),
    ("sysstat", &["sysstat.service"]),
    ("zabbix-agent", &["zabbix-agent.service"]),
];

/// The program that packages ask whether they may start services (`invoke-rc.d(8)`).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Subcommands of cargo, and what they are for.
const TOOLS: &[(&str, &str)] = &[
    (
        "deny",
        "checks the licences and the sources of dependencies",
    ),
    (
        "nextest",
        "runs each test in a process of its own, with a time limit",
    ),
];

/// Programs that are no packages of Debian: a crate, the version that the tests were written with, its features, and
/// what needs it. Of youki those that need no library.
const PROGRAMS: &[(&str, &str, &str, &str)] = &[(
    "youki",
    "0.7.0",
    "v1,v2",
    "an OCI runtime that containers are tested with",
)];

/// Installs what is missing, and says so; quick when nothing is.
pub(super) fn run() -> Result<ExitCode> {
    install_packages()?;
    install_tools()?;
    install_programs()?;
    unpack_runtimes()?;
    unpack_selftests()?;
    Ok(ExitCode::SUCCESS)
}

/// Unpacks runc and crun of a newer release below the target directory: those of the host's release know no time
/// namespaces.
fn unpack_runtimes() -> Result<()> {
    let versions = said_versions(&newer_runtimes()?)?;
    println!("setup: {} are unpacked beside", versions.join(" and "));
    Ok(())
}

/// The archive of the package linux-source-6.1, and the folder in it with the kernel's tests of /proc.
const SOURCE: &str = "/usr/src/linux-source-6.1.tar.xz";
const SELFTESTS: &str = "linux-source-6.1/tools/testing/selftests/proc";

/// Unpacks the kernel's tests of /proc below the target directory, and nothing else of the kernel.
fn unpack_selftests() -> Result<()> {
    let dir = target_dir().join("selftests");
    if dir.join("proc/proc.h").exists() {
        return Ok(());
    }
    println!("setup: unpacking {SELFTESTS}");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let depth = SELFTESTS.matches('/').count();
    let mut tar = command("tar");
    tar.args(["--extract", "--xz", "--file", SOURCE, "--directory"]);
    tar.arg(&dir).arg(format!("--strip-components={depth}"));
    run_command(tar.arg(SELFTESTS))
}

/// Installs missing Debian packages.
fn install_packages() -> Result<()> {
    let mut missing = Vec::new();
    for (package, reason) in PACKAGES {
        if !is_installed(package)? {
            println!("setup: {package} is missing ({reason})");
            missing.push(*package);
        }
    }
    if missing.is_empty() {
        println!("setup: all {} packages are there", PACKAGES.len());
        return Ok(());
    }
    let names = missing.join(" ");
    if !geteuid().is_root() {
        bail!(
            "packages are missing; as root, run: apt-get install --no-install-recommends {names}"
        );
    }
    // The index is always updated: an old one names versions that the archive no longer has.
    println!("setup: apt-get update");
    run_command(apt_get().args(["-qq", "update"]))?;
    println!("setup: apt-get install {names}");
    let options = ["-qq", "--yes", "--no-install-recommends", "install"];
    let policy = NoServices::begin()?;
    let installed = run_command(apt_get().args(options).args(&missing));
    drop(policy);
    for (_, services) in SERVICES.iter().filter(|(name, _)| missing.contains(name)) {
        // The services shall not start at the next boot either. Without systemd nothing has been enabled.
        let _ = command("systemctl")
            .args(["--quiet", "disable"])
            .args(*services)
            .status();
    }
    installed
}

/// A policy that no package starts a service. It is removed when this value is dropped.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        // A host that has a policy keeps it.
        let ours = !Path::new(POLICY).exists();
        if ours {
            let not_allowed = "#!/bin/sh\nexit 101\n";
            fs::write(POLICY, not_allowed).with_context(|| format!("cannot write {POLICY}"))?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("cannot make {POLICY} executable"))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("setup: {POLICY} stays behind: {error}");
        }
    }
}

/// Returns a command of apt-get that asks no questions.
fn apt_get() -> std::process::Command {
    let mut apt = command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Returns whether dpkg has unpacked and configured this package.
fn is_installed(package: &str) -> Result<bool> {
    let mut query = command("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    // dpkg-query fails for an unknown package.
    let output = query
        .output()
        .context("cannot start dpkg-query; is this Debian?")?;
    Ok(output.status.success() && output.stdout == b"installed")
}

/// Installs missing subcommands of cargo.
fn install_tools() -> Result<()> {
    let mut missing = false;
    for (tool, reason) in TOOLS {
        let version = command(cargo()).args([tool, "--version"]).output();
        if version.context("cannot start cargo")?.status.success() {
            continue;
        }
        missing = true;
        println!("setup: cargo-{tool} is missing ({reason})");
        cargo_install(&[&format!("cargo-{tool}")])?;
    }
    if !missing {
        println!("setup: all {} tools of cargo are there", TOOLS.len());
    }
    Ok(())
}

/// Installs missing programs, where cargo puts them.
fn install_programs() -> Result<()> {
    for (name, version, features, reason) in PROGRAMS {
        if says(name, version) {
            println!("setup: {name} {version} is there");
            continue;
        }
        println!("setup: {name} {version} is missing ({reason})");
        // The program replaces an older version.
        let choice = ["--no-default-features", "--features", features, "--force"];
        cargo_install(&[&[*name, "--version", version], &choice[..]].concat())?;
    }
    Ok(())
}

/// Returns whether the program that tests find says that it is of this version: one of PATH, or one that cargo has
/// installed.
fn says(name: &str, version: &str) -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    let installed = home.map(|home| home.join("bin").join(name));
    let output = [Some(name.into()), installed]
        .into_iter()
        .flatten()
        .find_map(|program: PathBuf| command(program).arg("--version").output().ok());
    output.is_some_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_whitespace().any(|word| word == version)
    })
}

/// `cargo install` with these arguments.
fn cargo_install(arguments: &[&str]) -> Result<()> {
    println!(
        "setup: cargo install --locked {}, which takes some minutes",
        arguments.join(" ")
    );
    let mut install = command(cargo());
    install.args(["install", "--locked", "--quiet"]);
    install.args(arguments);
    // The artifacts are larger than those of all other builds, and of no use to them.
    install
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    run_command(&mut install)
}

/// Returns the cargo that runs this, or the one on the path.
pub(super) fn cargo() -> std::ffi::OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
