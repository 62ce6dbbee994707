//! The records of the state, as values.

use std::time::Duration;

use eci_fs_emulators::{Load, Shown};
use eci_fs_protocol::link::Resource;
use serde::{Deserialize, Serialize};

/// One fact that the next server must know. The order of the variants and of their fields is the format. New variants
/// come last; any other change is a new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The counters that a container was shown last.
    History {
        /// The slot of the container.
        slot: u64,
        /// The counters.
        shown: Shown,
    },
    /// The load of a container.
    Load {
        /// The slot of the container.
        slot: u64,
        /// Averages and threads.
        load: Load,
        /// The time of the last count, in nanoseconds of CLOCK_MONOTONIC.
        counted_nsec: u64,
    },
    /// A file that is open on the live connection. Its text follows.
    Snapshot(Snapshot),
    /// A pressure trigger.
    Trigger(Trigger),
    /// The value that a container has written to a tunable.
    Tunable {
        /// The slot of the container.
        slot: u64,
        /// The id of the emulator.
        emulator: u16,
        /// The value, in the kernel's format.
        value: Vec<u8>,
    },
    /// The path of the host that a node id below a directory graft stands for, the same for all containers.
    Path {
        /// The number in the node id.
        number: u64,
        /// The id of the emulator of the directory.
        directory: u16,
        /// The path below it.
        path: String,
    },
    /// The name in the network namespace of a container that a node id below a directory graft stands for.
    OwnPath {
        /// The container's slot.
        slot: u64,
        /// The number in the node id.
        number: u64,
        /// The id of the emulator of the directory.
        directory: u16,
        /// The path below it.
        path: String,
    },
    /// The size and the time that the kernel was told last of a cached view whose size can change. The text follows.
    Version {
        /// The slot of the container.
        slot: u64,
        /// The id of the emulator.
        emulator: u16,
        /// The size in bytes that was announced, which may be more than that of the text.
        size: u64,
        /// The time that was announced, since 1970.
        mtime: Duration,
    },
}

/// A file that is open on the live connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The number of the file.
    pub handle: u64,
    /// The node.
    pub node: u64,
    /// The request that opened it, as the kernel numbers them.
    pub request: u64,
    /// The time at which its text was computed, in nanoseconds of CLOCK_MONOTONIC.
    pub taken_nsec: u64,
}

/// A pressure trigger that is armed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The slot of its container.
    pub slot: u64,
    /// The open file.
    pub handle: u64,
    /// The resource.
    pub resource: Resource,
    /// The bytes that the container wrote.
    pub trigger: Vec<u8>,
    /// The number by which the kernel wants to be woken, if somebody polls.
    pub poll: Option<u64>,
    /// True if it has fired, and it is not certain that a reader was told.
    pub fired: bool,
}

/// The key of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// The history of the container in this slot.
    History(u64),
    /// The load of the container in this slot.
    Load(u64),
    /// The snapshot of the open file with this number.
    Snapshot(u64),
    /// The trigger of the open file with this number.
    Trigger(u64),
    /// A tunable of the container in this slot, by the id of the emulator.
    Tunable(u64, u16),
    /// The path of the host with this number.
    Path(u64),
    /// A name of the container in this slot, by the number in the node id.
    OwnPath(u64, u64),
    /// A cached view of the container in this slot, by the id of the emulator.
    Version(u64, u16),
}

/// The slot of no container.
pub const NO_SLOT: u64 = 0;

impl Record {
    /// Returns its key.
    pub fn key(&self) -> Key {
        match self {
            Self::History { slot, .. } => Key::History(*slot),
            Self::Load { slot, .. } => Key::Load(*slot),
            Self::Snapshot(snapshot) => Key::Snapshot(snapshot.handle),
            Self::Trigger(trigger) => Key::Trigger(trigger.handle),
            Self::Tunable { slot, emulator, .. } => Key::Tunable(*slot, *emulator),
            Self::Path { number, .. } => Key::Path(*number),
            Self::OwnPath { slot, number, .. } => Key::OwnPath(*slot, *number),
            Self::Version { slot, emulator, .. } => Key::Version(*slot, *emulator),
        }
    }

    /// Returns the slot of its container; [`NO_SLOT`] if it belongs to none.
    pub fn slot(&self) -> u64 {
        match self {
            Self::History { slot, .. }
            | Self::Load { slot, .. }
            | Self::Tunable { slot, .. }
            | Self::OwnPath { slot, .. }
            | Self::Version { slot, .. } => *slot,
            Self::Snapshot(snapshot) => crate::server::ids::NodeId::from_raw(snapshot.node).slot(),
            Self::Trigger(trigger) => trigger.slot,
            Self::Path { .. } => NO_SLOT,
        }
    }

