//! The programs that tests need: those of the host, and the probe.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

/// Returns the path of a program that `cargo xtask setup` installs.
///
/// # Panics
/// When it is missing. The message says how to install it.
#[track_caller]
pub fn find(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(usual)
        .chain(of_cargo())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    match found {
        Some(path) => path,
        None => panic!(
            "{name} is not installed: `cargo xtask setup` installs what the tests need \
             (Debian's package for it is {})",
            match name {
                "busybox" => "busybox-static",
                "bwrap" => "bubblewrap",
                "mkfs.btrfs" | "btrfs" => "btrfs-progs",
                "mkfs.xfs" => "xfsprogs",
                other => other,
            }
        ),
    }
}

/// Returns the directory in which `cargo install` puts programs.
fn of_cargo() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.map(|home| home.join("bin"))
}

/// Builds the probe statically, for containers without libraries, in a directory below the target directory `target`.
/// Returns its path. It is built once for all tests.
///
/// # Panics
/// When it cannot be built. The message says why.
#[track_caller]
pub fn probe(target: &Path) -> PathBuf {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let own = target.join("probe");
    let program = own.join(&triple).join("release/probe");
    let must = |what: &str, result: std::io::Result<()>| {
        if let Err(error) = result {
            panic!("the probe cannot be built: {what}: {error}");
        }
    };
    must("creating its directory", fs::create_dir_all(&own));
    let lock = match fs::File::create(own.join("lock")) {
        Ok(file) => file,
        Err(error) => panic!("the probe cannot be built: locking: {error}"),
    };
    flock(&lock, FlockOperation::LockExclusive)
        .unwrap_or_else(|error| panic!("the probe cannot be built: {error}"));

    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let stamp = own.join("built");
    let built = fs::metadata(&stamp).and_then(|stamp| stamp.modified());
    let fresh = program.is_file()
        && built.is_ok_and(|built| {
            newest(&workspace.join("tests/probe")) < built
                && modified(&workspace.join("Cargo.lock")) < built
        });
    if !fresh {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        // Without a target, the flag would also apply to build scripts and procedural macros, which do not support it.
        build
            .args([
                "build",
                "--quiet",
                "--release",
                "--package",
                "probe",
                "--target",
            ])
            .arg(&triple)
            .arg("--target-dir")
            .arg(&own)
            .current_dir(&workspace)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET");
        crate::Ran::run(&mut build).ok();
        must("marking it as built", fs::write(&stamp, ""));
    }
    // The lock is held until here, so that nobody runs a program that is being written.
    let _ = lock.as_fd();
    program
}

/// Returns the time of the latest change below `dir`.
fn newest(dir: &Path) -> SystemTime {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => newest(&entry.path()),
            _ => modified(&entry.path()),
        })
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns the time of the last change of a file. Returns the current time if it is unknown, so that the probe is
/// built.
fn modified(path: &Path) -> SystemTime {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .unwrap_or_else(|_| SystemTime::now())
}
