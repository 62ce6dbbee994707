//! Notes on attached containers that can see more of the host than their views.

use eci_fs_mountd::container::procfs::Proc;
use eci_fs_protocol::control::Listed;

use super::Findings;
use crate::cli::count;
use crate::cli::fresh_procfs::{Can, FreshProcfs};

/// The number of names in a note.
const NAMES: usize = 8;

pub(super) fn examine(findings: &mut Findings, containers: &[Listed]) {
    let proc = match Proc::open() {
        Ok(proc) => proc,
        Err(error) => return findings.error(error),
    };
    let fresh: Vec<Can> = containers
        .iter()
        .map(|container| FreshProcfs::of(&proc, container).can)
        .collect();
    let who_can = |wanted: Can| {
        let pairs = containers.iter().zip(&fresh);
        let ids = pairs.filter(|(_, can)| **can == wanted);
        names(ids.map(|(container, _)| container.id.as_str()))
    };
    if let Some(names) = who_can(Can::Yes) {
        findings.note(
            format!("these containers can mount a procfs, which shows the host's figures: {names}"),
            "take CAP_SYS_ADMIN from them; docs/security.md says what that changes",
        );
    }
    if let Some(names) = who_can(Can::InUserNamespace) {
        findings.note(
            format!(
                "these containers can mount a procfs in a user namespace that they make, which shows the host's \
                 figures: {names}"
            ),
            "let their engine mask paths of /proc, or forbid user namespaces; see docs/security.md",
        );
    }
    let unlocked = containers
        .iter()
        .zip(&fresh)
        // Others have no capability to take grafts away.
        .filter(|(_, can)| **can == Can::Yes)
        .filter(|(container, _)| {
            container.range.is_some() && container.grafts > 0 && !container.locked
        })
        .map(|(container, _)| container.id.as_str());
    if let Some(names) = names(unlocked) {
        findings.note(
            format!(
                "these containers have user namespaces of their own, and their grafts are not locked: with \
                 CAP_SYS_ADMIN in there they can be taken away: {names}"
            ),
            "set locked-mounts in [isolation] and start them anew; see docs/isolation.md for what they cannot do then",
        );
    }
    let vetted = containers.iter().filter(|container| container.vetted);
    let vetted = vetted.count();
    if vetted > 0 {
        findings.ok(format!(
            "sysinfo(2) is the supervisor's to answer in {}",
            count(vetted, "container")
        ));
    }
    let unvetted = containers
        .iter()
        .filter(|container| container.range.is_some() && !container.vetted)
        .map(|container| container.id.as_str());
    if let Some(names) = names(unvetted) {
        findings.note(
            format!("these containers have user namespaces of their own, and sysinfo(2) is not answered by the supervisor: {names}"),
            "start them anew through eci-runc with system-calls = true in [isolation]; see docs/isolation.md",
        );
    }
    let without = containers
        .iter()
        .filter(|container| shares_clocks(&proc, container.pid))
        .map(|container| container.id.as_str());
    if let Some(names) = names(without) {
        findings.note(
            format!(
                "these containers have no time namespace, so `ps -o etime` in them shows ages of millions of days: \
                 {names}"
            ),
            "`ps -o lstart` is right in them; docs/engines.md says which programs are affected",
        );
    }
}

/// Returns true if a process is in the time namespace of the host. One that has ended, and one of a kernel without time
/// namespaces, is not.
fn shares_clocks(proc: &Proc, pid: i32) -> bool {
    proc.namespace(pid, "time")
        .is_ok_and(|namespace| namespace.is_initial_time())
}

/// Returns the first names, and the number of the others; none if there is no name.
fn names<'a>(all: impl Iterator<Item = &'a str>) -> Option<String> {
    let all: Vec<&str> = all.collect();
    let first = all[..all.len().min(NAMES)].join(", ");
    match all.len().saturating_sub(NAMES) {
        _ if all.is_empty() => None,
        0 => Some(first),
        others => Some(format!("{first} and {others} others")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_the_first_containers_and_counts_the_others() {
        assert_eq!(names([].into_iter()), None);
        assert_eq!(names(["web", "db"].into_iter()).unwrap(), "web, db");
        let many = names(["x"; NAMES + 3].into_iter()).unwrap();
        assert!(many.ends_with("x and 3 others"), "{many}");
    }
}
