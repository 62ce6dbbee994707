//! The tunables that programs of clusters set on a node, set in a container.

use super::{file, scene, start};

/// What kubelet (pkg/kubelet/cm, setupKernelTunables) and the manual of Elasticsearch have set, and systemd-sysctl of
/// Debian by its own configuration.
const WANTED: &[(&str, &str)] = &[
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.keys.root_maxbytes", "25000000"),
    ("vm.max_map_count", "262144"),
    ("vm.swappiness", "1"),
    ("fs.protected_hardlinks", "1"),
    ("fs.protected_symlinks", "1"),
    ("fs.protected_regular", "2"),
    ("fs.protected_fifos", "1"),
    ("fs.inotify.max_user_watches", "524288"),
    ("kernel.printk", "3\t4\t1\t3"),
    ("fs.file-max", "1048576"),
];

#[test]
fn privileged_systemd_and_busybox_set_what_nodes_of_clusters_want() {
    let scene = scene();
    let conf = scene.dir().join("wanted.conf");
    let lines = WANTED
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"));
    std::fs::write(&conf, lines.collect::<String>()).unwrap();
    let conf = conf.display().to_string();
    for program in [
        &["/usr/lib/systemd/systemd-sysctl", "--strict", &conf][..],
        &["busybox", "sysctl", "-p", &conf],
    ] {
        let mut container = start(&scene);
        let machine: Vec<String> = WANTED.iter().map(|(name, _)| file(path_of(name))).collect();
        let ran = match program {
            ["busybox", arguments @ ..] => {
                container.busybox(arguments);
                String::new()
            }
            program => {
                let ran = container.try_run(program);
                assert_eq!(ran.code, Some(0), "{ran:?}");
                ran.stderr
            }
        };
        assert_eq!(ran, "", "{program:?}");
        for ((name, value), machine) in WANTED.iter().zip(machine) {
            assert_eq!(
                container.read(&path_of(name)),
                format!("{value}\n"),
                "{name}"
            );
            assert_eq!(file(path_of(name)), machine, "{name}");
        }
    }
}

/// sysctl(8) writes dots between the names.
fn path_of(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}
