use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::record::{self, SysctlRecord};
use super::*;

const NR_OPEN: HostSysctl = HostSysctl::NrOpen;
const FILE_MAX: HostSysctl = HostSysctl::FileMax;

/// A host whose values are files of a directory.
struct Rig {
    dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let rig = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for tunable in HostSysctl::ALL {
            let path = rig.path(tunable);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            rig.set(tunable, 1024);
        }
        fs::create_dir(rig.dir.path().join("run")).unwrap();
        rig
    }

    fn path(&self, tunable: HostSysctl) -> PathBuf {
        self.dir.path().join(tunable.path().trim_start_matches('/'))
    }

    fn set(&self, tunable: HostSysctl, value: u64) {
        fs::write(self.path(tunable), format!("{value}\n")).unwrap();
    }

    fn value(&self, tunable: HostSysctl) -> u64 {
        let text = fs::read_to_string(self.path(tunable)).unwrap();
        text.trim().parse().unwrap()
    }

    fn runtime(&self) -> RuntimeDir {
        RuntimeDir::open(&self.dir.path().join("run")).unwrap()
    }

    fn record(&self) -> PathBuf {
        self.dir.path().join("run").join(record::FILE)
    }

    fn entry(&self, tunable: HostSysctl) -> Option<SysctlRecord> {
        let mut all = record::read(&self.runtime(), "this boot").unwrap();
        all.remove(&tunable)
    }

    /// A daemon that finds these containers, with this ceiling for all.
    fn daemon(&self, slots: &[u64], ceiling: u64) -> HostSysctls {
        self.booted("this boot", slots, ceiling)
    }

    fn booted(&self, boot_id: &str, slots: &[u64], ceiling: u64) -> HostSysctls {
        let ceilings = HostSysctl::ALL.map(|tunable| (tunable, ceiling));
        let ceilings = ceilings.into_iter().collect();
        self.started(boot_id, slots, ceilings)
    }

    fn started(&self, boot_id: &str, slots: &[u64], ceilings: Ceilings) -> HostSysctls {
        let host_sysctls = HostSysctls::default();
        host_sysctls.open_at(self.dir.path(), self.runtime(), boot_id, ceilings);
        for slot in slots {
            host_sysctls.enter(*slot);
        }
        host_sysctls.set_complete();
        host_sysctls
    }
}

#[test]
fn privileged_the_higher_wish_wins_and_the_last_that_goes_gives_back() {
    let rig = Rig::new();
    let daemon = rig.daemon(&[1, 2], 1 << 20);
    daemon.request(1, NR_OPEN, 3000).unwrap();
    assert_eq!(rig.value(NR_OPEN), 3000);
    daemon.request(2, NR_OPEN, 2000).unwrap();
    assert_eq!(rig.value(NR_OPEN), 3000);
    daemon.leave(1);
    assert_eq!(rig.value(NR_OPEN), 2000);
    daemon.leave(2);
    assert_eq!(rig.value(NR_OPEN), 1024);
    assert!(!rig.record().exists());
    assert_eq!(rig.value(FILE_MAX), 1024);
}

#[test]
fn privileged_who_lowers_his_own_value_wishes_no_more() {
    let rig = Rig::new();
    let daemon = rig.daemon(&[1], 1 << 20);
    for (request, value) in [(3000, 3000), (2000, 2000), (2500, 2500), (64, 1024)] {
        daemon.request(1, NR_OPEN, request).unwrap();
        assert_eq!(rig.value(NR_OPEN), value);
    }
    assert!(!rig.record().exists());
}

#[test]
fn privileged_nothing_is_raised_beyond_its_ceiling_nor_lowered_to_it() {
    let rig = Rig::new();
    let daemon = rig.daemon(&[1, 2], 2048);
    daemon.request(1, FILE_MAX, i64::MAX as u64).unwrap();
    assert_eq!(rig.value(FILE_MAX), 2048);
    daemon.request(2, FILE_MAX, 1500).unwrap();
    daemon.leave(1);
    assert_eq!(rig.value(FILE_MAX), 1500);
    let daemon = rig.daemon(&[2], 512);
    assert_eq!(rig.value(FILE_MAX), 1024);
    daemon.request(2, FILE_MAX, 2000).unwrap();
    assert_eq!(rig.value(FILE_MAX), 1024);
}

