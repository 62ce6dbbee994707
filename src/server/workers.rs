//! Workers for requests that can sleep: reading a file of the host's /sys can take as long as a driver likes.
//!
//! The threads that read from `/dev/fuse` never wait for such a file. A request for one is put on a queue of its container,
//! and the workers take from the queues in turn, so that a container with a thousand readers gets no more of them than one
//! with a single reader, and never all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// The number of workers, for all containers together.
const WORKERS: usize = 4;

/// The number of workers that one container can have at a time.
const SHARE: usize = 2;

/// The number of requests of one container that wait. Each is a thread of it that is waiting in the kernel.
const QUEUE: usize = 1024;

/// A request with everything that is needed to answer it.
pub type Job = Box<dyn FnOnce() + Send>;

/// The workers.
#[derive(Default)]
pub struct Workers {
    queues: Mutex<Queues>,
    work: Condvar,
}

#[derive(Default)]
struct Queues {
    containers: BTreeMap<u64, Queue>,
    /// The slot that was served last. The next one is looked for behind it.
    last: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    running: usize,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts the threads. They live as long as the process.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start() -> std::io::Result<Arc<Self>> {
        let this = Arc::new(Self::default());
        for number in 0..WORKERS {
            let worker = Arc::clone(&this);
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    loop {
                        worker.turn();
                    }
                })?;
        }
        Ok(this)
    }

    /// Has a request of the container in `slot` answered. One that finds the queue full is given back.
    ///
    /// # Errors
    /// The job itself, for its caller to refuse.
    pub fn run(&self, slot: u64, job: Job) -> Result<(), Job> {
        let mut queues = self.queues.lock();
        let queue = queues.containers.entry(slot).or_default();
        if queue.waiting.len() >= QUEUE {
            return Err(job);
        }
        queue.waiting.push_back(job);
        drop(queues);
        self.work.notify_one();
        Ok(())
    }

    /// Waits for a job, and does it.
    fn turn(&self) {
        let (slot, job) = {
            let mut queues = self.queues.lock();
            loop {
                if let Some(next) = queues.take() {
                    break next;
                }
                self.work.wait(&mut queues);
            }
        };
        job();
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.containers.get_mut(&slot) {
            queue.running -= 1;
            let idle = queue.running == 0 && queue.waiting.is_empty();
            // The container's share is free again: a worker that sleeps because of that is woken.
            let wake = !queue.waiting.is_empty();
            if idle {
                queues.containers.remove(&slot);
            }
            drop(queues);
            if wake {
                self.work.notify_one();
            }
        }
    }
}

impl Queues {
    /// Takes the first job of the next container after the one that was served last that has not its share yet.
    fn take(&mut self) -> Option<(u64, Job)> {
        let ready = |queue: &Queue| queue.running < SHARE && !queue.waiting.is_empty();
        let after = self
            .containers
            .range(self.last + 1..)
            .find(|(_, queue)| ready(queue));
        let slot = match after {
            Some((slot, _)) => *slot,
            None => *self.containers.iter().find(|(_, queue)| ready(queue))?.0,
        };
        let queue = self.containers.get_mut(&slot)?;
        let job = queue.waiting.pop_front()?;
        queue.running += 1;
        self.last = slot;
        Some((slot, job))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn containers_are_served_in_turn_and_none_has_all_workers() {
        let workers = Workers::default();
        for slot in [1, 1, 1, 1, 2, 3] {
            assert!(workers.run(slot, Box::new(|| {})).is_ok());
        }
        let mut queues = workers.queues.lock();
        let order: Vec<u64> = std::iter::from_fn(|| queues.take().map(|(slot, _)| slot)).collect();
        // The third job of 1 waits until one of its first two is done.
        assert_eq!(order, [1, 2, 3, 1]);
    }

    #[test]
    fn a_container_that_blocks_leaves_workers_to_the_others() {
        let workers = Workers::start().unwrap();
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        for _ in 0..10 {
            let blocked = Arc::clone(&blocked);
            assert!(
                workers
                    .run(
                        1,
                        Box::new(move || {
                            // The job ends when the other end is dropped.
                            let _ = blocked.lock().recv();
                        })
                    )
                    .is_ok()
            );
        }
        let (done, answer) = mpsc::channel();
        assert!(
            workers
                .run(2, Box::new(move || done.send(()).unwrap()))
                .is_ok()
        );
        answer
            .recv_timeout(std::time::Duration::from_secs(10))
            .unwrap();
        drop(release);
    }

    #[test]
    fn a_full_queue_gives_the_request_back() {
        let workers = Workers::default();
        for _ in 0..QUEUE {
            assert!(workers.run(1, Box::new(|| {})).is_ok());
        }
        assert!(workers.run(1, Box::new(|| {})).is_err());
        assert!(workers.run(2, Box::new(|| {})).is_ok());
    }
}
