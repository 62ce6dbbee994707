//! The list in the runtime directory. Each container has a file, so that an attach takes no longer when there are many,
//! and one file has all that they have in common.
//!
//! In the first version of the list one file had all containers. It is still read. It is also written for a daemon that
//! takes the place of this one and may be of any version.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Container, Registry, Saved, SavedContainer};
use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::{Error, Kind, Result};

/// The file with all that the containers have in common.
const FILE: &str = "containers.json";

/// The name of the directory of the containers' files, which are named by their slots.
pub const DIR: &str = "containers";

/// The content of [`FILE`]. It has a version, because the daemon that reads it may be a later one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "version")]
enum Head {
    /// Everything.
    #[serde(rename = "1")]
    V1 {
        boot_id: String,
        next_slot: u64,
        /// None in a file of version 0.1.0, which gave out all slots below `next_slot`.
        #[serde(default)]
        counted_below: Option<u64>,
        #[serde(rename = "machine_secret", default)]
        host_secret: Option<[u8; 32]>,
        containers: Vec<SavedContainer>,
    },
    /// The containers have files of their own.
    #[serde(rename = "2")]
    V2 {
        boot_id: String,
        next_slot: u64,
        /// As in [`Head::V1`].
        #[serde(default)]
        counted_below: Option<u64>,
        #[serde(rename = "machine_secret")]
        host_secret: Option<[u8; 32]>,
    },
}

/// The content of the file of a container.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ContainerFile {
    /// The kernel's boot_id: a file of another boot means nothing.
    boot_id: String,
    container: SavedContainer,
}

impl Saved {
    /// Reads the list that a daemon has left in the runtime directory, if there is one. A file that cannot be read is
    /// set aside: losing it must not keep the daemon from starting, and people may ask why.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn read(runtime: &RuntimeDir) -> Result<Option<Self>> {
        Ok(Self::read_with(runtime, set_aside)?.map(Self::sorted))
    }

    /// Reads the list like [`Self::read`], and changes nothing: for a command, beside a daemon that may be dead.
    ///
    /// # Errors
    /// When the directory or a file cannot be read.
    pub fn look(runtime: &RuntimeDir) -> Result<Option<Self>> {
        let read = Self::read_with(runtime, |path, error| {
            Err(Error::io("read", path, std::io::Error::from(error)))
        });
        Ok(read?.map(Self::sorted))
    }

    /// Reads the list. `unreadable` gets the path of a file that cannot be understood.
    fn read_with(
        runtime: &RuntimeDir,
        unreadable: fn(&Path, serde_json::Error) -> Result<()>,
    ) -> Result<Option<Self>> {
        let is_counted;
        let mut saved = match parse(runtime, FILE, unreadable)? {
            None => return Ok(None),
            Some(Head::V1 {
                boot_id,
                next_slot,
                counted_below,
                host_secret,
                containers,
            }) => {
                return Ok(Some(Self {
                    boot_id,
                    next_slot,
                    counted_below: counted_below.unwrap_or(next_slot),
                    host_secret,
                    containers,
                    in_files: Vec::new(),
                }));
            }
            Some(Head::V2 {
                boot_id,
                next_slot,
                counted_below,
                host_secret,
            }) => {
                is_counted = counted_below.is_none();
                Self {
                    boot_id,
                    next_slot,
                    counted_below: counted_below.unwrap_or(next_slot),
                    host_secret,
                    containers: Vec::new(),
                    in_files: Vec::new(),
                }
            }
        };
        let dir = match RuntimeDir::open(&runtime.path().join(DIR)) {
            Err(error) if error.kind == Kind::NotFound => return Ok(Some(saved)),
            other => other?,
        };
        let mut slots: Vec<u64> = dir
            .names()?
            .iter()
            .filter_map(|name| slot_of(name))
            .collect();
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            if is_counted {
                saved.next_slot = saved.next_slot.max(slot.saturating_add(1));
                saved.counted_below = saved.next_slot;
            }
            saved.in_files.push(slot);
            match parse::<ContainerFile>(&dir, &file_of(slot), unreadable)? {
                Some(entry) if entry.boot_id == saved.boot_id && entry.container.slot == slot => {
                    saved.containers.push(entry.container);
                }
                _ => {}
            }
        }
        Ok(Some(saved))
    }
}

