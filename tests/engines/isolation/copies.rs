//! `podman cp`, and what does instead where it cannot work.

use std::fs;
use std::time::Instant;

use support::engines::{CommandLine, Podman};
use support::{PATIENCE, Ran};

use super::configuration;
use super::ids::program;
use crate::host::Host;
use crate::scene;

#[test]
fn privileged_podman_copies_out_of_a_running_container_and_into_its_mount() {
    let scene = scene();
    let host = Host::new(&scene);
    let config = configuration(&scene, "");
    let program = program(&host, &scene, &config, "runc");
    let podman = Podman::start(&scene, None);
    let option = format!("--runtime={program}");
    let script = "mkdir /srv; echo out >/srv/out; while :; do sleep 1; done";
    let run = ["--detach", "--name=one", &option];
    podman.run(&run, &["sh", "-c", script]).ok();
    let exec = |script: &str| podman.call(&["exec", "one", "sh", "-ec", script]).ok();
    exec("until test -e /srv/out; do :; done");
    let file = scene.dir().join("file").display().to_string();
    podman.call(&["cp", "one:/srv/out", &file]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), "out\n");
    let ran = podman.call(&["cp", &file, "one:/srv/in"]);
    assert!(
        ran.code != Some(0) && ran.stderr.contains("value too large"),
        "{ran:?}"
    );
    let mounted = podman.call(&["mount", "one"]).ok();
    let mounted = std::path::Path::new(mounted.trim());
    Ran::run(
        std::process::Command::new("cp")
            .arg(&file)
            .arg(mounted.join("srv/in")),
    )
    .ok();
    let end = Instant::now() + PATIENCE;
    while podman.call(&["exec", "one", "cat", "/srv/in"]).stdout != "out\n" {
        assert!(Instant::now() < end, "the container does not see the file");
    }
    assert_eq!(exec("stat -c %u:%g /srv/in"), "0:0\n");
    podman.call(&["umount", "one"]).ok();
    podman.call(&["stop", "--time=0", "one"]).ok();
    podman.call(&["cp", &file, "one:/srv/stopped"]).ok();
    podman.call(&["start", "one"]).ok();
    assert_eq!(exec("cat /srv/stopped"), "out\n");
    podman.call(&["rm", "--force", "--time=0", "one"]).ok();
}
