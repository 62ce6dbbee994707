//! The workers with a clock of the test's own, and real threads where it takes some.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::server::account::{BURST, Share};

/// A request that tells that it is being answered, and then waits until it may end.
struct Told {
    slot: u64,
    began: Sender<u64>,
    /// The answer is given when the other end is dropped; none for at once.
    waits: Option<Arc<Mutex<Receiver<()>>>>,
}

impl Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

impl Job for Told {
    fn answer(self: Box<Self>) {
        self.began.send(self.slot).unwrap();
        if let Some(waits) = &self.waits {
            let _ = waits.lock().recv();
        }
    }

    fn refuse(self: Box<Self>, _errno: Errno) {}
}

#[derive(Debug)]
struct Nothing;

impl Job for Nothing {
    fn answer(self: Box<Self>) {}

    fn refuse(self: Box<Self>, _errno: Errno) {}
}

const LIMITS: Limits = Limits {
    all: [2, 4],
    one: [1, 2],
};

fn account(slot: u64, percent: u32, now: Instant) -> Arc<Account> {
    let share = Share::default();
    share.set(percent);
    Arc::new(Account::new(slot, share, now))
}

/// Takes requests one after the other, each of which is done before the next, and returns the slots.
fn order(queues: &mut Queues, now: Instant) -> Vec<u64> {
    std::iter::from_fn(|| {
        let taken = queues.take(now)?;
        queues.done(&taken.account, taken.lane);
        Some(taken.account.slot())
    })
    .collect()
}

#[test]
fn containers_are_served_in_turn() {
    let now = Instant::now();
    let mut queues = Queues::new(LIMITS);
    let accounts: Vec<_> = (1..=3).map(|slot| account(slot, 25, now)).collect();
    for slot in [1, 1, 1, 1, 2, 3, 2] {
        queues.push(&accounts[slot - 1], Lane::Computing, Box::new(Nothing));
    }
    assert_eq!(order(&mut queues, now), [1, 2, 3, 1, 2, 1, 1]);
    assert!(accounts.iter().all(|account| account.is_idle()));
    assert!(queues.is_empty());
}

#[test]
fn no_container_has_all_workers() {
    let now = Instant::now();
    let mut queues = Queues::new(LIMITS);
    let [one, two] = [1, 2].map(|slot| account(slot, 25, now));
    for _ in 0..5 {
        queues.push(&one, Lane::Computing, Box::new(Nothing));
        queues.push(&one, Lane::Sleeping, Box::new(Nothing));
    }
    queues.push(&two, Lane::Sleeping, Box::new(Nothing));
    let mut taken = Vec::new();
    while let Some(one) = queues.take(now) {
        taken.push((one.account.slot(), one.lane));
    }
    let computing = (1, Lane::Computing);
    let sleeping = |slot| (slot, Lane::Sleeping);
    assert_eq!(taken, [computing, sleeping(1), sleeping(2), sleeping(1)]);
    // A request of another container is computed at once.
    queues.push(&two, Lane::Computing, Box::new(Nothing));
    assert_eq!(queues.take(now).unwrap().account.slot(), 2);
}

#[test]
fn a_container_that_has_used_up_its_share_waits_and_the_others_do_not() {
    let now = Instant::now();
    let mut queues = Queues::new(LIMITS);
    let [greedy, other] = [1, 2].map(|slot| account(slot, 25, now));
    greedy.charge(now, BURST);
    for lane in Lane::ALL {
        queues.push(&greedy, lane, Box::new(Nothing));
        queues.push(&other, lane, Box::new(Nothing));
    }
    assert_eq!(order(&mut queues, now), [2, 2]);
    assert_eq!((greedy.waiting(), other.waiting()), (2, 0));
    let at = queues.next_at().unwrap();
    assert!(at > now);
    assert_eq!(order(&mut queues, at), [1, 1]);
    assert_eq!(queues.next_at(), None);
}

