//! Telling the daemon what containers have set tunables to, where that may be raised on the machine.
//!
//! A write is answered when the daemon has been told, so that who has raised a limit can use it at once. It is the
//! container's own value before that, so nothing is lost with a daemon: the next one is told all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs_protocol::host_sysctl::HostSysctl;
use eci_fs_protocol::link::BrokerRequest;
use parking_lot::{Condvar, Mutex};

use crate::server::broker::{BrokerClient, Silence};

/// How long a write waits for the daemon.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is called when a write is to be answered.
pub type Answer = Box<dyn FnOnce() + Send>;

/// One tunable of one container, by its slot.
type Key = (u64, HostSysctl);

/// What is to be told.
#[derive(Debug)]
pub struct HostSysctls {
    asks: Arc<BrokerClient>,
    inner: Mutex<Inner>,
    todo: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Those that the daemon wants to hear of.
    raised: BTreeSet<HostSysctl>,
    /// What it has not heard yet, and who waits for that.
    news: BTreeMap<Key, Vec<Answer>>,
    /// The one that was told last, so that all have their turn.
    last: Option<Key>,
    /// It has not answered in time: nobody waits for it until it does.
    silent: bool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl HostSysctls {
    /// Tell the daemon over `asks`, once it says of which it wants to hear.
    pub fn new(asks: Arc<BrokerClient>) -> Self {
        Self {
            asks,
            inner: Mutex::default(),
            todo: Condvar::new(),
        }
    }

    /// The daemon wants to hear of these.
    pub fn begin(&self, tunables: Vec<HostSysctl>) {
        self.inner.lock().raised = tunables.into_iter().collect();
    }

    /// Whether the daemon wants to hear of this one.
    pub fn wants(&self, tunable: HostSysctl) -> bool {
        self.inner.lock().raised.contains(&tunable)
    }

    /// A container has set one; `answer` is called when the daemon knows, or does not say so in time.
    pub fn tell(&self, slot: u64, tunable: HostSysctl, answer: Option<Answer>) {
        let mut inner = self.inner.lock();
        let silent = inner.silent;
        let waiting = inner.news.entry((slot, tunable)).or_default();
        let answer = match answer {
            Some(answer) if !silent => {
                waiting.push(answer);
                None
            }
            other => other,
        };
        drop(inner);
        self.todo.notify_one();
        if let Some(answer) = answer {
            answer();
        }
    }

    /// Tell nothing of what was to be told: the daemon is gone, and the next one is told all.
    fn forget(&self) {
        let news = std::mem::take(&mut self.inner.lock().news);
        news.into_values().flatten().for_each(|answer| answer());
    }

    /// Tell the daemon until the process ends; `value` looks up what a container has set, if it is there.
    pub fn run(&self, value: impl Fn(u64, HostSysctl) -> Option<u64>) {
        loop {
            let (key, answers) = self.next();
            let (slot, tunable) = key;
            // As it is now, so that the last word is the last value, whoever writes at the same time.
            let told = match value(slot, tunable) {
                Some(value) => self.asks.tell(
                    &BrokerRequest::SetHostSysctl {
                        slot,
                        tunable,
                        value,
                    },
                    Instant::now() + PATIENCE,
                ),
                None => Ok(()),
            };
            match told {
                Ok(()) => self.inner.lock().silent = false,
                Err(Silence::Gone(error)) => {
                    tracing::debug!(%error, "there is no daemon to tell, the next one will be");
                    self.inner.lock().silent = false;
                    self.forget();
                }
                Err(Silence::Late) => self.be_silent(key),
            }
            answers.into_iter().for_each(|answer| answer());
        }
    }

    /// What is to be told next.
    fn next(&self) -> (Key, Vec<Answer>) {
        let mut inner = self.inner.lock();
        loop {
            let after = inner.last.map_or(Unbounded, Excluded);
            let mut later = inner.news.range((after, Unbounded));
            let next = later.next().or_else(|| inner.news.first_key_value());
            if let Some(key) = next.map(|(key, _)| *key) {
                inner.last = Some(key);
                return (key, inner.news.remove(&key).unwrap_or_default());
            }
            self.todo.wait(&mut inner);
        }
    }

    /// The daemon takes too long: whoever waits is answered, and it hears of all when it hears again.
    fn be_silent(&self, key: Key) {
        let mut inner = self.inner.lock();
        if !inner.silent {
            tracing::warn!("the daemon does not say that it has raised what a container set");
        }
        inner.silent = true;
        inner.news.entry(key).or_default();
        let answers: Vec<Answer> = inner.news.values_mut().flat_map(std::mem::take).collect();
        drop(inner);
        answers.into_iter().for_each(|answer| answer());
    }
}