#[test]
fn privileged_without_a_ceiling_without_a_container_or_out_of_range_nothing_is_raised() {
    let rig = Rig::new();
    let one = [(FILE_MAX, 1 << 40)].into_iter().collect();
    let daemon = rig.started("this boot", &[1], one);
    assert_eq!(daemon.tunables(), [FILE_MAX]);
    assert_eq!(daemon.request(1, NR_OPEN, 2000), Err(Errno::PERM));
    assert_eq!(daemon.request(2, FILE_MAX, 2000), Err(Errno::SRCH));
    assert_eq!(daemon.request(1, FILE_MAX, u64::MAX), Err(Errno::PERM));
    let off = HostSysctls::default();
    off.enter(1);
    off.set_complete();
    assert_eq!(off.tunables(), []);
    assert_eq!(off.request(1, FILE_MAX, 2000), Err(Errno::PERM));
    assert_eq!(rig.value(FILE_MAX), 1024);
    assert!(!rig.record().exists());
}

#[test]
fn privileged_the_next_daemon_goes_on_and_gives_back_for_who_has_gone() {
    let rig = Rig::new();
    let daemon = rig.daemon(&[1, 2], 1 << 20);
    daemon.request(1, FILE_MAX, 5000).unwrap();
    daemon.request(2, FILE_MAX, 4000).unwrap();
    drop(daemon);
    let daemon = rig.daemon(&[1, 2], 1 << 20);
    assert_eq!(rig.value(FILE_MAX), 5000);
    drop(daemon);
    let daemon = rig.daemon(&[2], 1 << 20);
    assert_eq!(rig.value(FILE_MAX), 4000);
    drop(daemon);
    rig.daemon(&[], 1 << 20);
    assert_eq!(rig.value(FILE_MAX), 1024);
    assert!(!rig.record().exists());
}

/// The daemon is killed between the record and the host, and after the host, on the way up and on the way down.
#[test]
fn privileged_a_daemon_that_was_killed_anywhere_leaves_what_the_next_understands() {
    for (original, set, before, present) in [
        (1024, 5000, 1024, 1024),
        (1024, 5000, 1024, 5000),
        (1024, 2000, 5000, 5000),
        (1024, 2000, 5000, 2000),
        (1024, 1024, 5000, 5000),
        (1024, 1024, 5000, 1024),
    ] {
        for (slots, after) in [(&[1][..], 3000), (&[][..], 1024)] {
            let rig = Rig::new();
            rig.set(NR_OPEN, present);
            let record = format!(
                "{{\"version\":\"1\",\"boot_id\":\"this boot\",\"tunables\":{{\"{NR_OPEN}\":{{\
                 \"raised\":{{\"original\":{original},\"set\":{set},\"before\":{before}}},\
                 \"wishes\":{{\"1\":{{\"value\":3000}}}}}}}}}}"
            );
            fs::write(rig.record(), record).unwrap();
            let daemon = rig.daemon(slots, 1 << 20);
            assert_eq!(rig.value(NR_OPEN), after, "{set} {before} {present}");
            slots.iter().for_each(|slot| daemon.leave(*slot));
            assert_eq!(rig.value(NR_OPEN), 1024, "{set} {before} {present}");
        }
    }
}

