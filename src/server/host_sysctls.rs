//! Sysctls of the host: the daemon is told the values that containers set, where it may raise the host's.
//!
//! A write is answered when the daemon has been told, so that a program which has raised a limit can use it at once. The
//! container has the value before that, so nothing is lost with a daemon: the next one is told all values.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs_protocol::host_sysctl::HostSysctl;
use eci_fs_protocol::link::BrokerRequest;
use parking_lot::{Condvar, Mutex};

use crate::server::broker::{BrokerClient, NoAnswer};

/// The time that a write waits for the daemon.
const PATIENCE: Duration = Duration::from_secs(2);

/// A function that is called when a write is to be answered.
pub type Answer = Box<dyn FnOnce() + Send>;

/// A tunable of the container in a slot.
type Key = (u64, HostSysctl);

/// Tells the daemon of the values that containers set.
#[derive(Debug)]
pub struct HostSysctls {
    broker: Arc<BrokerClient>,
    queue: Mutex<Queue>,
    added: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The tunables that the daemon wants to hear of.
    wanted: BTreeSet<HostSysctl>,
    /// The values that it has not heard yet, and the writes that wait for that.
    news: BTreeMap<Key, Vec<Answer>>,
    /// The value that was told last, so that all have their turn.
    last: Option<Key>,
    /// True if it has not answered in time: no write waits for it until it does.
    silent: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl HostSysctls {
    /// Makes the queue, which tells the daemon by `broker` once that says of which tunables it wants to hear.
    pub fn new(broker: Arc<BrokerClient>) -> Self {
        Self {
            broker,
            queue: Mutex::default(),
            added: Condvar::new(),
        }
    }

    /// Tells the daemon of these tunables from now on.
    pub fn begin(&self, tunables: Vec<HostSysctl>) {
        self.queue.lock().wanted = tunables.into_iter().collect();
    }

    /// Returns whether the daemon wants to hear of a tunable.
    pub fn wants(&self, tunable: HostSysctl) -> bool {
        self.queue.lock().wanted.contains(&tunable)
    }

    /// Tells the daemon that a container has set a tunable, and calls `answer` when the daemon knows, or does not say so in
    /// time.
    pub fn tell(&self, slot: u64, tunable: HostSysctl, answer: Option<Answer>) {
        let mut queue = self.queue.lock();
        let silent = queue.silent;
        let waiting = queue.news.entry((slot, tunable)).or_default();
        let answer = match answer {
            Some(answer) if !silent => {
                waiting.push(answer);
                None
            }
            other => other,
        };
        drop(queue);
        self.added.notify_one();
        if let Some(answer) = answer {
            answer();
        }
    }

    /// Forgets what was to be told: the daemon is gone, and the next one is told all values.
    fn forget(&self) {
        let news = std::mem::take(&mut self.queue.lock().news);
        news.into_values().flatten().for_each(|answer| answer());
    }

    /// Tells the daemon until the process ends; `value` returns the value that a container has set, if it is there.
    pub fn run(&self, value: impl Fn(u64, HostSysctl) -> Option<u64>) {
        loop {
            let (key, answers) = self.next();
            let (slot, tunable) = key;
            // The value of this moment, so that the last word is the last value, whoever writes at the same time.
            let told = match value(slot, tunable) {
                Some(value) => self.broker.tell(
                    &BrokerRequest::SetHostSysctl {
                        slot,
                        tunable,
                        value,
                        number: None,
                    },
                    Instant::now() + PATIENCE,
                ),
                None => Ok(()),
            };
            match told {
                Ok(()) => self.queue.lock().silent = false,
                Err(NoAnswer::Gone(error)) => {
                    tracing::debug!(%error, "there is no daemon to tell, the next one will be");
                    self.queue.lock().silent = false;
                    self.forget();
                }
                Err(NoAnswer::Late) => self.be_silent(key),
            }
            answers.into_iter().for_each(|answer| answer());
        }
    }

    /// Waits for the value that is to be told next.
    fn next(&self) -> (Key, Vec<Answer>) {
        let mut queue = self.queue.lock();
        loop {
            let after = queue.last.map_or(Unbounded, Excluded);
            let mut later = queue.news.range((after, Unbounded));
            let next = later.next().or_else(|| queue.news.first_key_value());
            if let Some(key) = next.map(|(key, _)| *key) {
                queue.last = Some(key);
                return (key, queue.news.remove(&key).unwrap_or_default());
            }
            self.added.wait(&mut queue);
        }
    }

    /// Answers all writes that wait, because the daemon takes too long. It hears of all values when it hears again.
    fn be_silent(&self, key: Key) {
        let mut queue = self.queue.lock();
        if !queue.silent {
            tracing::warn!("the daemon does not say that it has raised what a container set");
        }
        queue.silent = true;
        queue.news.entry(key).or_default();
        let answers: Vec<Answer> = queue.news.values_mut().flat_map(std::mem::take).collect();
        drop(queue);
        answers.into_iter().for_each(|answer| answer());
    }
}