#[test]
fn a_server_that_is_about_to_leave_answers_all_that_waits() {
    let now = Instant::now();
    let mut queues = Queues::new(LIMITS);
    let greedy = account(1, 25, now);
    greedy.charge(now, 100 * BURST);
    queues.push(&greedy, Lane::Computing, Box::new(Nothing));
    queues.push(&greedy, Lane::Computing, Box::new(Nothing));
    assert!(order(&mut queues, now).is_empty());
    queues.hurry(true);
    assert_eq!(order(&mut queues, now), [1, 1]);
    queues.hurry(false);
    queues.push(&greedy, Lane::Computing, Box::new(Nothing));
    assert!(order(&mut queues, now).is_empty());
}

#[test]
fn the_requests_of_a_container_that_is_gone_are_answered() {
    let now = Instant::now();
    let mut queues = Queues::new(LIMITS);
    let gone = account(1, 25, now);
    gone.charge(now, 100 * BURST);
    queues.push(&gone, Lane::Sleeping, Box::new(Nothing));
    gone.close();
    assert_eq!(order(&mut queues, now), [1]);
}

#[test]
fn beyond_the_bound_a_request_is_given_back_and_those_of_others_are_not() {
    let now = Instant::now();
    let workers = Arc::new(Workers::new(LIMITS));
    // Nobody works, and none is started: these count as idle.
    workers.pool.lock().idle = usize::MAX;
    let [one, two] = [1, 2].map(|slot| account(slot, 25, now));
    for _ in 0..MOST_WAITING {
        assert!(
            workers
                .run_later(&one, Lane::Computing, Box::new(Nothing))
                .is_ok()
        );
    }
    for lane in Lane::ALL {
        assert!(workers.run_later(&one, lane, Box::new(Nothing)).is_err());
    }
    assert!(
        workers
            .run_later(&two, Lane::Computing, Box::new(Nothing))
            .is_ok()
    );
    assert_eq!((one.waiting(), two.waiting()), (MOST_WAITING, 1));
}

#[test]
fn containers_that_block_leave_workers_to_the_others() {
    let now = Instant::now();
    let workers = Workers::start(Box::new(|| false)).unwrap();
    let (release, blocked) = channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let (began, answers) = channel();
    let job = |slot, waits| {
        Box::new(Told {
            slot,
            began: began.clone(),
            waits,
        })
    };
    let stuck = 20;
    for slot in 1..=stuck {
        let account = account(slot, 25, now);
        for _ in 0..5 {
            let job = job(slot, Some(Arc::clone(&blocked)));
            assert!(workers.run_later(&account, Lane::Sleeping, job).is_ok());
        }
    }
    let soon = Duration::from_secs(20);
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..stuck * 2 {
        *counts
            .entry(answers.recv_timeout(soon).unwrap())
            .or_insert(0) += 1;
    }
    assert_eq!(counts.len() as u64, stuck);
    assert!(counts.values().all(|count| *count == SLEEPING_SHARE));
    for lane in Lane::ALL {
        let account = account(stuck + 1, 25, now);
        assert!(
            workers
                .run_later(&account, lane, job(stuck + 1, None))
                .is_ok()
        );
        assert_eq!(answers.recv_timeout(soon).unwrap(), stuck + 1);
    }
    drop(release);
}

#[test]
fn the_cpu_time_of_a_worker_is_charged_to_the_container() {
    #[derive(Debug)]
    struct Work(Sender<()>);
    impl Job for Work {
        fn answer(self: Box<Self>) {
            let begun = clock::of_this_thread();
            while clock::of_this_thread() - begun < Duration::from_millis(5) {}
            self.0.send(()).unwrap();
        }
        fn refuse(self: Box<Self>, _errno: Errno) {}
    }
    let workers = Workers::start(Box::new(|| false)).unwrap();
    let now = Instant::now();
    let [one, two] = [1, 2].map(|slot| account(slot, 25, now));
    let (done, answers) = channel();
    for _ in 0..3 {
        assert!(
            workers
                .run_later(&one, Lane::Computing, Box::new(Work(done.clone())))
                .is_ok()
        );
        answers.recv().unwrap();
    }
    // The last one may not be charged yet.
    assert!(one.usage().cpu_usec >= 10_000, "{:?}", one.usage());
    assert_eq!(two.usage().cpu_usec, 0);
}

