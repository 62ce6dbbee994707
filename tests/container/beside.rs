//! Tests leave the mounts and processes of another eci-fs on the same host alone.

use std::process::{Child, Command, Stdio};

use support::{Ran, Scene, mounts_of};

/// Tests that look for all grafts of a container, for all mounts or for all containers.
const TESTS: &[&str] = &[
    "attach::privileged_detach_gives_the_files_of_the_kernel_back",
    "attach::privileged_two_containers_see_their_own_limits_and_the_host_sees_its_own",
    "bad_input::privileged_a_name_is_given_once",
    "crash::privileged_after_a_crash_of_both_the_next_start_grafts_anew",
    "daemon::privileged_a_daemon_that_is_told_to_end_gives_all_files_back",
    "inspection::privileged_list_names_all_containers_in_words_and_as_json",
    "inspection::privileged_mount_shows_the_views_under_a_directory_and_touches_no_container",
    "inspection::privileged_mounts_of_a_container_go_when_it_ends",
    "run::privileged_run_leaves_mounts_cgroups_and_processes_as_before",
    "run::privileged_run_that_fails_leaves_mounts_cgroups_and_processes_as_before",
    "service_manager::privileged_what_the_service_manager_kept_brings_both_programs_back",
    "upgrade::privileged_a_list_that_was_handed_over_is_gone_on_with_and_found_after_a_crash",
];

/// One of the tests, in a process of its own as nextest runs it.
fn start(test: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn privileged_tests_pass_beside_another_eci_fs_on_the_host() {
    // This test is the other one, and its namespace is the host of those that it starts.
    let scene = Scene::with_shared_mounts(env!("CARGO_BIN_EXE_eci-fs"));
    let mut daemon = scene.daemon(&[]);
    let container = scene.container().start();
    scene.attach(&container);
    let pid = container.pid().to_string();
    let dirs = ["views that stay", "views that come and go"].map(|name| scene.dir().join(name));
    let [stay, come_and_go] = dirs.each_ref().map(|dir| dir.to_str().unwrap());
    scene.eci_fs(&["mount", &pid, stay]).ok();
    let mounts = mounts_of("thread-self");
    let ours = mounts.iter().filter(|line| line.contains(" eci-fs "));
    assert!(ours.count() > 0, "{mounts:?}");
    let grafted = container.mounts();

    for test in TESTS {
        let mut running = start(test);
        // Meanwhile as much happens here as can.
        while running.try_wait().unwrap().is_none() {
            scene.eci_fs(&["mount", &pid, come_and_go]).ok();
            scene.eci_fs(&["unmount", come_and_go]).ok();
        }
        let output = running.wait_with_output().unwrap();
        let said = Ran::from_output((*test).to_owned(), &output).ok();
        assert!(said.contains("1 passed"), "there is no such test: {said}");
        // Nor have they touched what is not theirs.
        assert_eq!(mounts_of("thread-self"), mounts, "{test}");
        assert_eq!(container.mounts(), grafted, "{test}");
        assert_eq!(scene.list().len(), 1, "{test}");
    }
    scene.eci_fs(&["unmount", stay]).ok();
    drop(container);
    daemon.wait_for("the container has ended");
    daemon.end();
}
