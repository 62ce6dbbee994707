//! Containers of runc, crun and bubblewrap, attached while they run.

use support::{Engine, Limits};

use crate::{limits, scene, sees, sees_the_host};

fn shows_its_limits(engine: Engine, user: bool) {
    let scene = scene();
    let mut container = scene
        .container()
        .engine(engine)
        .limits(limits(192, 0.5))
        .user_namespace(user)
        .start();
    sees_the_host(&mut container);
    let before = container.mounts();
    scene.attach(&container);
    sees(&mut container, 192, 1);
    scene.detach(&container);
    assert_eq!(container.mounts(), before);
    sees_the_host(&mut container);
}

#[test]
fn privileged_runc_shows_its_limits_once_attached() {
    shows_its_limits(Engine::Runc, false);
}

#[test]
fn privileged_runc_with_a_user_namespace_shows_its_limits_once_attached() {
    shows_its_limits(Engine::Runc, true);
}

#[test]
fn privileged_crun_shows_its_limits_once_attached() {
    shows_its_limits(Engine::Crun, false);
}

#[test]
fn privileged_crun_with_a_user_namespace_shows_its_limits_once_attached() {
    shows_its_limits(Engine::Crun, true);
}

#[test]
fn privileged_bubblewrap_shows_its_limits_once_attached() {
    shows_its_limits(Engine::Bubblewrap, false);
}

#[test]
fn privileged_bubblewrap_with_a_user_namespace_shows_its_limits_once_attached() {
    shows_its_limits(Engine::Bubblewrap, true);
}

#[test]
fn privileged_tunables_are_written_in_containers_whose_proc_sys_is_read_only() {
    let scene = scene();
    for engine in Engine::RUNTIMES {
        for user in [false, true] {
            let builder = scene.container().engine(engine).user_namespace(user);
            let mut container = builder.start();
            let path = "/proc/sys/vm/max_map_count";
            let machine = std::fs::read_to_string(path).unwrap();
            assert_ne!(machine, "262145\n");
            let write = ["write", path, "262145\n"];
            assert_eq!(container.try_ask(&write), Err("EROFS".to_owned()));
            scene.attach(&container);
            assert_eq!(container.read(path), machine);
            container.ask(&write);
            assert_eq!(container.read(path), "262145\n");
            // These containers lack the capability that its handler wants.
            let restrict = ["write", "/proc/sys/kernel/dmesg_restrict", "1"];
            assert_eq!(container.try_ask(&restrict), Err("EPERM".to_owned()));
            let unwritten = container.try_ask(&["write", "/proc/sys/kernel/msgmax", "1"]);
            assert_eq!(
                unwritten,
                Err("EROFS".to_owned()),
                "what is not grafted stays"
            );
            assert_eq!(std::fs::read_to_string(path).unwrap(), machine);
            scene.detach(&container);
            assert_eq!(container.read(path), machine);
        }
    }
}

#[test]
fn privileged_all_engines_together_show_each_its_own_limits() {
    let scene = scene();
    let mut containers: Vec<_> = [Engine::Plain, Engine::Runc, Engine::Crun]
        .into_iter()
        .zip([64, 96, 128])
        .map(|(engine, mebibytes)| {
            let builder = scene.container().engine(engine);
            (builder.limits(limits(mebibytes, 1.0)).start(), mebibytes)
        })
        .collect();
    for (container, _) in &containers {
        scene.attach(container);
    }
    for (container, mebibytes) in &mut containers {
        sees(container, *mebibytes, 1);
    }
}

#[test]
fn privileged_a_runtime_that_is_asked_for_no_limit_shows_the_machine() {
    let scene = scene();
    for engine in Engine::RUNTIMES {
        let mut container = scene
            .container()
            .engine(engine)
            .limits(Limits::default())
            .start();
        scene.attach(&container);
        let host = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total = |text: &str| support::number_after(text, "MemTotal:");
        assert_eq!(total(&container.read("/proc/meminfo")), total(&host));
        // The uptime is its own all the same.
        assert!(support::uptime(&container.read("/proc/uptime")) < 60.0);
    }
}
