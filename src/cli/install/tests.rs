//! Installations in temporary file systems, and configurations that are refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::*;

/// Returns a root directory, with this configuration of the engine if there is one.
fn root(engine: Engine, text: Option<&str>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir
        .path()
        .join(engine.config_files()[0].path().trim_start_matches('/'));
    if let Some(text) = text {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    (dir, file)
}

fn target(engine: Engine, root: &Path) -> Target {
    Target {
        engine,
        dry_run: false,
        root: root.to_owned(),
    }
}

fn options(engine: Engine, root: &Path) -> Install {
    Install {
        target: target(engine, root),
        default_runtime: false,
        bin_dir: Some("/opt/eci/bin".into()),
    }
}

/// Installs, and prints as the command does.
fn install(options: &Install) -> Result<()> {
    super::install(options, &mut Output::default())
}

/// Uninstalls, and prints as the command does.
fn uninstall(options: &Uninstall) -> Result<()> {
    super::uninstall(options, &mut Output::default())
}

fn uninstall_all(engine: Engine, root: &Path) -> Result<()> {
    uninstall(&Uninstall {
        target: target(engine, root),
    })
}

/// Returns all files below a directory, with their contents.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(std::result::Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    all.sort();
    all
}

const DOCKER: &[&str] = &[
    "",
    "{}",
    "{}\n",
    "{\n  \"log-driver\": \"local\",\n  \"default-runtime\": \"runc\"\n}",
    "{\n\t\"runtimes\": {\n\t\t\"crun\": { \"path\": \"/usr/bin/crun\", \"runtimeArgs\": [\"--debug\"] }\n\t}\n}\n",
    "{\"z\":1,\"a\":{\"runtimes\":[]},   \"max-concurrent-downloads\" : 3}",
    "{\n    \"runtimes\": {},\n    \"storage-driver\": \"überlay\"\n}\n",
];

const CONTAINERD: &[&str] = &[
    "version = 2\n",
    "# ours\nversion = 2 # two\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      bin_dir = \"/usr/lib/cni\"\n  [plugins.\"io.containerd.internal.v1.opt\"]\n    path = \"/var/lib/containerd/opt\"\n",
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  default_runtime_name = \"runc\" # the usual\n  [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes]\n    # comment\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n      # what it is\n      runtime_type = \"io.containerd.runc.v2\"\n      [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n        SystemdCgroup = true\n[metrics]\n  address = \"\"\n",
    "version = 3\nroot = '/data'\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n",
];

/// Returns the engines, each with configurations that it may have already.
fn cases() -> Vec<(Engine, Option<&'static str>)> {
    let mut all: Vec<(Engine, Option<&str>)> = vec![
        (Engine::Docker, None),
        (Engine::Containerd, None),
        (Engine::Podman, None),
        (Engine::Crio, None),
    ];
    all.extend(DOCKER.iter().map(|text| (Engine::Docker, Some(*text))));
    all.extend(
        CONTAINERD
            .iter()
            .map(|text| (Engine::Containerd, Some(*text))),
    );
    all
}

#[test]
fn what_is_installed_is_taken_back_to_the_byte() {
    for (engine, text) in cases() {
        for default in [false, true] {
            let (dir, file) = root(engine, text);
            let before = files(dir.path());
            let mut options = options(engine, dir.path());
            options.default_runtime = default && engine.has_default_runtime();
            install(&options).unwrap();
            let installed = fs::read_to_string(&file).unwrap();
            let installation = engine.config_files()[0]
                .installed(&installed)
                .unwrap()
                .unwrap();
            assert_eq!(installation.bin_dir, "/opt/eci/bin");
            assert_eq!(installation.default, options.default_runtime, "{installed}");
            uninstall_all(engine, dir.path()).unwrap();
            assert_eq!(files(dir.path()), before, "{engine:?} {text:?} {installed}");
        }
    }
}