#[test]
fn a_container_has_its_turn_again_while_all_workers_that_stay_are_busy() {
    let now = Instant::now();
    let workers = Workers::start(Box::new(|| false)).unwrap();
    let (release, blocked) = channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let (began, answers) = channel();
    let soon = Duration::from_secs(30);
    for slot in 1..=STAYING as u64 {
        let job = Box::new(Told {
            slot,
            began: began.clone(),
            waits: Some(Arc::clone(&blocked)),
        });
        let account = account(slot, 25, now);
        assert!(workers.run_later(&account, Lane::Sleeping, job).is_ok());
        answers.recv_timeout(soon).unwrap();
    }
    // Its share comes back after the time in which a worker with nothing to do ends.
    let greedy = account(100, 1, now);
    greedy.charge(now, BURST + (IDLE + Duration::from_secs(1)) / 100);
    let job = Box::new(Told {
        slot: 100,
        began,
        waits: None,
    });
    assert!(workers.run_later(&greedy, Lane::Computing, job).is_ok());
    assert_eq!(answers.recv_timeout(soon), Ok(100));
    drop(release);
}

#[test]
fn one_worker_that_has_nothing_to_do_looks_for_containers_that_have_their_share_again() {
    let now = Instant::now();
    let workers = Arc::new(Workers::new(LIMITS));
    let mut pool = workers.pool.lock();
    pool.threads = STAYING + 1;
    assert!(pool.may_end());
    let greedy = account(1, 25, now);
    greedy.charge(now, 2 * BURST);
    pool.queues
        .push(&greedy, Lane::Computing, Box::new(Nothing));
    assert!(pool.queues.take(now).is_none());
    assert!(!pool.may_end());
    pool.looks_at = pool.queues.next_at();
    assert!(pool.may_end());
    // Another one has its share again before that.
    let other = account(2, 100, now);
    other.charge(now, BURST);
    pool.queues.push(&other, Lane::Computing, Box::new(Nothing));
    assert!(pool.queues.take(now).is_none());
    assert!(!pool.may_end());
}

#[test]
fn a_request_of_a_container_that_waits_for_its_share_calls_no_worker() {
    let now = Instant::now();
    let workers = Arc::new(Workers::new(LIMITS));
    let mut pool = workers.pool.lock();
    (pool.threads, pool.idle) = (STAYING, STAYING);
    let push = |pool: &mut Pool, account: &Arc<Account>| {
        pool.queues
            .push(account, Lane::Computing, Box::new(Nothing));
        pool.wants_worker().is_some()
    };
    let [greedy, other] = [1, 2].map(|slot| account(slot, 25, now));
    greedy.charge(now, 2 * BURST);
    // Nobody knows yet that its share is used up.
    assert!(push(&mut pool, &greedy));
    assert!(pool.queues.take(now).is_none());
    // One worker is to look when it has its share again.
    assert!(push(&mut pool, &greedy));
    pool.looks_at = pool.queues.next_at();
    assert!(!push(&mut pool, &greedy));
    assert!(push(&mut pool, &other));
}

#[test]
fn requests_of_a_container_before_in_the_same_slot_are_counted_in_its_own_account() {
    let now = Instant::now();
    let mut queues = Queues::new(LIMITS);
    let [before, after] = [(); 2].map(|()| account(1, 25, now));
    queues.push(&before, Lane::Computing, Box::new(Nothing));
    queues.push(&after, Lane::Computing, Box::new(Nothing));
    assert_eq!(order(&mut queues, now), [1, 1]);
    for account in [before, after] {
        assert!(account.is_idle());
        assert_eq!(account.waiting(), 0);
    }
}

#[test]
fn a_worker_that_waits_for_a_cpu_of_a_crowded_host_is_not_taken_for_one_that_hangs() {
    let used = Duration::from_secs(100);
    let late = Late { number: 1, used };
    let wants = || true;
    assert!(!late.hangs(used, wants));
    assert!(!late.hangs(used + LIMIT / 2, wants));
}

#[test]
fn a_worker_that_sleeps_or_computes_for_ever_is_taken_for_one_that_hangs() {
    let used = Duration::from_secs(100);
    let late = Late { number: 1, used };
    assert!(late.hangs(used, || false));
    assert!(late.hangs(used + LIMIT, || true));
}
