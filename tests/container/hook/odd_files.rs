//! A bundle whose config.json is no file that ends.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::{Ran, Scene};

use crate::scene;

/// The result of a hook whose bundle is `dir`.
fn hook(scene: &Scene, dir: &Path) -> Ran {
    let state = serde_json::json!({ "id": "odd", "pid": std::process::id(), "bundle": dir });
    let mut hook = scene.start(&["hook", "--timeout", "2"]);
    let mut input = hook.child().stdin.take().unwrap();
    input.write_all(state.to_string().as_bytes()).unwrap();
    drop(input);
    hook.wait()
}

#[test]
fn privileged_a_hook_reads_no_configuration_that_is_no_file_or_has_no_end() {
    let scene = scene();
    let bundle = |name: &str| {
        let dir = scene.dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    };
    let fifo = bundle("fifo");
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&fifo.join("config.json"), mode).unwrap();
    hook(&scene, &fifo).refused(&["config.json", "no regular file"]);
    let endless = bundle("endless");
    symlink("/dev/zero", endless.join("config.json")).unwrap();
    hook(&scene, &endless).refused(&["config.json", "no regular file"]);
    let huge = bundle("huge");
    let file = std::fs::File::create(huge.join("config.json")).unwrap();
    file.set_len(1 << 40).unwrap();
    hook(&scene, &huge).refused(&["config.json", "more than"]);
}

#[test]
fn privileged_a_runtime_reads_no_configuration_that_is_no_file() {
    let scene = scene();
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&scene.dir().join("config.json"), mode).unwrap();
    let dir = scene.dir().to_string_lossy().into_owned();
    let ran = scene.eci_fs(&["runtime", "create", "--bundle", &dir, "odd"]);
    ran.refused(&["config.json", "no regular file"]);
}

#[test]
fn privileged_a_hook_ends_in_time_though_its_input_does_not() {
    let scene = scene();
    let mut hook = scene.start(&["hook", "--timeout", "1"]);
    // Held open until the hook has ended.
    let input = hook.child().stdin.take();
    hook.wait()
        .refused(&["did not write the whole state in time"]);
    drop(input);
}