#[test]
fn installing_twice_is_installing_once_and_a_choice_is_kept() {
    for (engine, text) in cases() {
        let (dir, _) = root(engine, text);
        let mut options = options(engine, dir.path());
        options.default_runtime = engine.has_default_runtime();
        install(&options).unwrap();
        let once = files(dir.path());
        install(&options).unwrap();
        assert_eq!(files(dir.path()), once, "{engine:?} {text:?}");
        options.default_runtime = false;
        install(&options).unwrap();
        assert_eq!(files(dir.path()), once, "{engine:?} {text:?}");
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    for (engine, text) in cases() {
        let (dir, _) = root(engine, text);
        let before = files(dir.path());
        let mut options = options(engine, dir.path());
        options.target.dry_run = true;
        install(&options).unwrap();
        assert_eq!(files(dir.path()), before);
        options.target.dry_run = false;
        install(&options).unwrap();
        let installed = files(dir.path());
        let mut target = target(engine, dir.path());
        target.dry_run = true;
        uninstall(&Uninstall { target }).unwrap();
        assert_eq!(files(dir.path()), installed);
    }
}

#[test]
fn programs_that_have_moved_are_installed_anew_and_the_way_back_is_kept() {
    for (engine, text) in cases() {
        let (dir, file) = root(engine, text);
        let before = files(dir.path());
        let mut options = options(engine, dir.path());
        install(&options).unwrap();
        options.bin_dir = Some("/usr/bin/".into());
        install(&options).unwrap();
        let installed = fs::read_to_string(&file).unwrap();
        assert!(!installed.contains("/opt/eci"), "{installed}");
        assert!(installed.contains("\"/usr/bin/eci-"), "{installed}");
        uninstall_all(engine, dir.path()).unwrap();
        assert_eq!(files(dir.path()), before, "{engine:?} {text:?}");
    }
}

#[test]
fn what_others_write_after_us_stays() {
    let (dir, file) = root(
        Engine::Docker,
        Some(r#"{"debug": true, "default-runtime": "runc"}"#),
    );
    let mut options = options(Engine::Docker, dir.path());
    options.default_runtime = true;
    install(&options).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("true", "false")).unwrap();
    uninstall_all(Engine::Docker, dir.path()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(
        text,
        "{\n  \"debug\": false,\n  \"default-runtime\": \"runc\"\n}"
    );

    let (dir, file) = root(Engine::Containerd, Some(CONTAINERD[2]));
    options.target = target(Engine::Containerd, dir.path());
    install(&options).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("address = \"\"", "address = \"[::1]:9\""),
    )
    .unwrap();
    uninstall_all(Engine::Containerd, dir.path()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(
        text,
        CONTAINERD[2].replace("address = \"\"", "address = \"[::1]:9\"")
    );
    assert_eq!(files(dir.path()).len(), 1, "the copy is of no use any more");
}

#[test]
fn without_anything_installed_uninstall_changes_nothing() {
    for (engine, text) in cases() {
        let (dir, _) = root(engine, text);
        let before = files(dir.path());
        uninstall_all(engine, dir.path()).unwrap();
        assert_eq!(files(dir.path()), before);
    }
    let other = "{\"runtimes\": {\"eci\": {\"path\": \"/bin/other\"}}}";
    let (dir, file) = root(Engine::Docker, Some(other));
    uninstall_all(Engine::Docker, dir.path()).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), other);
}

#[test]
fn mode_and_owner_of_the_file_stay_and_those_of_the_copy_are_the_same() {
    let (dir, file) = root(Engine::Docker, Some("{}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    install(&options(Engine::Docker, dir.path())).unwrap();
    let owner = fs::metadata(dir.path()).unwrap().uid();
    for (path, _) in files(dir.path()) {
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o600, "{}", path.display());
        assert_eq!(found.uid(), owner);
    }
    assert_eq!(files(dir.path()).len(), 2);
}

#[test]
fn the_runtime_of_containerd_is_like_the_stock_one() {
    let (dir, file) = root(Engine::Containerd, Some(CONTAINERD[2]));
    install(&options(Engine::Containerd, dir.path())).unwrap();
    let text = fs::read_to_string(file).unwrap();
    let ours = "\
    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.eci]
      runtime_type = \"io.containerd.runc.v2\"

      [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.eci.options]
        SystemdCgroup = true
        BinaryName = \"/opt/eci/bin/eci-runc\"
[metrics]";
    assert!(text.contains(ours), "{text}");
}

#[test]
fn containerd_keeps_its_stock_runtime_where_the_file_named_none() {
    let (dir, file) = root(Engine::Containerd, None);
    install(&options(Engine::Containerd, dir.path())).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(
        text,
        "version = 2\n\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.eci]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.eci.options]\n\
         BinaryName = \"/opt/eci/bin/eci-runc\"\n"
    );
    fs::write(&file, format!("# mine\n{text}")).unwrap();
    uninstall_all(Engine::Containerd, dir.path()).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "# mine\nversion = 2\n");
}

#[test]
fn the_files_of_podman_and_crio_are_what_these_programs_read() {
    let (dir, file) = root(Engine::Podman, None);
    install(&options(Engine::Podman, dir.path())).unwrap();
    let hook: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(
        hook["hook"]["args"],
        serde_json::json!(["eci-fs", "hook", "createRuntime"])
    );
    assert_eq!(files(dir.path()).len(), 2);

    let (dir, file) = root(Engine::Crio, None);
    let mut options = options(Engine::Crio, dir.path());
    options.default_runtime = true;
    install(&options).unwrap();
    assert_eq!(
        fs::read_to_string(file).unwrap(),
        "[crio.runtime]\ndefault_runtime = \"eci\"\n\n[crio.runtime.runtimes.eci]\n\
         runtime_path = \"/opt/eci/bin/eci-runc\"\nruntime_type = \"oci\"\n\
         runtime_root = \"/run/eci-runc\"\n"
    );
}

