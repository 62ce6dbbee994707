//! The values that containers ask for, and the values of the host that follow from them.
//!
//! Each change is written down before it is made: the value to give back, the value that is set, and the value that is
//! replaced. So a daemon that is killed anywhere leaves the host with one of the last two. Any other value was set by
//! somebody else, and is left alone.

use std::collections::{BTreeMap, BTreeSet};

use super::host_values::HostValues;
use super::record::{self, Raised, Request, SysctlRecord};
use crate::config::Ceilings;
use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::{Kind, Result};
use eci_fs_protocol::host_sysctl::HostSysctl;

/// The ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) host: HostValues,
    pub(super) runtime: RuntimeDir,
    pub(super) boot_id: String,
    pub(super) ceilings: Ceilings,
    pub(super) entries: BTreeMap<HostSysctl, SysctlRecord>,
    /// The text of the file.
    pub(super) written: Option<String>,
}

impl Ledger {
    /// Opens the ledger with the record of the daemon before.
    pub(super) fn open(
        host: HostValues,
        runtime: RuntimeDir,
        boot_id: &str,
        ceilings: Ceilings,
    ) -> Self {
        let entries = record::read(&runtime, boot_id).unwrap_or_else(|error| {
            // An unreadable record must not keep the daemon from starting. The file is kept for people, who can then
            // set the values by hand.
            let path = runtime.path().join(record::FILE);
            let kept = path.with_extension("json.unreadable");
            tracing::error!(%error, kept = %kept.display(), "values that were raised are not given back");
            let _ = std::fs::rename(&path, kept);
            BTreeMap::new()
        });
        Self {
            host,
            runtime,
            boot_id: boot_id.to_owned(),
            ceilings,
            entries,
            // The file is written anew or removed, whatever it has.
            written: Some(String::new()),
        }
    }

    /// Takes note that a container has set a sysctl to `value`.
    ///
    /// # Errors
    /// When the host's value stays as it is although it should change.
    pub(super) fn request(&mut self, slot: u64, tunable: HostSysctl, value: u64) -> Result<()> {
        let requests = &mut self.entries.entry(tunable).or_default().requests;
        // A server that takes over says the same value again, which is no other request.
        if requests
            .get(&slot)
            .is_none_or(|request| request.value != value)
        {
            requests.insert(slot, Request { value, void: false });
        }
        self.settle(tunable)
    }

    /// Removes the requests of all containers but these.
    pub(super) fn keep(&mut self, slots: &BTreeSet<u64>) {
        for tunable in HostSysctl::ALL {
            if let Some(entry) = self.entries.get_mut(&tunable) {
                entry.requests.retain(|slot, _| slots.contains(slot));
                self.settle_or_say(tunable);
            }
        }
        self.save_or_warn();
    }

    /// Removes the requests of a container that is gone.
    pub(super) fn remove(&mut self, slot: u64) {
        for tunable in HostSysctl::ALL {
            let entry = self.entries.get_mut(&tunable);
            if entry.is_some_and(|entry| entry.requests.remove(&slot).is_some()) {
                self.settle_or_say(tunable);
            }
        }
    }

    fn settle_or_say(&mut self, tunable: HostSysctl) {
        if let Err(error) = self.settle(tunable) {
            tracing::error!(%error, %tunable, "the machine's value is not what it should be");
        }
    }

    /// Gives the host's value what follows from the requests.
    fn settle(&mut self, tunable: HostSysctl) -> Result<()> {
        let present = self.host.read(tunable);
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
            entry
                .requests
                .values_mut()
                .for_each(|request| request.void = true);
        }
        let original = entry.raised.map_or(present, |raised| raised.original);
        let requests = entry.requests.values().filter(|request| !request.void);
        let wanted = requests.map(|request| request.value).max().unwrap_or(0);
        let ceiling = self.ceilings.of(tunable).unwrap_or(0);
        let target = tunable.rounded(wanted, ceiling).max(original);
        if target == original {
            self.give_back(tunable, original, present)
        } else {
            self.set(tunable, original, present, target)
        }
    }

    /// Gives the host its own value again.
    fn give_back(&mut self, tunable: HostSysctl, original: u64, present: u64) -> Result<()> {
        let Some(entry) = self.entries.get_mut(&tunable) else {
            return Ok(());
        };
        if let Some(raised) = &mut entry.raised {
            raised.set = original;
            raised.before = Some(present);
            // On a full disk the value is given back all the same: then nothing is left to give back.
            self.save_or_warn();
            if present != original {
                self.host.write(tunable, original)?;
                tracing::info!(%tunable, from = present, to = original, "the machine's value is given back");
            }
        }
        if let Some(entry) = self.entries.get_mut(&tunable) {
            entry.raised = None;
            entry.requests.retain(|_, request| request.void);
            if entry.requests.is_empty() {
                self.entries.remove(&tunable);
            }
        }
        self.save_or_warn();
        Ok(())
    }

    /// Gives the host a higher value than its own.
    fn set(&mut self, tunable: HostSysctl, original: u64, present: u64, target: u64) -> Result<()> {
        let Some(entry) = self.entries.get_mut(&tunable) else {
            return Ok(());
        };
        let was = entry.raised;
        // A value that is not above the host's own was no request to raise it.
        entry
            .requests
            .retain(|_, request| request.void || request.value > original);
        entry.raised = Some(Raised {
            original,
            set: target,
            before: (present != target).then_some(present),
        });
        let written_down = self.save();
        let done = match &written_down {
            Ok(()) if present != target => self.host.write(tunable, target),
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

    /// As [`Self::save`], where nothing depends on it but what a later daemon says.
    fn save_or_warn(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!(%error, "what is raised is not written down, ignoring");
        }
    }

    /// Returns true if the sysctl may be raised, and a container can have set it to `value`.
    pub(super) fn is_allowed(&self, tunable: HostSysctl, value: u64) -> bool {
        self.ceilings.of(tunable).is_some() && value <= tunable.most()
    }
}