    /// Returns the record as bytes, followed by its text.
    pub(super) fn encode(&self, text: &[u8]) -> Vec<u8> {
        let room = Vec::with_capacity(text.len() + 128);
        // Writing to memory cannot fail. Empty bytes would be no record.
        let mut bytes = postcard::to_extend(self, room).unwrap_or_default();
        bytes.extend_from_slice(text);
        bytes
    }

    /// Returns the record in some bytes, and its text; none if they are no record.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        postcard::take_from_bytes(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use eci_fs_emulators::Threads;
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = Record> {
        let load = any::<(u64, [u64; 3], [u32; 4], u64)>().prop_map(
            |(slot, avenrun, [running, uninterruptible, total, last_pid], counted_nsec)| {
                Record::Load {
                    slot,
                    load: Load {
                        avenrun,
                        threads: Threads {
                            running,
                            uninterruptible,
                            total,
                            last_pid,
                        },
                    },
                    counted_nsec,
                }
            },
        );
        let snapshot = any::<[u64; 4]>().prop_map(|[handle, node, request, taken_nsec]| {
            Record::Snapshot(Snapshot {
                handle,
                node,
                request,
                taken_nsec,
            })
        });
        let trigger = any::<(u64, u64, Vec<u8>, Option<u64>, bool)>().prop_map(
            |(slot, handle, trigger, poll, fired)| {
                Record::Trigger(Trigger {
                    slot,
                    handle,
                    resource: Resource::Memory,
                    trigger,
                    poll,
                    fired,
                })
            },
        );
        let tunable =
            any::<(u64, u16, Vec<u8>)>().prop_map(|(slot, emulator, value)| Record::Tunable {
                slot,
                emulator,
                value,
            });
        let path = any::<(u64, u16, String)>().prop_map(|(number, directory, path)| Record::Path {
            number,
            directory,
            path,
        });
        let own_path =
            any::<(u64, u64, u16, String)>().prop_map(|(slot, number, directory, path)| {
                Record::OwnPath {
                    slot,
                    number,
                    directory,
                    path,
                }
            });
        let version =
            any::<(u64, u16, u64, Duration)>().prop_map(|(slot, emulator, size, mtime)| {
                Record::Version {
                    slot,
                    emulator,
                    size,
                    mtime,
                }
            });
        prop_oneof![load, snapshot, trigger, tunable, path, own_path, version]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(record in records(), text: Vec<u8>) {
            let bytes = record.encode(&text);
            let (again, rest) = Record::decode(&bytes).unwrap();
            prop_assert_eq!((again, rest), (record, &text[..]));
        }

        #[test]
        fn any_bytes_are_a_record_or_none(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }

    /// The next release must read the records of this one.
    #[test]
    fn the_bytes_of_version_1_are_kept() {
        let snapshot = Record::Snapshot(Snapshot {
            handle: 300,
            node: 2,
            request: 3,
            taken_nsec: 4,
        });
        assert_eq!(snapshot.encode(b"x"), [2, 0xac, 2, 2, 3, 4, b'x']);
        let trigger = Record::Trigger(Trigger {
            slot: 1,
            handle: 2,
            resource: Resource::Io,
            trigger: b"s".to_vec(),
            poll: Some(5),
            fired: true,
        });
        assert_eq!(trigger.encode(b""), [3, 1, 2, 2, 1, b's', 1, 5, 1]);
        let tunable = Record::Tunable {
            slot: 1,
            emulator: 300,
            value: b"7\n".to_vec(),
        };
        assert_eq!(tunable.encode(b""), [4, 1, 0xac, 2, 2, b'7', b'\n']);
        let path = Record::Path {
            number: 1,
            directory: 2,
            path: "x".to_owned(),
        };
        assert_eq!(path.encode(b""), [5, 1, 2, 1, b'x']);
        let own_path = Record::OwnPath {
            slot: 3,
            number: 1,
            directory: 2,
            path: "x".to_owned(),
        };
        assert_eq!(own_path.encode(b""), [6, 3, 1, 2, 1, b'x']);
        let version = Record::Version {
            slot: 3,
            emulator: 16,
            size: 5,
            mtime: Duration::new(7, 9),
        };
        assert_eq!(
            version.encode(b"1 2\n"),
            [7, 3, 16, 5, 7, 9, b'1', b' ', b'2', b'\n']
        );
        let load = Record::Load {
            slot: 1,
            load: Load {
                avenrun: [1, 2, 3],
                threads: Threads {
                    running: 4,
                    uninterruptible: 5,
                    total: 6,
                    last_pid: 7,
                },
            },
            counted_nsec: 8,
        };
        assert_eq!(load.encode(b""), [1, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
