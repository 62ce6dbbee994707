//! Who wishes what, and what comes of it on the machine.
//!
//! What is about to be done is written down before it is done: the value to give back, the one that is set, and the
//! one that is replaced. So a daemon that is killed anywhere leaves a machine whose value is one of the last two, and
//! any other was set by somebody else, to whom it is left.

use std::collections::{BTreeMap, BTreeSet};

use super::machine::Machine;
use super::record::{self, Entry, Raised, Wish};
use crate::config::Ceilings;
use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::{Kind, Result};
use eci_fs_protocol::host_sysctl::HostSysctl;

/// All of it.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) machine: Machine,
    pub(super) runtime: RuntimeDir,
    pub(super) boot_id: String,
    pub(super) ceilings: Ceilings,
    pub(super) entries: BTreeMap<HostSysctl, Entry>,
    /// What is in the file.
    pub(super) written: Option<String>,
}

impl Ledger {
    /// What the daemon before has left.
    pub(super) fn open(
        machine: Machine,
        runtime: RuntimeDir,
        boot_id: &str,
        ceilings: Ceilings,
    ) -> Self {
        let entries = record::read(&runtime, boot_id).unwrap_or_else(|error| {
            // It must not keep the daemon from starting; the file is kept for whoever sets the values by hand.
            let path = runtime.path().join(record::FILE);
            let kept = path.with_extension("json.unreadable");
            tracing::error!(%error, kept = %kept.display(), "values that were raised are not given back");
            let _ = std::fs::rename(&path, kept);
            BTreeMap::new()
        });
        Self {
            machine,
            runtime,
            boot_id: boot_id.to_owned(),
            ceilings,
            entries,
            // Whatever it is, it is written anew or removed.
            written: Some(String::new()),
        }
    }

    /// A container has set a tunable to `value`.
    ///
    /// # Errors
    /// When the machine's value stays as it is although it should change.
    pub(super) fn wish(&mut self, slot: u64, tunable: HostSysctl, value: u64) -> Result<()> {
        let wishes = &mut self.entries.entry(tunable).or_default().wishes;
        // The same again, as a server that takes over says it, is no other wish.
        if wishes.get(&slot).is_none_or(|wish| wish.value != value) {
            wishes.insert(slot, Wish { value, void: false });
        }
        self.settle(tunable)
    }

    /// Only these containers are left.
    pub(super) fn keep(&mut self, slots: &BTreeSet<u64>) {
        for tunable in HostSysctl::ALL {
            if let Some(entry) = self.entries.get_mut(&tunable) {
                entry.wishes.retain(|slot, _| slots.contains(slot));
                self.settle_or_say(tunable);
            }
        }
        self.save_or_warn();
    }

    /// This container is gone.
    pub(super) fn remove(&mut self, slot: u64) {
        for tunable in HostSysctl::ALL {
            let entry = self.entries.get_mut(&tunable);
            if entry.is_some_and(|entry| entry.wishes.remove(&slot).is_some()) {
                self.settle_or_say(tunable);
            }
        }
    }

    fn settle_or_say(&mut self, tunable: HostSysctl) {
        if let Err(error) = self.settle(tunable) {
            tracing::error!(%error, %tunable, "the machine's value is not what it should be");
        }
    }

    /// Make the machine's value what the wishes make of it.
    fn settle(&mut self, tunable: HostSysctl) -> Result<()> {
        let present = self.machine.read(tunable);
        let Some(entry) = self.entries.get_mut(&tunable) else {
            return Ok(());
        };
        let present = match present {
            Ok(present) => present,
            Err(error) => {
                if error.kind == Kind::NotFound {
                    // The module is gone, and its value with it.
                    self.entries.remove(&tunable);
                    self.save_or_warn();
                }
                return Err(error);
            }
        };
        if let Some(raised) = entry.raised
            && present != raised.set
            && Some(present) != raised.before
        {
            tracing::warn!(
                %tunable,
                present,
                set = raised.set,
                original = raised.original,
                "somebody else has set the machine's value: it is left alone"
            );
            entry.raised = None;
            entry.wishes.values_mut().for_each(|wish| wish.void = true);
        }
        let original = entry.raised.map_or(present, |raised| raised.original);
        let wishes = entry.wishes.values().filter(|wish| !wish.void);
        let wanted = wishes.map(|wish| wish.value).max().unwrap_or(0);
        let ceiling = self.ceilings.of(tunable).unwrap_or(0);
        let target = tunable.rounded(wanted, ceiling).max(original);
        if target == original {
            self.give_back(tunable, original, present)
        } else {
            self.set(tunable, original, present, target)
        }
    }

    /// The machine has its own value again.
    fn give_back(&mut self, tunable: HostSysctl, original: u64, present: u64) -> Result<()> {
        let Some(entry) = self.entries.get_mut(&tunable) else {
            return Ok(());
        };
        if let Some(raised) = &mut entry.raised {
            raised.set = original;
            raised.before = Some(present);
            // On a full disk it is done all the same: nothing is left to give back then.
            self.save_or_warn();
            if present != original {
                self.machine.write(tunable, original)?;
                tracing::info!(%tunable, from = present, to = original, "the machine's value is given back");
            }
        }
        if let Some(entry) = self.entries.get_mut(&tunable) {
            entry.raised = None;
            entry.wishes.retain(|_, wish| wish.void);
            if entry.wishes.is_empty() {
                self.entries.remove(&tunable);
            }
        }
        self.save_or_warn();
        Ok(())
    }

    /// The machine has a higher value than its own.
    fn set(&mut self, tunable: HostSysctl, original: u64, present: u64, target: u64) -> Result<()> {
        let Some(entry) = self.entries.get_mut(&tunable) else {
            return Ok(());
        };
        let was = entry.raised;
        // What is not above the machine's own value was no wish to raise it.
        entry
            .wishes
            .retain(|_, wish| wish.void || wish.value > original);
        entry.raised = Some(Raised {
            original,
            set: target,
            before: (present != target).then_some(present),
        });
        let written_down = self.save();
        let done = match &written_down {
            Ok(()) if present != target => self.machine.write(tunable, target),
            _ => Ok(()),
        };
        if let Some(entry) = self.entries.get_mut(&tunable) {
            match &mut entry.raised {
                Some(raised) if written_down.is_ok() && done.is_ok() => raised.before = None,
                raised => *raised = was,
            }
        }
        written_down?;
        self.save_or_warn();
        done?;
        if present != target {
            tracing::info!(%tunable, original, from = present, to = target, "the machine's value is changed");
        }
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        let text = record::encode(&self.boot_id, &self.entries)?;
        if text == self.written {
            return Ok(());
        }
        match &text {
            Some(text) => self.runtime.write(record::FILE, text)?,
            None => self.runtime.remove(record::FILE)?,
        }
        self.written = text;
        Ok(())
    }

    /// The same where nothing depends on it but what a later daemon says.
    fn save_or_warn(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!(%error, "what is raised is not written down, ignoring");
        }
    }

    /// Whether one may be raised, and a container can have set it to `value`.
    pub(super) fn may_be(&self, tunable: HostSysctl, value: u64) -> bool {
        self.ceilings.of(tunable).is_some() && value <= tunable.most()
    }
}
