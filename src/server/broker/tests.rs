//! A daemon that the tests play, and a client that asks it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use eci_fs_protocol::link::Access;

use super::line::MOST;
use super::*;

fn ask(slot: u64) -> BrokerRequest {
    BrokerRequest::Network {
        slot,
        path: "core/somaxconn".to_owned(),
        access: Access::Read,
        number: None,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Takes the next question and answers it, as a daemon of a release before numbers; returns its slot.
fn answer(daemon: &Channel, fds: &[BorrowedFd<'_>]) -> u64 {
    let (request, _) = daemon.recv::<BrokerRequest>().unwrap().unwrap();
    daemon.send(&BrokerReply::Opened, fds).unwrap();
    request.lane()
}

#[test]
fn a_daemon_that_does_not_read_delays_nobody_for_longer_than_they_want() {
    let (daemon, server) = Channel::pair().unwrap();
    let broker = BrokerClient::new(server, BROKER);
    // Each container may have a question under way. These do not fit into the channel.
    let trigger = |slot| BrokerRequest::Trigger {
        slot,
        resource: eci_fs_protocol::link::Resource::Cpu,
        trigger: vec![255; 4096],
        number: None,
    };
    for slot in 0..MOST as u64 - 1 {
        let told = broker.tell(&trigger(slot), Instant::now());
        assert!(matches!(told, Err(NoAnswer::Late)), "{told:?}");
    }
    // Once it reads, it is asked again.
    let asking = std::thread::spawn(move || broker.tell(&ask(1 << 20), soon()));
    loop {
        let (request, _) = daemon.recv::<BrokerRequest>().unwrap().unwrap();
        let BrokerRequest::Network { slot, number, .. } = request else {
            continue;
        };
        assert_eq!(slot, 1 << 20);
        let number = number.unwrap();
        let reply = Box::new(BrokerReply::HostSysctlSet);
        let reply = BrokerReply::Numbered { number, reply };
        daemon.send(&reply, &[]).unwrap();
        break;
    }
    asking.join().unwrap().unwrap();
}

#[test]
fn a_trigger_does_not_wait_for_another_question_of_its_container() {
    let trigger = BrokerRequest::Trigger {
        slot: 7,
        resource: eci_fs_protocol::link::Resource::Cpu,
        trigger: b"some 1 2".to_vec(),
        number: None,
    };
    let (daemon, server) = Channel::pair().unwrap();
    let broker = BrokerClient::new(server, BROKER);
    for request in [ask(7), trigger] {
        let told = broker.tell(&request, Instant::now());
        assert!(matches!(told, Err(NoAnswer::Late)), "{told:?}");
        // Both have been sent.
        let (sent, _) = daemon.recv::<BrokerRequest>().unwrap().unwrap();
        assert_eq!(sent.lane(), request.lane());
    }
}

#[test]
fn containers_ask_at_the_same_time_and_answers_come_in_any_order() {
    let (daemon, server) = Channel::pair().unwrap();
    let broker = BrokerClient::new(server, BROKER);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (1..=3)
            .map(|slot| {
                scope.spawn({
                    let broker = &broker;
                    move || broker.ask(&ask(slot), soon())
                })
            })
            .collect();
        let mut requests: Vec<_> = (0..3)
            .map(|_| daemon.recv::<BrokerRequest>().unwrap().unwrap().0)
            .collect();
        requests.reverse();
        for request in requests {
            let errno = i32::try_from(request.lane()).unwrap();
            let reply = Box::new(BrokerReply::Refused { errno });
            let number = request.number().unwrap();
            daemon
                .send(&BrokerReply::Numbered { number, reply }, &[])
                .unwrap();
        }
        for (slot, asked) in (1..=3).zip(asked) {
            assert_eq!(asked.join().unwrap().unwrap_err(), Errno(slot));
        }
    });
}

#[test]
fn what_is_asked_while_there_is_no_daemon_is_answered_by_the_next() {
    let (first, server) = Channel::pair().unwrap();
    let broker = BrokerClient::new(server, BROKER);
    drop(first);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| broker.ask(&ask(7), soon()));
        let (next, server) = Channel::pair().unwrap();
        broker.replace(server, BROKER);
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(answer(&next, &[null.as_fd()]), 7);
        assert!(asked.join().unwrap().is_ok());
    });
}

#[test]
fn without_a_daemon_one_is_told_to_try_again() {
    let (daemon, server) = Channel::pair().unwrap();
    let broker = BrokerClient::new(server, BROKER);
    drop(daemon);
    let got = broker.ask(&ask(1), Instant::now());
    assert_eq!(got.unwrap_err(), Errno::AGAIN);
}

#[test]
fn who_tells_does_not_wait_for_the_next_daemon() {
    let (daemon, server) = Channel::pair().unwrap();
    let broker = BrokerClient::new(server, BROKER);
    drop(daemon);
    for _ in 0..2 {
        let told = broker.tell(&ask(1), soon());
        assert!(matches!(told, Err(NoAnswer::Gone(_))), "{told:?}");
    }
}

#[test]
fn a_daemon_that_hangs_has_one_question_of_each_container_before_it() {
    let (daemon, server) = Channel::pair().unwrap();
    let broker = BrokerClient::new(server, BROKER);
    for slot in [1, 1, 2, 1, 2] {
        let told = broker.tell(&ask(slot), Instant::now());
        assert!(matches!(told, Err(NoAnswer::Late)), "{told:?}");
    }
    assert_eq!(answer(&daemon, &[]), 1);
    assert_eq!(answer(&daemon, &[]), 2);
    std::thread::scope(|scope| {
        let told = scope.spawn(|| broker.tell(&ask(1), soon()));
        assert_eq!(answer(&daemon, &[]), 1);
        assert!(told.join().unwrap().is_ok());
    });
}

#[test]
fn a_daemon_that_hangs_has_a_bounded_number_of_questions_before_it() {
    let (daemon, server) = Channel::pair().unwrap();
    let broker = BrokerClient::new(server, BROKER);
    for slot in 0..200 {
        let told = broker.tell(&ask(slot), Instant::now());
        assert!(matches!(told, Err(NoAnswer::Late)), "{told:?}");
    }
    drop(broker);
    let mut questions = 0;
    while daemon.recv::<BrokerRequest>().unwrap().is_some() {
        questions += 1;
    }
    assert_eq!(questions, MOST);
}

#[test]
fn an_answer_that_comes_too_late_is_nobody_elses() {
    let (daemon, server) = Channel::pair().unwrap();
    let broker = BrokerClient::new(server, BROKER);
    assert_eq!(
        broker.ask(&ask(1), Instant::now()).unwrap_err(),
        Errno::AGAIN
    );
    assert_eq!(answer(&daemon, &[]), 1);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| broker.ask(&ask(2), soon()));
        let (_, _) = daemon.recv::<BrokerRequest>().unwrap().unwrap();
        let refused = BrokerReply::Refused {
            errno: libc::EINVAL,
        };
        daemon.send(&refused, &[]).unwrap();
        assert_eq!(asked.join().unwrap().unwrap_err(), Errno(libc::EINVAL));
    });
}
