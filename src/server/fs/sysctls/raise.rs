//! Tunables that may be raised on the host: the daemon is told the values that containers give them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use eci_fs_emulators as emulators;
use eci_fs_emulators::{TUNABLES, Tunable, tunable};
use eci_fs_protocol::host_sysctl::HostSysctl;

use super::Sysctls;
use crate::server::fs::containers::View;
use crate::server::host_sysctls::Answer;

impl Sysctls {
    /// Tells the daemon of these from now on, also of what was written already.
    pub(in crate::server::fs) fn raise(&self, tunables: Vec<HostSysctl>) {
        if let Some(host_sysctls) = &self.host_sysctls {
            host_sysctls.begin(tunables);
            self.report_all();
        }
    }

    /// Tells the daemon of all values that containers have written.
    pub(in crate::server::fs) fn report_all(&self) {
        let Some(host_sysctls) = &self.host_sysctls else {
            return;
        };
        for container in self.containers.iter() {
            for (emulator, _) in container.tunables().all() {
                let raised = tunable(emulator).and_then(raisable);
                if let Some(tunable) = raised.filter(|one| host_sysctls.wants(*one)) {
                    host_sysctls.tell(*container.key(), tunable, None);
                }
            }
        }
    }

    /// Returns the sysctl of the host that a write to a tunable may raise; none when the daemon need not hear of it before
    /// the write is answered.
    pub(in crate::server::fs) fn raised_by(&self, tunable: &Tunable) -> Option<HostSysctl> {
        let host_sysctls = self.host_sysctls.as_ref()?;
        raisable(tunable).filter(|raised| host_sysctls.wants(*raised))
    }

    /// Tells the daemon of a write, and calls `answer` when the daemon has heard of it, or does not say so in time.
    pub(in crate::server::fs) fn report(&self, view: &View, raised: HostSysctl, answer: Answer) {
        match &self.host_sysctls {
            Some(host_sysctls) => host_sysctls.tell(view.id.slot(), raised, Some(answer)),
            None => answer(),
        }
    }

    /// Tells the daemon of what containers write. It runs until the process ends.
    pub(in crate::server::fs) fn report_forever(&self) {
        let Some(host_sysctls) = &self.host_sysctls else {
            return;
        };
        host_sysctls.run(|slot, raised| {
            let container = self.containers.get(slot).ok()?;
            let value = container.tunables().get(id_of(raised)?)?;
            std::str::from_utf8(&value).ok()?.trim().parse().ok()
        });
    }
}

/// Returns the tunable of the host that can be raised by one of a container.
fn raisable(tunable: &Tunable) -> Option<HostSysctl> {
    Some(match tunable.raised()? {
        emulators::HostSysctl::FileMax => HostSysctl::FileMax,
        emulators::HostSysctl::NrOpen => HostSysctl::NrOpen,
        emulators::HostSysctl::ConntrackMax => HostSysctl::ConntrackMax,
        emulators::HostSysctl::ConntrackHashsize => HostSysctl::ConntrackHashsize,
    })
}

/// Returns the number of the tunable by which a container raises one of the host.
fn id_of(raised: HostSysctl) -> Option<u16> {
    static IDS: LazyLock<BTreeMap<HostSysctl, u16>> = LazyLock::new(|| {
        let all = TUNABLES.iter().copied().flatten();
        all.filter_map(|tunable| Some((raisable(tunable)?, tunable.id())))
            .collect()
    });
    IDS.get(&raised).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tunable_of_the_host_is_raised_by_the_one_at_its_path() {
        for raised in HostSysctl::ALL {
            let tunable = id_of(raised).and_then(tunable).unwrap();
            assert_eq!(tunable.path(), raised.path());
        }
    }
}
