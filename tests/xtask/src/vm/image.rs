//! The images that a guest boots from: an initramfs with busybox and the modules, and a disk that holds the files of
//! the guest as a tar archive.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::kernel::KernelFiles;
use crate::process::{command, output};

/// The static shell and tools of the guest.
const BUSYBOX: &str = "/bin/busybox";

/// The modules of every guest: for its disks and ports, FUSE, and overlayfs for OCI engines.
const MODULES: [&str; 5] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "fuse",
    "overlay",
];

/// Makes the initramfs at `path`.
pub(super) fn initramfs(
    kernel: &KernelFiles,
    modules: &[String],
    dir: &Path,
    path: &Path,
) -> Result<()> {
    let tree = dir.join("initramfs");
    for sub in ["bin", "dev", "modules", "proc", "root", "sys"] {
        let path = tree.join(sub);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    install_busybox(&tree.join("bin"))?;
    write_script(&tree.join("init"), include_str!("initramfs.sh"))?;

    let mut files: Vec<PathBuf> = Vec::new();
    for module in MODULES
        .into_iter()
        .chain(modules.iter().map(String::as_str))
    {
        for file in kernel.module(module)? {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    for (index, file) in files.iter().enumerate() {
        // The shell expands names in order, so the number is the order of insertion.
        insert_module(file, &tree.join("modules"), index)?;
    }
    pack_cpio(&tree, path)
}

/// Makes the disk at `path`: a tar archive with `script`, `files`, and what a guest has that is no system of its own.
pub(super) fn files_disk(
    script: &str,
    files: &[(PathBuf, PathBuf)],
    system: bool,
    dir: &Path,
    path: &Path,
) -> Result<()> {
    let tree = dir.join("files");
    let vm = tree.join("vm");
    fs::create_dir_all(&vm).with_context(|| format!("cannot make {}", vm.display()))?;
    write_script(&vm.join("command"), script)?;
    if system {
        write_script(&vm.join("init"), include_str!("system.sh"))?;
        fs::write(vm.join("eci-vm.service"), include_str!("system.service"))?;
    } else {
        write_script(&vm.join("init"), include_str!("init.sh"))?;
        small_system(&tree)?;
    }
    for (source, destination) in files {
        place(source, &tree, destination)?;
    }
    let mut tar = command("tar");
    tar.args([
        "--create",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ]);
    tar.arg("--file")
        .arg(path)
        .arg("--directory")
        .arg(&tree)
        .arg(".");
    output(&mut tar)?;
    Ok(())
}

/// Writes the tools and the users of a guest that has no system of its own.
fn small_system(tree: &Path) -> Result<()> {
    for sub in ["bin", "etc"] {
        let path = tree.join(sub);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    install_busybox(&tree.join("bin"))?;
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(tree.join("etc/group"), "root:x:0:\n")?;
    Ok(())
}

/// Puts one file or folder at its place in the tree of the guest.
fn place(source: &Path, tree: &Path, destination: &Path) -> Result<()> {
    let below = destination.strip_prefix("/").ok();
    let below = below.filter(|path| {
        let mut components = path.components();
        path.file_name().is_some() && components.all(|part| matches!(part, Component::Normal(_)))
    });
    let Some(below) = below else {
        bail!(
            "{} is no absolute path of a file in the guest",
            destination.display()
        );
    };
    for hidden in ["proc", "sys", "dev"] {
        if below.starts_with(hidden) {
            bail!(
                "{} would be hidden by /{hidden} of the guest",
                destination.display()
            );
        }
    }
    let target = tree.join(below);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    // Through cp: it makes sparse, reflinked copies and takes folders. Links are followed, since
    // what they point to is not in the guest.
    let mut copy = command("cp");
    copy.args([
        "--recursive",
        "--dereference",
        "--preserve=mode",
        "--remove-destination",
    ]);
    output(copy.arg("--no-target-directory").arg(source).arg(&target))?;
    Ok(())
}

/// Installs busybox, and a link for each of its tools.
fn install_busybox(bin: &Path) -> Result<()> {
    fs::copy(BUSYBOX, bin.join("busybox")).with_context(|| {
        format!("cannot copy {BUSYBOX}; `cargo xtask setup` installs busybox-static")
    })?;
    for applet in output(command(BUSYBOX).arg("--list"))?.lines() {
        if applet != "busybox" {
            symlink("busybox", bin.join(applet))
                .with_context(|| format!("cannot link {applet} in {}", bin.display()))?;
        }
    }
    Ok(())
}

/// Writes an executable script.
fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Copies one module, unpacked: insmod of busybox does not know every compression.
fn insert_module(file: &Path, dir: &Path, index: usize) -> Result<()> {
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let unpacker = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => Some("xz"),
        Some("zst") => Some("zstd"),
        Some("gz") => Some("gzip"),
        _ => None,
    };
    let stem = name.split('.').next().unwrap_or_default();
    let target = dir.join(format!("{index:02}-{stem}.ko"));
    let Some(unpacker) = unpacker else {
        fs::copy(file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
        return Ok(());
    };
    let out = File::create(&target).with_context(|| format!("cannot make {}", target.display()))?;
    let mut unpack = command(unpacker);
    unpack
        .args(["--decompress", "--stdout"])
        .arg(file)
        .stdout(Stdio::from(out));
    crate::process::run(&mut unpack)
}

/// Packs a folder in the format that the kernel unpacks.
fn pack_cpio(tree: &Path, path: &Path) -> Result<()> {
    let names = output(command("find").arg(".").current_dir(tree))?;
    let out = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut cpio = command("cpio");
    cpio.args(["--quiet", "--create", "--format=newc", "--owner=0:0"])
        .current_dir(tree);
    let mut child = cpio
        .stdin(Stdio::piped())
        .stdout(out)
        .spawn()
        .context("cannot start cpio")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(names.as_bytes())
            .context("cpio ended before it had read all names")?;
    }
    let status = child.wait().context("cannot wait for cpio")?;
    if !status.success() {
        bail!("cpio could not pack {} ({status})", tree.display());
    }
    Ok(())
}