#[test]
fn a_configuration_that_is_wrong_or_taken_is_refused_and_left() {
    let docker = Engine::Docker;
    let containerd = Engine::Containerd;
    for (engine, text, word) in [
        (docker, "{", "daemon.json: this is no JSON"),
        (docker, "[]", "no JSON object"),
        (docker, "{\"a\": 1,}", "line 1 column 9"),
        (docker, "{\"runtimes\": []}", "no table of runtimes"),
        (
            docker,
            "{\"runtimes\": {\"eci\": {\"path\": \"/bin/other\"}}}",
            "not ours",
        ),
        (
            docker,
            "{\"runtimes\": {\"eci\": {\"runtimeType\": \"x\"}}}",
            "not ours",
        ),
        (
            docker,
            "{\"runtimes\": {\"eci\": 1}}",
            "no table of runtimes",
        ),
        (docker, "{\"default-runtime\": \"nvidia\"}", "\"nvidia\""),
        (docker, "{\"default-runtime\": 5}", "no longer be used"),
        (
            containerd,
            "version = \n",
            "config.toml: this is no TOML at line 1",
        ),
        (containerd, "version = 2\n\n[a\n", "at line 3"),
        (containerd, "root = 'x'\n", "version 1"),
        (containerd, "version = 9\n", "version 9"),
        (
            containerd,
            "version = 2\nplugins = {}\n",
            "plugins is written in one line",
        ),
        (
            containerd,
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'kata'\n",
            "kata",
        ),
        (
            containerd,
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.eci]\nruntime_type = 'x'\n",
            "not ours",
        ),
        (
            containerd,
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'x'\n",
            "by hand",
        ),
        (Engine::Podman, "{", "no JSON"),
        (
            Engine::Podman,
            "{\"hook\": {\"path\": \"/bin/other\"}}",
            "another program",
        ),
        (Engine::Crio, "[crio]\n", "not ours"),
        (Engine::Crio, "[crio\n", "no TOML"),
    ] {
        let (dir, _) = root(engine, Some(text));
        let before = files(dir.path());
        let mut options = options(engine, dir.path());
        options.default_runtime = engine.has_default_runtime();
        let error = install(&options).unwrap_err().to_string();
        assert!(error.contains(word), "{text:?}: {error}");
        assert_eq!(files(dir.path()), before);
    }
}

#[test]
fn links_that_lead_elsewhere_are_not_followed() {
    let (dir, file) = root(Engine::Docker, Some("{}\n"));
    let elsewhere = dir.path().join("managed.json");
    fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    let error = install(&options(Engine::Docker, dir.path())).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "{}\n");

    let other = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(dir.path().join("etc"), other.path().join("etc")).unwrap();
    let error = install(&options(Engine::Docker, other.path())).unwrap_err();
    assert!(error.to_string().contains("leads out of"), "{error}");
}

#[test]
fn what_cannot_be_read_or_written_is_named() {
    let (dir, file) = root(Engine::Docker, Some("{}"));
    fs::write(&file, b"{\"a\": \"\xff\"}").unwrap();
    let error = install(&options(Engine::Docker, dir.path())).unwrap_err();
    assert!(
        error.to_string().contains("daemon.json is not UTF-8"),
        "{error}"
    );
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let error = install(&options(Engine::Docker, dir.path())).unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
    // A file is at the place of the directory.
    fs::remove_dir(&file).unwrap();
    fs::remove_dir(file.parent().unwrap()).unwrap();
    fs::write(file.parent().unwrap(), "").unwrap();
    let error = install(&options(Engine::Docker, dir.path())).unwrap_err();
    assert!(error.to_string().contains("etc/docker"), "{error}");
    let missing = dir.path().join("missing");
    let error = install(&options(Engine::Docker, &missing)).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let mut options = options(Engine::Docker, dir.path());
    options.bin_dir = Some("bin".into());
    let error = install(&options).unwrap_err();
    assert!(error.to_string().contains("--bin-dir"), "{error}");
}

#[test]
fn podman_needs_no_default_runtime_and_says_so() {
    let (dir, _) = root(Engine::Podman, None);
    let mut options = options(Engine::Podman, dir.path());
    options.default_runtime = true;
    let error = install(&options).unwrap_err();
    assert!(error.to_string().contains("for every container"), "{error}");
    assert_eq!(files(dir.path()), []);
}