#[test]
fn privileged_what_somebody_else_has_set_is_left_alone() {
    for theirs in [1500, 9000] {
        let rig = Rig::new();
        let daemon = rig.daemon(&[1, 2], 1 << 20);
        daemon.request(1, FILE_MAX, 5000).unwrap();
        daemon.request(2, FILE_MAX, 4000).unwrap();
        rig.set(FILE_MAX, theirs);
        daemon.leave(2);
        assert_eq!(rig.value(FILE_MAX), theirs);
        // The same request again is none either.
        daemon.request(1, FILE_MAX, 5000).unwrap();
        drop(daemon);
        let daemon = rig.daemon(&[1], 1 << 20);
        daemon.request(1, FILE_MAX, 5000).unwrap();
        assert_eq!(rig.value(FILE_MAX), theirs);
        // Another request is one. Then the value that is given back is that of the other party.
        daemon.request(1, FILE_MAX, 10_000).unwrap();
        assert_eq!(rig.value(FILE_MAX), 10_000);
        daemon.leave(1);
        assert_eq!(rig.value(FILE_MAX), theirs);
        assert!(!rig.record().exists());
    }
}

#[test]
fn privileged_the_record_of_another_boot_counts_no_more() {
    let rig = Rig::new();
    rig.daemon(&[1], 1 << 20)
        .request(1, FILE_MAX, 5000)
        .unwrap();
    rig.set(FILE_MAX, 2000);
    rig.booted("the next", &[1], 1 << 20);
    assert_eq!(rig.value(FILE_MAX), 2000);
    assert!(!rig.record().exists());
}

#[test]
fn privileged_a_record_that_is_none_is_kept_and_keeps_nobody_from_starting() {
    for text in ["", "{", "{\"version\":\"2\"}", "[1]"] {
        let rig = Rig::new();
        fs::write(rig.record(), text).unwrap();
        let daemon = rig.daemon(&[1], 1 << 20);
        let kept = rig.record().with_extension("json.unreadable");
        assert_eq!(fs::read_to_string(kept).unwrap(), text);
        daemon.request(1, FILE_MAX, 5000).unwrap();
        assert_eq!(rig.entry(FILE_MAX).unwrap().raised.unwrap().original, 1024);
        daemon.leave(1);
        assert_eq!(rig.value(FILE_MAX), 1024);
    }
}

#[test]
fn privileged_what_cannot_be_written_down_is_not_raised_and_is_given_back_all_the_same() {
    let rig = Rig::new();
    let daemon = rig.daemon(&[1, 2], 1 << 20);
    daemon.request(2, FILE_MAX, 2000).unwrap();
    // The file that replaces the record cannot be made.
    let obstacle = rig.record().with_extension("json.new");
    fs::create_dir(&obstacle).unwrap();
    assert_eq!(daemon.request(1, FILE_MAX, 5000), Err(Errno::IO));
    assert_eq!(daemon.request(1, NR_OPEN, 5000), Err(Errno::IO));
    assert_eq!((rig.value(FILE_MAX), rig.value(NR_OPEN)), (2000, 1024));
    // What was refused is done when there is room and a reason to look again.
    fs::remove_dir(&obstacle).unwrap();
    daemon.request(2, FILE_MAX, 3000).unwrap();
    assert_eq!(rig.value(FILE_MAX), 5000);
    fs::create_dir(&obstacle).unwrap();
    daemon.leave(1);
    daemon.leave(2);
    assert_eq!((rig.value(FILE_MAX), rig.value(NR_OPEN)), (1024, 1024));
}

#[test]
fn privileged_what_the_machine_refuses_changes_nothing() {
    let rig = Rig::new();
    let daemon = rig.daemon(&[1], 1 << 20);
    fs::remove_file(rig.path(HostSysctl::ConntrackMax)).unwrap();
    let refused = daemon.request(1, HostSysctl::ConntrackMax, 5000);
    assert_eq!(refused, Err(Errno::IO));
    assert!(!rig.record().exists());
    rig.set(NR_OPEN, 1024);
    fs::write(rig.path(NR_OPEN), "no number\n").unwrap();
    assert_eq!(daemon.request(1, NR_OPEN, 5000), Err(Errno::IO));
    daemon.leave(1);
    assert_eq!(
        fs::read_to_string(rig.path(NR_OPEN)).unwrap(),
        "no number\n"
    );
}
