//! /proc/sys: a container reads the values that it wrote, and nobody else sees them.

use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::host;
use crate::report::{Report, equal};

/// Tunables of the machine, a value that each takes, and one that it refuses.
const TUNABLES: &[(&str, &str, &str)] = &[
    ("/proc/sys/kernel/pid_max", "4000", "1"),
    ("/proc/sys/kernel/panic", "7", "x"),
    ("/proc/sys/kernel/panic_on_oops", "1", "x"),
    ("/proc/sys/kernel/kptr_restrict", "1", "9"),
    ("/proc/sys/kernel/dmesg_restrict", "1", "9"),
    ("/proc/sys/fs/protected_hardlinks", "1", "9"),
    ("/proc/sys/fs/suid_dumpable", "0", "9"),
    ("/proc/sys/vm/overcommit_memory", "1", "9"),
    ("/proc/sys/vm/swappiness", "11", "1000"),
    ("/proc/sys/vm/max_map_count", "70000", "x"),
    ("/proc/sys/vm/dirty_ratio", "33", "101"),
    ("/proc/sys/vm/panic_on_oom", "1", "9"),
];

pub(super) fn checks(report: &mut Report) {
    report.group("tunables", |report| {
        let (first, second) = (Cgroup::new("writer")?, Cgroup::new("reader")?);
        let mut writer = Container::attach(&first, false)?;
        let mut reader = Container::attach(&second, false)?;
        let grafts = writer.grafts()?;
        for (path, good, bad) in TUNABLES {
            if grafts.contains(*path) {
                report.check(path, private(&mut writer, &mut reader, path, good, bad));
            } else {
                report.skip(path, "no graft");
            }
        }
        report.check("sizes that writes change", resized(&mut writer));
        let path = "/proc/sys/kernel/core_pattern";
        if grafts.contains(path) {
            report.equal(path, &writer.read(path)?.trim(), &"core");
        } else {
            report.skip(path, "no graft");
        }
        writer.end()?;
        reader.end()?;
        first.remove()?;
        second.remove()
    });
}

/// The kernel believes the size of a tunable for a moment, and a copy by it stops there: what is copied right after a
/// write is whole, and no more than that.
fn resized(writer: &mut Container) -> Result<()> {
    let path = "/proc/sys/kernel/panic";
    for _ in 0..50 {
        for (written, wanted) in [
            ("1", "1"),
            ("22", "22"),
            ("0x0000014d", "333"),
            ("4", "4"),
            ("12345678", "12345678"),
            ("070", "56"),
            ("0x10", "16"),
        ] {
            writer.tell(&["write", path, written])?;
            let copied = writer.tell(&["sendfile", path])?;
            equal(
                written.trim(),
                &copied.as_str(),
                &format!("{wanted}\n").as_str(),
            )?;
        }
    }
    Ok(())
}

fn private(
    writer: &mut Container,
    reader: &mut Container,
    path: &str,
    good: &str,
    bad: &str,
) -> Result<()> {
    let machine = host(path)?;
    equal("at first", &writer.read(path)?, &machine)?;
    writer.tell(&["write", path, good])?;
    equal("what was written", &writer.read(path)?.trim(), &good)?;
    let copied = writer.tell(&["sendfile", path])?;
    equal("what is copied by the kernel", &copied.trim(), &good)?;
    let refused = writer.ask(&["write", path, bad]).err();
    equal("writing nonsense", &refused.as_deref(), &Some("EINVAL"))?;
    equal("after nonsense", &writer.read(path)?.trim(), &good)?;
    equal("in another container", &reader.read(path)?, &machine)?;
    equal("on the machine", &host(path)?, &machine)
}
