//! The image of the tests, made without a registry: busybox with all its names, and the probe. Its default command
//! waits, so it serves as the pause image of pods too.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::write;
use crate::{Ran, Scene, find_program};

/// The name of the image.
pub const IMAGE: &str = "localhost/eci-test:1";

/// An archive in the format of `docker save`, which all engines load.
#[derive(Debug)]
pub struct Image {
    /// The path of the archive.
    pub archive: PathBuf,
    /// The root file system in the image.
    pub root: PathBuf,
}

impl Image {
    /// Makes the image in the directory of the scene.
    ///
    /// # Panics
    /// When a program is missing.
    #[track_caller]
    pub fn build(scene: &Scene) -> Self {
        let root = scene.root().to_owned();
        let busybox = root.join("bin/busybox");
        let names = Ran::run(Command::new(&busybox).arg("--list")).ok();
        for name in names.lines().filter(|name| *name != "busybox") {
            let link = root.join("bin").join(name);
            if let Err(error) = std::os::unix::fs::symlink("busybox", &link)
                && error.kind() != std::io::ErrorKind::AlreadyExists
            {
                panic!("{} cannot be made: {error}", link.display());
            }
        }
        let dir = scene.dir().join("image");
        write(&root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n");
        write(&root.join("etc/group"), "root:x:0:\n");
        let layer = dir.join("layer.tar");
        write(&layer, "");
        tar(&layer, &root, &["."]);
        let sum = Ran::run(Command::new("sha256sum").arg(&layer)).ok();
        let sum = sum.split(' ').next().unwrap_or_default();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "1000000"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
        });
        let manifest = json!([{
            "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"],
        }]);
        write(&dir.join("config.json"), &config.to_string());
        write(&dir.join("manifest.json"), &manifest.to_string());
        let archive = scene.dir().join("image.tar");
        tar(
            &archive,
            &dir,
            &["manifest.json", "config.json", "layer.tar"],
        );
        Self { archive, root }
    }
}

/// Packs the files of a directory.
#[track_caller]
fn tar(archive: &Path, dir: &Path, files: &[&str]) {
    let mut tar = Command::new(find_program("tar"));
    tar.arg("--create").arg("--file").arg(archive);
    tar.args(["--owner=0", "--group=0", "--directory"]).arg(dir);
    Ran::run(tar.args(files)).ok();
}
