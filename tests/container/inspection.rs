//! `mount`, `unmount`, `list` and `show`.

use std::fs;

use support::{mounts_of, number_after};

use crate::{limits, scene, sees_the_host};

#[test]
fn privileged_mount_shows_the_views_under_a_directory_and_touches_no_container() {
    let scene = scene();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let dir = scene.dir().join("views");
    let mounts = mounts_of("thread-self");
    let pid = container.pid().to_string();
    scene.eci_fs(&["mount", &pid, dir.to_str().unwrap()]).ok();
    let meminfo = fs::read_to_string(dir.join("proc/meminfo")).unwrap();
    assert_eq!(number_after(&meminfo, "MemTotal:"), 128 << 10);
    let online = fs::read_to_string(dir.join("sys/devices/system/cpu/online")).unwrap();
    assert_eq!(support::cpu_list(&online).len(), 1);
    let refused = fs::File::create(dir.join("proc/new"));
    assert!(refused.is_err(), "the directory is read-only");
    sees_the_host(&mut container);
    let listed = scene.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["mounts"], serde_json::json!([dir]));
    assert_eq!(listed[0]["grafts"], 0);
    scene.eci_fs(&["unmount", dir.to_str().unwrap()]).ok();
    assert!(!dir.exists(), "it was made for it, and goes with it");
    assert_eq!(mounts_of("thread-self"), mounts);
}

#[test]
fn privileged_mount_without_a_directory_chooses_one_and_says_which() {
    let scene = scene();
    let container = scene.container().limits(limits(128, 1.0)).start();
    let said = scene.eci_fs(&["mount", &container.pid().to_string()]).ok();
    let (dir, _) = said.split_once(": ").unwrap();
    let meminfo = fs::read_to_string(format!("{dir}/proc/meminfo")).unwrap();
    assert_eq!(number_after(&meminfo, "MemTotal:"), 128 << 10);
    scene.eci_fs(&["unmount", dir]).ok();
}

#[test]
fn privileged_mount_refuses_directories_that_are_in_use() {
    let scene = scene();
    let container = scene.container().start();
    let pid = container.pid().to_string();
    let dir = scene.dir().join("full");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    let dir = dir.to_str().unwrap();
    scene
        .eci_fs(&["mount", &pid, dir])
        .refused(&[dir, "not empty", "name an empty directory"]);
    let absent = scene.dir().join("no/such");
    let ran = scene.eci_fs(&["mount", &pid, absent.to_str().unwrap()]);
    ran.refused(&["no/such", "parent exists"]);
    let views = scene.dir().join("views");
    let views = views.to_str().unwrap();
    scene.eci_fs(&["mount", &pid, views]).ok();
    scene.eci_fs(&["mount", &pid, views]).refused(&[views]);
    scene.eci_fs(&["unmount", views]).ok();
    scene.eci_fs(&["unmount", dir]).refused(&["eci-fs: "]);
}

#[test]
fn privileged_mounts_of_a_container_go_when_it_ends() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut container = scene.container().start();
    let before = mounts_of("thread-self");
    let dir = scene.dir().join("views");
    let pid = container.pid().to_string();
    scene.eci_fs(&["mount", &pid, dir.to_str().unwrap()]).ok();
    container.kill();
    daemon.wait_for("the container has ended");
    assert_eq!(mounts_of("thread-self"), before);
    assert!(!dir.exists());
    assert!(scene.list().is_empty());
    daemon.end();
}

#[test]
fn privileged_list_names_all_containers_in_words_and_as_json() {
    let scene = scene();
    let first = scene.container().start();
    let second = scene.container().start();
    scene
        .eci_fs(&["attach", "--id", "first", &first.pid().to_string()])
        .ok();
    scene.attach(&second);
    let listed = scene.list();
    let ids: Vec<&str> = listed.iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["first", &format!("pid-{}", second.pid())]);
    assert_eq!(listed[0]["grafts"], first.grafts().len());
    assert_ne!(listed[0]["slot"], listed[1]["slot"]);
    let words = scene.eci_fs(&["list"]).ok();
    assert_eq!(words.lines().count(), 3, "{words}");
    assert!(words.contains(&first.pid().to_string()), "{words}");
    scene.detach(&first);
    assert_eq!(scene.list().len(), 1);
}

#[test]
fn privileged_show_prints_what_the_container_sees_attached_or_not() {
    let scene = scene();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let pid = container.pid().to_string();
    let total = |text: &str| number_after(text, "MemTotal:");
    let show = |what: &[&str]| scene.eci_fs(&[&["show"], what].concat());
    assert_eq!(total(&show(&[&pid, "/proc/meminfo"]).ok()), 128 << 10);
    sees_the_host(&mut container);
    let paths = show(&[&pid]).ok();
    assert!(
        paths.contains("/proc/meminfo") && paths.contains("/proc/uptime"),
        "{paths}"
    );
    scene.eci_fs(&["attach", "--id", "web", &pid]).ok();
    assert_eq!(total(&show(&["web", "/proc/meminfo"]).ok()), 128 << 10);
    assert_eq!(
        show(&[&pid, "/proc/cpuinfo"]).ok(),
        container.read("/proc/cpuinfo")
    );
    show(&[&pid, "/proc/version"]).refused(&["/proc/version is the kernel's own file"]);
    show(&["db", "/proc/meminfo"]).refused(&["db", "eci-fs list"]);
}