impl Registry {
    /// Writes down what has changed since the last time. What could not be written is tried again the next time.
    ///
    /// # Errors
    /// When the disk is full or the directory is read-only.
    pub fn write(&mut self, runtime: &RuntimeDir) -> Result<()> {
        let dir = runtime.subdirectory(DIR)?;
        if self.written.is_none() {
            self.changed.extend(self.containers.keys());
            self.clear(&dir)?;
        }
        // Files of containers that are gone come first: that gives space back.
        let (there, gone): (Vec<u64>, Vec<u64>) =
            (self.changed.iter().copied()).partition(|slot| self.containers.contains_key(slot));
        // A container that goes needs no space: no slot was given out.
        let is_new = self.written.is_none() || !there.is_empty();
        let mut outcome = Ok(());
        for slot in gone.into_iter().chain(there) {
            match self.write_one(slot, &dir) {
                Ok(()) => drop(self.changed.remove(&slot)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome?;
        let next_slot = self.slots.next();
        if is_new && self.written != Some(next_slot) {
            let head = Head::V2 {
                boot_id: self.boot_id.clone(),
                next_slot,
                counted_below: Some(self.slots.counted_below()),
                host_secret: Some(self.host_secret),
            };
            runtime.write(FILE, &encode(&head, runtime.path())?)?;
            self.written = Some(next_slot);
        }
        Ok(())
    }

    fn write_one(&self, slot: u64, dir: &RuntimeDir) -> Result<()> {
        let Some(container) = self.containers.get(&slot) else {
            return dir.remove(&file_of(slot));
        };
        let entry = ContainerFile {
            boot_id: self.boot_id.clone(),
            container: container.saved(slot),
        };
        dir.write(&file_of(slot), &encode(&entry, dir.path())?)
    }

    /// Writes everything down in one file, as any version can read it.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_whole(&mut self, runtime: &RuntimeDir) -> Result<()> {
        let head = Head::V1 {
            boot_id: self.boot_id.clone(),
            next_slot: self.slots.next(),
            counted_below: Some(self.slots.counted_below()),
            host_secret: Some(self.host_secret),
            containers: self.iter().map(|(slot, one)| one.saved(slot)).collect(),
        };
        // From here on the content of the directory is not known, whether this succeeds or fails.
        self.written = None;
        runtime.write(FILE, &encode(&head, runtime.path())?)
    }

    /// Removes the files of containers that are not there, and files that were begun.
    fn clear(&self, dir: &RuntimeDir) -> Result<()> {
        for name in dir.names()? {
            let begun = name.strip_suffix(".new");
            let slot = slot_of(begun.unwrap_or(&name));
            if slot.is_some_and(|slot| begun.is_some() || !self.containers.contains_key(&slot)) {
                dir.remove(&name)?;
            }
        }
        Ok(())
    }
}

impl Container {
    fn saved(&self, slot: u64) -> SavedContainer {
        let mounts = self.mounts.iter();
        SavedContainer {
            id: self.id.clone(),
            slot,
            pid: self.subject.pid,
            start_ticks: self.subject.start_ticks,
            grafted: self.grafted.clone(),
            mounts: mounts.map(|m| (m.dir.clone(), m.created)).collect(),
            choice: self.choice,
            cgroups: self.cgroups.clone(),
            choices: self.choices.clone(),
            boot_id: Some(self.secrets.boot_id),
            root: self.root.clone(),
            locked: self.locked,
            engine_root: self.engine_root.clone(),
            measures_cpus: self.measures_cpus,
            generation: self.secrets.generation,
        }
    }
}

fn file_of(slot: u64) -> String {
    format!("{slot}.json")
}

fn slot_of(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
}

fn encode<T: Serialize>(value: &T, path: &Path) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::io("encode what is for", path, std::io::Error::from(e)))
}

/// Returns the content of a file; none if it is not there, or if `unreadable` allows that it cannot be understood.
fn parse<T: DeserializeOwned>(
    dir: &RuntimeDir,
    name: &str,
    unreadable: fn(&Path, serde_json::Error) -> Result<()>,
) -> Result<Option<T>> {
    let Some(text) = dir.read(name)? else {
        return Ok(None);
    };
    match serde_json::from_str(&text) {
        Ok(value) => Ok(Some(value)),
        Err(error) => unreadable(&dir.path().join(name), error).map(|()| None),
    }
}

/// Gives a file that cannot be understood another name.
#[allow(
    clippy::unnecessary_wraps,
    reason = "it is called where another one returns an error"
)]
fn set_aside(path: &Path, error: serde_json::Error) -> Result<()> {
    tracing::warn!(path = %path.display(), %error, "a list of containers cannot be read; starting without it");
    let _ = std::fs::rename(path, path.with_extension("json.unreadable"));
    Ok(())
}

#[cfg(test)]
mod tests;
