//! The configuration of the host: all programs refuse the same files, with the same words.

use std::path::PathBuf;

use support::{Bundle, Container, Engine, Ran, Scene, cpu_list};

use crate::{limits, scene, sees};

/// Writes a configuration, and returns its path.
fn write(scene: &Scene, text: &str) -> String {
    let path = scene.dir().join("config.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs a command for which `ECI_FS_CONFIG` names the configuration.
fn with_variable(scene: &Scene, config: &str, arguments: &[&str]) -> Ran {
    Ran::run(scene.command(arguments).env("ECI_FS_CONFIG", config))
}

/// Asserts that the daemon, the hook, the runtime, a command with a daemon of its own and doctor all refuse this
/// configuration, and say this.
fn all_refuse(scene: &Scene, config: &str, sentence: &str) {
    let option = |words: &[&str]| scene.eci_fs(&[words, &["--config", config]].concat());
    let by_variable = |words: &[&str]| with_variable(scene, config, words);
    for (ran, prefix) in [
        (option(&["mountd"]), "eci-mountd: "),
        (by_variable(&["mountd"]), "eci-mountd: "),
        (option(&["hook", "createRuntime"]), "eci-fs: hook: "),
        (by_variable(&["hook", "createRuntime"]), "eci-fs: hook: "),
        (
            scene.eci_fs(&["runtime", "--", "--eci-config", config, "state", "x"]),
            "eci-runc: ",
        ),
        (by_variable(&["runtime", "--", "state", "x"]), "eci-runc: "),
        (by_variable(&["run", "--", "/bin/true"]), "eci-fs: "),
    ] {
        ran.refused(&[]);
        let last = ran.stderr.trim_end().lines().last().unwrap();
        assert!(last.starts_with(&format!("{prefix}{sentence}")), "{ran:?}");
    }
    for ran in [option(&["doctor"]), by_variable(&["doctor"])] {
        assert_eq!(ran.code, Some(1));
        let found = format!("configuration\n  WRONG  {sentence}");
        assert!(ran.stdout.contains(&found), "{found}: {ran:?}");
    }
    assert_eq!(scene.daemon_pid(), None);
}

#[test]
fn privileged_every_program_refuses_an_unknown_key_and_a_wrong_value_with_the_same_words() {
    let scene = scene();
    for (text, reason) in [
        (
            "[hook]\non-error = \"maybe\"\n",
            "line 2: unknown variant `maybe`, expected `fail` or `ignore`",
        ),
        (
            "foo = 1\n",
            "line 1: unknown field `foo`, expected one of `views`, `server`, `hook`, `runtime`, `isolation`, `raise`",
        ),
        (
            "# of the daemon\n[daemon]\nfreshness = 10\n",
            "line 2: unknown field `daemon`, expected one of `views`, `server`, `hook`, `runtime`, `isolation`, `raise`",
        ),
        (
            "[raise]\n\"/proc/sys/fs/nr_open\" = 0\n",
            "line 2: in [raise], /proc/sys/fs/nr_open is 0, and must be 1 to 2147483584",
        ),
    ] {
        let config = write(&scene, text);
        all_refuse(&scene, &config, &format!("{config}: {reason}"));
    }
}

#[test]
fn privileged_a_configuration_that_is_named_must_exist() {
    let scene = scene();
    let config = scene.dir().join("none.toml").display().to_string();
    let sentence = format!("cannot read the configuration {config}: No such file or directory");
    all_refuse(&scene, &config, &sentence);
}

#[test]
fn privileged_a_reload_with_a_wrong_file_changes_nothing_and_says_so() {
    let scene = scene();
    let config = write(&scene, "[views]\ncpu-ids = \"physical\"\n");
    let mut daemon = scene.daemon(&["--config", &config]);
    let server = daemon.server();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    write(&scene, "[views]\ncpu-ids = \"dense\"\nfreshness = -1\n");
    let sentence = format!("the daemon that runs goes on: {config}: line 3: invalid value");
    scene.eci_fs(&["upgrade"]).refused(&[&sentence]);
    daemon.wait_for(&sentence);
    assert_eq!(scene.daemon_pid(), Some(daemon.pid()));
    assert_eq!(daemon.server(), server);
    sees(&mut container, 128, 1);
    scene.detach(&container);
    daemon.end();
}

#[test]
fn privileged_a_reload_gives_the_views_of_the_configuration_to_containers_that_run() {
    let scene = scene();
    let config = write(&scene, "");
    let daemon = scene.daemon(&["--config", &config]);
    let limits = support::Limits {
        cpuset: Some("1"),
        ..limits(128, 1.0)
    };
    let mut container = scene.container().limits(limits).start();
    let mut with_quota = scene.container().limits(crate::limits(96, 1.0)).start();
    scene.attach(&container);
    scene.attach(&with_quota);
    let host = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let mounts = container.mounts();
    for (text, id, ignores_quota) in [
        ("cpu-ids = \"dense\"", 0, false),
        ("cpu-ids = \"dense\"\nfreshness = 0", 0, false),
        ("cpu-quota = \"ignore\"\nfreshness = 0", 1, true),
        ("cpu-quota = \"ignore\"", 1, true),
        ("freshness = 100", 1, false),
    ] {
        write(&scene, &format!("[views]\n{text}\n"));
        scene.eci_fs(&["upgrade"]).ok();
        sees(&mut container, 128, 1);
        let online = container.read("/sys/devices/system/cpu/online");
        assert_eq!(cpu_list(&online), [id], "{text}");
        let online = with_quota.read("/sys/devices/system/cpu/online");
        let all = cpu_list(&host).len();
        let expected = if ignores_quota { all } else { 1 };
        assert_eq!(cpu_list(&online).len(), expected, "{text}");
        assert_eq!(container.mounts(), mounts);
    }
    scene.detach(&container);
    crate::upgrade::end(&scene, rustix::process::Signal::TERM);
    drop(daemon);
}

#[test]
fn privileged_an_option_of_the_daemon_overrides_the_configuration() {
    let scene = scene();
    let config = write(&scene, "[views]\ncpu-ids = \"physical\"\nfreshness = 50\n");
    let options = ["--config", &config, "--dense-cpu-ids", "--freshness", "0"];
    let daemon = scene.daemon(&options);
    let limits = support::Limits {
        cpuset: Some("1"),
        ..limits(128, 1.0)
    };
    let mut container = scene.container().limits(limits).start();
    scene.attach(&container);
    let online = container.read("/sys/devices/system/cpu/online");
    assert_eq!(online.trim(), "0");
    drop(container);
    daemon.end();
}

#[test]
fn privileged_the_hook_of_a_runtime_reads_a_configuration_that_a_relative_path_names() {
    let scene = scene();
    let run: PathBuf = scene.runtime_dir();
    write(
        &scene,
        &format!("[hook]\nruntime-dir = {run:?}\nstart = true\n"),
    );
    let mut bundle = Bundle::new(&scene, Engine::Crun, &limits(192, 0.5), false);
    let program = scene.program().to_str().unwrap();
    let real = support::find_program("crun").display().to_string();
    // The runtime is called in the directory of the test, and calls its hook in that of the bundle.
    let here = std::env::current_dir().unwrap();
    let up = "../".repeat(here.components().count() - 1);
    let relative = format!("{up}{}", &scene.dir().display().to_string()[1..]);
    let relative = format!("{relative}/config.toml");
    let options = ["--eci-runtime-path", &real, "--eci-config", &relative];
    bundle.wrap(&[&[program, "runtime", "--"], &options[..]].concat());
    let mut container = Container::of_bundle(bundle);
    sees(&mut container, 192, 1);
    drop(container);
    scene.note_background();
}
