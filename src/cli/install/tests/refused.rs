//! Configurations and options that are refused. A refusal changes nothing.

use super::*;

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
