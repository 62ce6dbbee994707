//! Code that has taken the server over can do nothing, with Landlock and without it.

use std::path::Path;

use intruder::{Inside, attempts};

use super::survival::process;
use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::report::Report;

pub(super) fn checks(report: &mut Report) {
    report.group("a server that was taken over", taken);
}

fn taken(report: &mut Report) -> Result<()> {
    let cgroup = Cgroup::new("taken")?;
    let container = Container::attach(&cgroup, false)?;
    let pid = |file: &str| {
        let pid = process(file)?.as_raw_nonzero().get();
        u32::try_from(pid).map_err(|e| e.to_string())
    };
    let mut inside = Inside::of(pid("server")?)?;
    let sleeper = ["/bin/busybox", "sleep", "1000"];
    let (count, allowed) = attempts(&mut inside, Path::new("/attacked"), &sleeper, pid("lock")?)?;
    drop(inside);
    report.check(
        &format!("most of {count} attempts were made"),
        match count {
            ..180 => Err(format!("{count}")),
            _ => Ok(()),
        },
    );
    for one in &allowed {
        report.check(&one.attempt, Err(one.result.clone()));
    }
    report.equal("attempts that were allowed", &allowed.len(), &0);
    container.end()?;
    cgroup.remove()
}
