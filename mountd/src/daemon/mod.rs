//! The daemon: one event loop, one thread for each control connection, one grafter.
//!
//! The files in their order: each uses only those after it.
//!
//! | file | what it does |
//! |---|---|
//! | [`run`](run()) | sets everything up, runs the loop, and undoes everything |
//! | `event_loop` | hears of commands, signals, and the ends of containers and of the server |
//! | `shutdown` | undoes everything |
//! | `accept`, `control` | accept control connections, and answer what is asked there |
//! | `upgrade`: `successor`, `upgrade_server` | put another version in the place of the one that runs |
//! | `restore` | takes over the containers of the daemon before |
//! | `predecessor`, `inherit` | take over the connections, or make them |
//! | `prepare` | prepares the next attaches, on a thread of its own |
//! | `views_of` | finds views for the supervisor of system calls |
//! | `attach`, `ended`, `inspection_mounts`, `list` | operations on containers, one at a time |
//! | `daemon` | the data of the daemon: the parts that follow |
//! | `supervision` | the life of the server |
//! | `containers` | containers that come and go, and what operations on them take |
//! | `state`: `server_slot` | everything that changes, behind one lock, and the lock of operations |
//! | `journal`, `list_copy` | what is written down for the next daemon, and the list during an upgrade |
//! | `watchdog`, `event_set` | the check that the server answers, and what the loop waits for |
//! | `allocator`, `asker`, `installed`, `listen`, `standard_streams`, `backoff`, `prepared_slot`, `timer`, `prepare_signal`, [`options`] | what knows of no other file here |

mod accept;
mod allocator;
mod asker;
mod attach;
mod backoff;
mod containers;
mod control;
#[allow(
    clippy::module_inception,
    reason = "the folder is the program, the file its data"
)]
mod daemon;
mod ended;
mod event_loop;
mod event_set;
mod inherit;
mod inspection_mounts;
mod installed;
mod journal;
mod list;
mod list_copy;
mod listen;
pub mod options;
mod predecessor;
mod prepare;
mod prepare_signal;
mod prepared_slot;
mod restore;
mod run;
mod server_slot;
mod shutdown;
mod standard_streams;
mod state;
mod successor;
mod supervision;
mod timer;
mod upgrade;
mod upgrade_server;
mod views_of;
mod watchdog;

pub use options::Options;
pub use run::{main, run};