/// A disk of the host that has a size.
fn disk() -> Option<String> {
    let disks = fs::read_dir("/sys/block").ok()?;
    let names = disks.map(|disk| disk.unwrap().file_name().into_string().unwrap());
    let mut sized = names.filter(|name| {
        let size = fs::read_to_string(format!("/sys/block/{name}/size"));
        size.is_ok_and(|size| size.trim() != "0")
    });
    sized.next()
}

#[test]
fn privileged_show_lists_a_directory_graft_and_shows_what_is_below_it_attached_or_not() {
    let scene = scene();
    let all = support::cpu_list(&fs::read_to_string("/sys/devices/system/cpu/online").unwrap());
    let only: &str = all[0].to_string().leak();
    let limited = support::Limits {
        cpuset: Some(only),
        ..limits(128, 1.0)
    };
    let mut container = scene.container().limits(limited).start();
    let pid = container.pid().to_string();
    let show = |what: &[&str]| scene.eci_fs(&[&["show"], what].concat());
    let cpu = "/sys/devices/system/cpu";
    let node = fs::read_dir("/sys/devices/system/node/node0").is_ok();
    let below = [
        format!("{cpu}/online"),
        format!("{cpu}/cpu{only}/topology/core_id"),
        format!("{cpu}/cpu{only}/uevent"),
    ];
    for attached in [false, true] {
        if attached {
            scene.eci_fs(&["attach", "--id", "web", &pid]).ok();
        }
        // Every directory that the command lists as a view can be shown.
        let views = show(&[&pid]).ok();
        assert!(views.lines().any(|line| line.ends_with(cpu)), "{views}");
        let listed = show(&[&pid, cpu]).ok();
        let mut names: Vec<&str> = listed
            .lines()
            .map(|name| name.trim_end_matches('/'))
            .collect();
        for name in [format!("cpu{only}/"), "online".to_owned()] {
            assert!(listed.lines().any(|line| line == name), "{name}: {listed}");
        }
        names.sort_unstable();
        if attached {
            let answer = container.ask(&["list", cpu]);
            let seen = answer[cpu].as_array().or(answer.as_array()).unwrap();
            let seen: Vec<String> = seen
                .iter()
                .map(|one| one["name"].as_str().or(one.as_str()).unwrap().to_owned())
                .filter(|name| name != "." && name != "..")
                .collect();
            let seen: std::collections::BTreeSet<&str> = seen.iter().map(String::as_str).collect();
            assert_eq!(names, seen.into_iter().collect::<Vec<_>>());
        }
        assert_eq!(
            show(&[&pid, &format!("{cpu}//cpu{only}/./")]).ok(),
            show(&[&pid, &format!("{cpu}/cpu{only}")]).ok()
        );
        for path in &below {
            let shown = show(&[&pid, path]).ok();
            if attached {
                assert_eq!(shown, container.read(path), "{path}");
                assert_eq!(shown, show(&["web", path]).ok(), "{path}");
            }
            assert!(!shown.is_empty(), "{path}");
        }
        // A link leads into another graft.
        if node {
            let listed = show(&[&pid, &format!("{cpu}/cpu{only}/node0")]).ok();
            assert!(listed.contains("meminfo\n"), "{listed}");
        }
        // So do links of sysfs to files that are grafted one by one.
        if let Some(disk) = disk() {
            let (link, target) = (
                format!("/sys/class/block/{disk}"),
                format!("/sys/block/{disk}"),
            );
            let target = fs::canonicalize(&target).unwrap().join("stat");
            let shown = show(&[&pid, &format!("{link}/stat")]).ok();
            assert_eq!(shown, show(&[&pid, &target.display().to_string()]).ok());
            assert_eq!(shown.split_whitespace().next(), Some("0"), "{shown}");
        }
        let own = "is the kernel's own file in this container";
        for path in ["/proc/version", "/sys/kernel/mm/swap/vma_ra_enabled"] {
            if fs::metadata(path).is_ok() {
                show(&[&pid, path]).refused(&[path, own]);
            }
        }
        show(&[&pid, "/proc/nosuch"]).refused(&["no view of /proc/nosuch", "eci-fs show"]);
        show(&[&pid, &format!("{cpu}/nosuch")]).refused(&["nosuch"]);
        show(&[&pid, "/etc/passwd"]).refused(&["neither in /proc nor in /sys"]);
        for path in ["proc/meminfo", "/proc/../proc/meminfo"] {
            show(&[&pid, path]).refused(&[path, "not an absolute path"]);
        }
        let diff = show(&[&pid, cpu, "--diff"]).ok();
        assert!(diff.contains("online"), "{diff}");
    }
}

#[test]
fn privileged_show_sets_the_view_beside_the_file_of_the_host() {
    let scene = scene();
    let container = scene.container().limits(limits(128, 1.0)).start();
    let pid = container.pid().to_string();
    let text = scene
        .eci_fs(&["show", &pid, "/proc/meminfo", "--diff"])
        .ok();
    let host = fs::read_to_string("/proc/meminfo").unwrap();
    let total = number_after(&host, "MemTotal:").to_string();
    let line = text
        .lines()
        .find(|line| line.contains("MemTotal:"))
        .unwrap();
    assert!(
        line.starts_with('|') && line.contains("131072") && line.contains(&total),
        "{text}"
    );
    let same = text
        .lines()
        .find(|line| line.contains("VmallocTotal:"))
        .unwrap();
    assert!(same.starts_with(' '), "{text}");
}
