//! Code that has taken the server over can do nothing.

use intruder::{Inside, attempts};

use crate::scene;

#[test]
fn privileged_code_in_the_server_can_do_nothing_to_the_host() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let container = scene.container().start();
    scene.attach(&container);
    let mut inside = Inside::of(daemon.server()).unwrap();
    let dir = scene.dir().join("attacked");
    let sleeper = ["sleep", "1000"];
    let (count, allowed) = attempts(&mut inside, &dir, &sleeper, daemon.pid()).unwrap();
    drop(inside);
    assert!(count > 200, "{count}");
    let allowed: Vec<String> = allowed
        .into_iter()
        .map(|one| format!("{}: {}", one.attempt, one.result))
        .collect();
    assert!(
        allowed.is_empty(),
        "{} of {count} attempts were allowed:\n{}",
        allowed.len(),
        allowed.join("\n")
    );
    // The server serves as before.
    scene.detach(&container);
    daemon.end();
}
