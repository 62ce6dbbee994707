//! The files of the list, as they are written and read again.

use super::*;
use crate::container::procfs::Proc;
use crate::container::{Subject, open_pidfd};
use crate::registry::slots::Slots;

/// Returns a container whose process is this one.
fn container(id: &str) -> Container {
    let proc = Proc::open().unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    Container {
        measures_cpus: None,
        id: id.to_owned(),
        subject: Subject {
            pid,
            start_ticks: 9,
            pidfd: open_pidfd(pid).unwrap(),
            mount_namespace: proc.namespace("self", "mnt").unwrap(),
            pid_namespace: proc.namespace("self", "pid").unwrap(),
            network_namespace: None,
        },
        choice: Default::default(),
        cgroups: Vec::new(),
        choices: Default::default(),
        root: None,
        locked: false,
        engine_root: None,
        secrets: eci_fs_protocol::link::Secrets {
            boot_id: [1; 16],
            host_secret: [2; 32],
            generation: 0,
        },
        rows: Vec::new(),
        grafted: vec!["/proc/stat".to_owned()],
        mounts: Vec::new(),
    }
}

fn runtime() -> (tempfile::TempDir, RuntimeDir) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = RuntimeDir::create(&dir.path().join("run")).unwrap();
    (dir, runtime)
}

/// Returns a list with containers of these names, in the slots from 1 on.
fn registry(boot_id: &str, ids: &[&str]) -> Registry {
    let mut registry = Registry::new(boot_id.into(), None).unwrap();
    for (slot, id) in (1..).zip(ids) {
        registry.insert(slot, container(id));
        // As if version 0.1.0 had given it out, by counting.
        registry.slots = Slots::going_on(&registry.host_secret, slot + 1, slot + 1);
    }
    registry
}

/// The names and slots on the list that lies there.
fn listed(runtime: &RuntimeDir) -> Vec<(String, u64)> {
    let saved = Saved::read(runtime).unwrap().unwrap();
    let containers = saved.containers.into_iter();
    containers.map(|one| (one.id, one.slot)).collect()
}

fn names(runtime: &RuntimeDir) -> Vec<String> {
    let mut names = runtime.subdirectory(DIR).unwrap().names().unwrap();
    names.sort();
    names
}

/// Asserts that `value` is written as `bytes`, and that `bytes` are read as `value`.
#[track_caller]
fn assert_bytes<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    value: &T,
    bytes: &str,
) {
    assert_eq!(serde_json::to_string(value).unwrap(), bytes);
    assert_eq!(&serde_json::from_str::<T>(bytes).unwrap(), value);
}

fn saved() -> SavedContainer {
    SavedContainer {
        id: "a".to_owned(),
        slot: 1,
        pid: 7,
        start_ticks: 9,
        grafted: vec!["/proc/stat".to_owned()],
        mounts: vec![("/d".into(), true)],
        choice: eci_fs_protocol::control::CgroupChoice::Own,
        cgroups: vec![crate::container::Membership {
            controllers: vec!["cpu".to_owned()],
            path: "/c".to_owned(),
        }],
        choices: Default::default(),
        root: Some("/r".into()),
        locked: false,
        engine_root: None,
        boot_id: Some([1; 16]),
        measures_cpus: Some(false),
        generation: 0,
    }
}

const SAVED: &str = concat!(
    r#"{"id":"a","slot":1,"pid":7,"start_ticks":9,"grafted":["/proc/stat"],"mounts":[["/d",true]],"#,
    r#""choice":"own","cgroups":[{"controllers":["cpu"],"path":"/c"}],"choices":{},"root":"/r","#,
    r#""boot_id":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"measures_cpus":false,"generation":0}"#,
);

