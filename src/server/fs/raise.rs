//! Tunables that may be raised on the machine: the daemon is told what containers set them to.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use eci_fs_emulators::{HostSysctl, TUNABLES, Tunable, tunable};
use eci_fs_protocol::raisable::Raisable;

use super::Tree;
use crate::server::host_sysctls::Answer;
use crate::server::ids::{Node, NodeId};

impl Tree {
    /// The daemon wants to hear of these, also of what was written already.
    pub fn raise(&self, tunables: Vec<Raisable>) {
        if let Some(services) = &self.services {
            services.raises.begin(tunables);
            self.tell_all();
        }
    }

    /// Tell the daemon of all that was written.
    pub(super) fn tell_all(&self) {
        let Some(services) = &self.services else {
            return;
        };
        for container in &self.containers {
            for (emulator, _) in container.tunables().all() {
                let raised = tunable(emulator).and_then(raisable);
                if let Some(tunable) = raised.filter(|one| services.raises.wants(*one)) {
                    services.raises.tell(*container.key(), tunable, None);
                }
            }
        }
    }

    /// Whether what is written to a node is the daemon's to hear of before the write is answered.
    pub fn is_raised(&self, id: NodeId) -> bool {
        let wants = |raised| {
            let services = self.services.as_ref();
            services.is_some_and(|services| services.raises.wants(raised))
        };
        self.raised(id).is_some_and(|(_, raised)| wants(raised))
    }

    /// One of those was written; `answer` is called when the daemon has heard of it, or does not say so in time.
    pub fn tell(&self, id: NodeId, answer: Answer) {
        match (&self.services, self.raised(id)) {
            (Some(services), Some((slot, raised))) => {
                services.raises.tell(slot, raised, Some(answer));
            }
            _ => answer(),
        }
    }

    /// Tell the daemon; runs until the process ends.
    pub fn tell_for_ever(&self) {
        let Some(services) = &self.services else {
            return;
        };
        services.raises.run(|slot, raised| {
            let container = self.container(slot).ok()?;
            let value = container.tunables().get(id_of(raised)?)?;
            std::str::from_utf8(&value).ok()?.trim().parse().ok()
        });
    }

    fn raised(&self, id: NodeId) -> Option<(u64, Raisable)> {
        let Node::View { slot, emulator } = id.node() else {
            return None;
        };
        Some((slot, raisable(tunable(emulator)?)?))
    }
}

/// Returns the tunable of the host that can be raised by one of a container.
fn raisable(tunable: &Tunable) -> Option<Raisable> {
    Some(match tunable.raised()? {
        HostSysctl::FileMax => Raisable::FileMax,
        HostSysctl::NrOpen => Raisable::NrOpen,
        HostSysctl::ConntrackMax => Raisable::ConntrackMax,
        HostSysctl::ConntrackHashsize => Raisable::ConntrackHashsize,
    })
}

/// Returns the number of the tunable by which a container raises one of the host.
fn id_of(raised: Raisable) -> Option<u16> {
    static IDS: LazyLock<BTreeMap<Raisable, u16>> = LazyLock::new(|| {
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
        for raised in Raisable::ALL {
            let tunable = id_of(raised).and_then(tunable).unwrap();
            assert_eq!(tunable.path(), raised.path());
        }
    }
}
