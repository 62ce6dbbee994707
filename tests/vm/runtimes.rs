//! runc and crun by themselves on cgroup v2 alone, with hooks in config.json and by `eci-runc`.

use std::time::Duration;

use serde_json::json;
use support::{Bundle, Engine, Limits, Scene, find_program};
use xtask::vm::{Kernel, Vm};

use crate::engines::with_programs;

/// Runs containers of both in each way, and prints a line for each.
const SCRIPT: &str = concat!(include_str!("prelude.sh"), include_str!("runtimes.sh"));

#[test]
fn privileged_runc_and_crun_show_their_limits_on_cgroup_v2_with_linux_6_12() {
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let vm = Vm::new(Kernel::V6_12)
        .memory_mib(2048)
        .timeout(Duration::from_secs(400))
        .file(crate::static_programs().join("eci-fs"), "/bin/eci-fs")
        .file(find_program("busybox"), "/rootfs/bin/busybox")
        .file(configs(&scene), "/configs");
    let outcome = match with_programs(vm, &["runc", "crun"]).run(SCRIPT) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{error:#}"),
    };
    println!("ended after {:.1} s", outcome.ended_after.as_secs_f64());
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.status, 0, "{said}");
    let mut wanted = vec!["left: none".to_owned()];
    for engine in ["runc", "crun"] {
        for way in ["hook", "eci-runc", "-user hook", "-user eci-runc"] {
            let name = format!("{engine} {way}").replace(" -", "-");
            wanted.push(format!("{name}: 131072 kB, 1 CPU"));
            wanted.push(format!("{name} exec after update: 196608 kB, 2 CPU"));
            wanted.push(format!("{name} code: 7"));
        }
        wanted.push(format!("{engine} at once: 10, each its own"));
        wanted.push(format!("{engine}: as without, 21 steps"));
    }
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for wanted in wanted {
        assert!(lines.contains(&wanted.as_str()), "{wanted}: {said}");
    }
}

/// A folder of configurations of 128 MiB and half a CPU: with hooks and without, with a user namespace and without.
/// The script puts a name for `@NAME@`.
#[track_caller]
fn configs(scene: &Scene) -> std::path::PathBuf {
    let dir = scene.dir().join("configs");
    let made = std::fs::create_dir(&dir);
    assert!(made.is_ok(), "{made:?}");
    let limits = Limits {
        memory: Some(128 << 20),
        swap: Some(0),
        cpus: Some(0.5),
        ..Limits::default()
    };
    for (user, suffix) in [(false, ""), (true, "-user")] {
        let mut config = Bundle::new(scene, Engine::Runc, &limits, user).config();
        config["root"]["path"] = json!("/rootfs");
        config["linux"]["cgroupsPath"] = json!("/@NAME@");
        config["process"]["args"] = json!(["/bin/sh", "/jobs/@NAME@"]);
        let hook = |stage: &str| json!([{ "path": "/bin/eci-fs", "args": ["eci-fs", "hook", "--timeout", "100", stage] }]);
        let mut hooked = config.clone();
        hooked["hooks"] = json!({
            "createRuntime": hook("createRuntime"), "poststop": hook("poststop")
        });
        for (kind, config) in [("plain", config), ("hooked", hooked)] {
            let written =
                std::fs::write(dir.join(format!("{kind}{suffix}.json")), config.to_string());
            assert!(written.is_ok(), "{written:?}");
        }
    }
    dir
}