/// A daemon of another release reads them.
#[test]
fn the_bytes_of_all_files_are_kept() {
    let secret = "2,".repeat(31) + "2";
    assert_bytes(
        &Head::V1 {
            boot_id: "b".to_owned(),
            next_slot: 2,
            counted_below: Some(1),
            host_secret: Some([2; 32]),
            containers: vec![saved()],
        },
        &format!(
            r#"{{"version":"1","boot_id":"b","next_slot":2,"counted_below":1,"machine_secret":[{secret}],"containers":[{SAVED}]}}"#
        ),
    );
    assert_bytes(
        &Head::V2 {
            boot_id: "b".to_owned(),
            next_slot: 2,
            counted_below: Some(1),
            host_secret: Some([2; 32]),
        },
        &format!(
            r#"{{"version":"2","boot_id":"b","next_slot":2,"counted_below":1,"machine_secret":[{secret}]}}"#
        ),
    );
    assert_bytes(
        &ContainerFile {
            boot_id: "b".to_owned(),
            container: saved(),
        },
        &format!(r#"{{"boot_id":"b","container":{SAVED}}}"#),
    );
    assert_bytes(
        &crate::registry::Intent {
            boot_id: "b".to_owned(),
            slot: 1,
            pid: 7,
            start_ticks: 9,
            root: None,
            paths: vec!["/proc/stat".to_owned()],
        },
        r#"{"boot_id":"b","slot":1,"pid":7,"start_ticks":9,"root":null,"paths":["/proc/stat"]}"#,
    );
}

#[test]
fn a_container_of_before_its_later_fields_is_read() {
    let before = r#"{"id":"a","slot":1,"pid":7,"start_ticks":9,"grafted":["/proc/stat"],"mounts":[["/d",true]]}"#;
    let expected = SavedContainer {
        choice: Default::default(),
        cgroups: Vec::new(),
        root: None,
        boot_id: None,
        ..saved()
    };
    assert_eq!(expected.measures_cpus, Some(false));
    let read: SavedContainer = serde_json::from_str(before).unwrap();
    assert_eq!(read, expected);
}

#[test]
fn a_container_whose_bounding_set_decides_is_still_one_for_the_next_daemon() {
    let decides = SavedContainer {
        measures_cpus: None,
        ..saved()
    };
    let text = serde_json::to_string(&decides).unwrap();
    assert_eq!(
        serde_json::from_str::<SavedContainer>(&text).unwrap(),
        decides
    );
}

#[test]
fn privileged_each_container_has_a_file_and_only_those_that_changed_are_written() {
    let (_dir, runtime) = runtime();
    assert!(Saved::read(&runtime).unwrap().is_none());
    let mut registry = registry("boot", &["a", "b", "c"]);
    registry.write(&runtime).unwrap();
    let all = [("a", 1), ("b", 2), ("c", 3)].map(|(id, slot)| (id.to_owned(), slot));
    assert_eq!(listed(&runtime), all);
    // What did not change is not written: this stays as it is.
    std::fs::write(runtime.path().join(DIR).join("1.json"), "{}").unwrap();
    let head = runtime.path().join(FILE);
    let written = std::fs::read(&head).unwrap();
    registry.take_slot().unwrap();
    registry.remove(3);
    registry.write(&runtime).unwrap();
    assert_eq!(std::fs::read(&head).unwrap(), written);
    registry.get_mut(2).unwrap().id = "B".to_owned();
    registry.write(&runtime).unwrap();
    assert_eq!(names(&runtime), ["1.json", "2.json"]);
    assert_eq!(listed(&runtime), [("B".to_owned(), 2)]);
    // One that cannot be understood is set aside.
    assert!(runtime.path().join(DIR).join("1.json.unreadable").exists());
}

#[test]
fn privileged_a_slot_that_is_in_use_or_was_is_not_given_out_again() {
    let (_dir, runtime) = runtime();
    let mut registry = Registry::new("boot".into(), None).unwrap();
    let slot = registry.take_slot().unwrap();
    registry.insert(slot, container("a"));
    registry.write(&runtime).unwrap();
    let head = runtime.read(FILE).unwrap().unwrap();
    // The daemon is killed before the head is written, and one file cannot be understood.
    let slot = registry.take_slot().unwrap();
    registry.insert(slot, container("b"));
    registry.write(&runtime).unwrap();
    runtime.write(FILE, &head).unwrap();
    let file = runtime.path().join(DIR).join(file_of(slot));
    std::fs::write(&file, "{}").unwrap();
    for is_set_aside in [false, true] {
        let saved = Saved::read(&runtime).unwrap().unwrap();
        assert_eq!(saved.in_files.contains(&slot), !is_set_aside);
        let mut next = Registry::new("boot".into(), Some(&saved)).unwrap();
        assert_eq!(
            next.take_slot().is_ok_and(|next| next == slot),
            is_set_aside
        );
    }
}

/// Version 0.1.0 gave out slots by their numbers.
#[test]
fn privileged_slots_go_on_after_an_upgrade_from_version_0_1_0() {
    let (_dir, runtime) = runtime();
    let secret = "2,".repeat(31) + "2";
    let container = r#"{"id":"web","slot":8,"pid":7,"start_ticks":9,"grafted":[],"mounts":[]}"#;
    let head =
        format!(r#"{{"version":"2","boot_id":"b","next_slot":7,"machine_secret":[{secret}]}}"#);
    runtime.write(FILE, &head).unwrap();
    let dir = runtime.subdirectory(DIR).unwrap();
    let file = format!(r#"{{"boot_id":"b","container":{container}}}"#);
    dir.write("8.json", &file).unwrap();
    let whole = format!(
        r#"{{"version":"1","boot_id":"b","next_slot":9,"machine_secret":[{secret}],"containers":[{container}]}}"#
    );
    for head in [head, whole] {
        runtime.write(FILE, &head).unwrap();
        let saved = Saved::read(&runtime).unwrap().unwrap();
        assert_eq!((saved.next_slot, saved.counted_below), (9, 9));
        assert_eq!(saved.containers[0].generation, 0);
        let mut registry = Registry::new("b".into(), Some(&saved)).unwrap();
        assert!(registry.take_slot().unwrap() >= 9);
    }
}

#[test]
fn privileged_the_first_write_of_a_daemon_leaves_nothing_of_another_list() {
    let (_dir, runtime) = runtime();
    let mut before = registry("before", &["old"; 3]);
    before.write(&runtime).unwrap();
    std::fs::write(runtime.path().join(DIR).join("2.json.new"), "{\"boo").unwrap();
    std::fs::write(runtime.path().join(DIR).join("note"), "").unwrap();
    let mut registry = Registry::new("boot".into(), None).unwrap();
    registry.insert(2, container("new"));
    registry.write(&runtime).unwrap();
    assert_eq!(names(&runtime), ["2.json", "note"]);
    assert_eq!(listed(&runtime), [("new".to_owned(), 2)]);
}

#[test]
fn privileged_files_of_another_boot_are_on_no_list() {
    let (_dir, runtime) = runtime();
    let mut registry = registry("boot", &["a"]);
    registry.write(&runtime).unwrap();
    let other = std::fs::read_to_string(runtime.path().join(DIR).join("1.json")).unwrap();
    let other = other.replace("\"boot_id\":\"boot\"", "\"boot_id\":\"other\"");
    std::fs::write(runtime.path().join(DIR).join("1.json"), other).unwrap();
    assert_eq!(listed(&runtime), []);
}

#[test]
fn privileged_the_whole_list_is_one_file_until_the_next_change() {
    let (_dir, runtime) = runtime();
    let mut registry = registry("boot", &["a", "b"]);
    registry.write(&runtime).unwrap();
    registry.write_whole(&runtime).unwrap();
    std::fs::remove_dir_all(runtime.path().join(DIR)).unwrap();
    let all = [("a", 1), ("b", 2)].map(|(id, slot)| (id.to_owned(), slot));
    assert_eq!(listed(&runtime), all);
    registry.remove(2);
    registry.write(&runtime).unwrap();
    assert_eq!(names(&runtime), ["1.json"]);
    assert_eq!(listed(&runtime), [("a".to_owned(), 1)]);
}

#[test]
fn privileged_what_could_not_be_written_is_tried_again_and_what_is_gone_is_removed() {
    let (_dir, runtime) = runtime();
    let mut registry = registry("boot", &["a", "b"]);
    registry.write(&runtime).unwrap();
    // A directory is in the way.
    let way = runtime.path().join(DIR).join("1.json.new");
    std::fs::create_dir(&way).unwrap();
    registry.get_mut(1).unwrap().id = "A".to_owned();
    registry.remove(2);
    let error = registry.write(&runtime).unwrap_err().to_string();
    assert!(error.contains("containers/1.json"), "{error}");
    assert_eq!(listed(&runtime), [("a".to_owned(), 1)]);
    std::fs::remove_dir(&way).unwrap();
    registry.write(&runtime).unwrap();
    assert_eq!(listed(&runtime), [("A".to_owned(), 1)]);
}

#[test]
fn privileged_what_was_written_once_stays_readable() {
    let (_dir, runtime) = runtime();
    let golden = r#"{"version":"1","boot_id":"b","next_slot":4,"containers":[{"id":"web","slot":3,"pid":7,"start_ticks":9,"grafted":["/proc/stat"],"mounts":[["/mnt/x",true]]}]}"#;
    runtime.write(FILE, golden).unwrap();
    let saved = Saved::read(&runtime).unwrap().unwrap();
    assert_eq!((saved.next_slot, saved.containers[0].pid), (4, 7));
    let golden = r#"{"boot_id":"b","container":{"id":"web","slot":3,"pid":7,"start_ticks":9,"grafted":[],"mounts":[]}}"#;
    let head = r#"{"version":"2","boot_id":"b","next_slot":2,"machine_secret":null}"#;
    runtime.write(FILE, head).unwrap();
    let dir = runtime.subdirectory(DIR).unwrap();
    dir.write("3.json", golden).unwrap();
    let saved = Saved::read(&runtime).unwrap().unwrap();
    assert_eq!((saved.next_slot, saved.containers[0].pid), (4, 7));
}
