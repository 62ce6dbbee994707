//! Tunables that may be raised on the machine: the daemon is told what containers set them to.

use eci_fs_emulators::tunable;
use eci_fs_emulators::tunable::Policy;
use eci_fs_emulators::{TUNABLES, Tunable};
use eci_fs_protocol::host_sysctl::HostSysctl;

use super::Tree;
use crate::server::host_sysctls::Answer;
use crate::server::ids::{Node, NodeId};

impl Tree {
    /// The daemon wants to hear of these, also of what was written already.
    pub fn raise(&self, tunables: Vec<HostSysctl>) {
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
            let all = TUNABLES.iter().copied().flatten();
            let value = all
                .filter(|tunable| tunable.path() == raised.path())
                .find_map(|tunable| container.tunables().get(tunable.id()))?;
            std::str::from_utf8(&value).ok()?.trim().parse().ok()
        });
    }

    fn raised(&self, id: NodeId) -> Option<(u64, HostSysctl)> {
        let Node::View { slot, emulator } = id.node() else {
            return None;
        };
        Some((slot, raisable(tunable(emulator)?)?))
    }
}

fn raisable(tunable: &Tunable) -> Option<HostSysctl> {
    (tunable.policy == Policy::Raise)
        .then(|| HostSysctl::of_path(tunable.path()))
        .flatten()
}
