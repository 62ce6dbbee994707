//! Containers that start while no daemon answers.

use support::{Bundle, Container, Engine};

use super::{hooked, kinds, said};
use crate::{limits, scene, sees_the_host};

#[test]
fn privileged_without_a_daemon_the_start_fails_and_says_so() {
    let scene = scene();
    for (engine, user) in kinds() {
        let bundle = hooked(&scene, engine, user);
        let ran = bundle.run();
        assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
        let run = scene.runtime_dir().display().to_string();
        for word in ["no eci-mountd is listening", run.as_str(), "on-error"] {
            let said = said(&scene, engine, &ran);
            assert!(said.contains(word), "{word}: {said} {ran:?}");
        }
    }
}

#[test]
fn privileged_without_a_daemon_a_container_that_may_go_without_views_starts() {
    let scene = scene();
    for engine in Engine::RUNTIMES {
        let bundle = Bundle::new(&scene, engine, &limits(192, 0.5), false);
        bundle.hook(&scene, &["--on-error", "ignore"]);
        let mut container = Container::of_bundle(bundle);
        sees_the_host(&mut container);
    }
    let log = std::fs::read_to_string(scene.runtime_dir().join("hook.log")).unwrap();
    assert!(log.contains("no eci-mountd is listening"), "{log}");
}

#[test]
fn privileged_a_daemon_that_does_not_answer_is_given_up_in_time() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    daemon.stop();
    let bundle = Bundle::new(&scene, Engine::Runc, &limits(192, 0.5), false);
    bundle.hook(&scene, &["--timeout", "1"]);
    let begun = std::time::Instant::now();
    let ran = bundle.run();
    assert!(begun.elapsed() < support::PATIENCE);
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
    assert!(ran.stderr.contains("did not answer within"), "{ran:?}");
    daemon.go_on();
    drop(bundle);
    daemon.end();
}
