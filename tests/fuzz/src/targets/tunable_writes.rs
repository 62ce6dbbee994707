//! What a container writes to its tunables: any bytes at any offset of any row of the table, on any version of the kernel.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use eci_fs_emulators::tunable::{Release, Tunable, Written};
use eci_fs_emulators::{
    Cgroup, Container, Context, History, Host, Identity, Settings, TUNABLES, render_view, tunable,
};

use crate::made_up;
use crate::recorded::{FIXTURES, Recorded};

/// The most bytes that the kernel keeps of a value: a page.
const PAGE: usize = 4096;

#[derive(Debug, Arbitrary)]
struct Input {
    release: (u16, u16),
    /// Values that the server before this one has left, by the index of their tunables.
    restored: BTreeMap<u8, Vec<u8>>,
    writes: Vec<Write>,
}

#[derive(Debug, Arbitrary)]
struct Write {
    tunable: u8,
    offset: Offset,
    bytes: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Offset {
    Begin,
    Near(u8),
    Any(u64),
}

thread_local! {
    static HOST: RefCell<Option<(Recorded, Host)>> = const { RefCell::new(None) };
}

/// Returns the row at this place in all tables together.
fn row(index: u8) -> &'static Tunable {
    let rows: Vec<_> = TUNABLES.iter().copied().flatten().collect();
    rows[usize::from(index) % rows.len()]
}

/// Takes the bytes for writes, one after the other.
pub fn run(bytes: &[u8]) {
    let Some(input) = made_up::decode::<Input>(bytes) else {
        return;
    };
    HOST.with_borrow_mut(|host| {
        let (_, host) = host.get_or_insert_with(|| {
            let recorded = Recorded::unpack(FIXTURES[0]);
            let host = recorded.host();
            (recorded, host)
        });
        write_all(&input, host);
    });
}

fn write_all(input: &Input, host: &Host) {
    let container = Container {
        cgroup: Cgroup::new(Vec::new()),
        identity: Identity::default(),
        history: History::new(),
        tunables: Default::default(),
        can_measure_cpus: Default::default(),
    };
    for (index, value) in &input.restored {
        container.tunables.restore(row(*index).id(), value);
    }
    let settings = Settings::default();
    let cx = Context::new(host, &container, &settings, Duration::from_secs(100)).with_cgroup();
    for Write {
        tunable,
        offset,
        bytes,
    } in &input.writes
    {
        let row = row(*tunable);
        let offset = match offset {
            Offset::Begin => 0,
            Offset::Near(offset) => u64::from(*offset),
            Offset::Any(offset) => *offset,
        };
        // The handler of another version, and the one of this host.
        let release = Release(input.release.0, input.release.1);
        let present = container.tunables.get(row.id()).unwrap_or_default();
        let written = row.handler.write(release, &present, offset, bytes);
        check(row, &written, bytes);
        let mut saved = Vec::new();
        let save = |id, value: &[u8]| saved.push((id, value.to_vec()));
        let Ok(written) = row.write(&cx, offset, bytes, save) else {
            continue;
        };
        check(row, &written, bytes);
        for (id, value) in saved {
            let other = id != row.id();
            assert!(
                !other || row.cleared_by(&written) == Some(id),
                "{}",
                row.path()
            );
            let now = container.tunables.get(id).unwrap();
            assert_eq!(*now, *value);
            let mut text = Vec::new();
            render_view(self::tunable(id).unwrap(), &cx, &mut text).unwrap();
            // Nobody reads a file that can only be written.
            assert!(text.is_empty() || text == value, "{}", row.path());
        }
    }
}

/// Checks that an answer is one that a write(2) can have, and a value one that a read(2) can have.
fn check(row: &Tunable, written: &Written, bytes: &[u8]) {
    if let Ok(taken) = written.answer {
        assert!(taken <= bytes.len(), "{}: {taken}", row.path());
        // A program that writes all would write for ever.
        assert!(taken > 0 || bytes.is_empty(), "{}: nothing", row.path());
    }
    if let Some(value) = &written.value {
        assert!(value.ends_with(b"\n"), "{}: no line", row.path());
        assert!(value.len() <= PAGE, "{}: {}", row.path(), value.len());
    }
}
