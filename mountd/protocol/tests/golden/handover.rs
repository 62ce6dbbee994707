//! Version 2 of the handover.

use eci_fs_protocol::handover::{Handover, OLDEST, Taken, VERSION};

use crate::{assert_bytes, assert_reads, golden};

#[test]
fn what_the_daemon_that_runs_says() {
    let handover = Handover {
        version: VERSION,
        init: vec![vec![1, 2], vec![3]],
        replies: vec![vec![4], vec![]],
        server: 7,
        slots: vec![1, 8],
        generations: true,
    };
    assert_bytes(
        &handover,
        r#"{"version":2,"init":[[1,2],[3]],"replies":[[4],[]],"server":7,"slots":[1,8],"generations":true}"#,
    );
}

#[test]
fn what_a_daemon_of_version_1_says() {
    let handover = Handover {
        version: OLDEST,
        init: vec![vec![1, 2], vec![3]],
        replies: vec![vec![4], vec![]],
        server: 7,
        slots: vec![1, 8],
        generations: false,
    };
    assert_reads(
        r#"{"version":1,"init":[[1,2],[3]],"replies":[[4],[]],"server":7,"slots":[1,8]}"#,
        &handover,
    );
}

golden! { what_the_other_answers, Taken:
    Taken::Yes { .. } => Taken::Yes { release: "eci-mountd 0.1.0".to_owned() },
        r#"{"yes":{"release":"eci-mountd 0.1.0"}}"#;
    Taken::No { .. } => Taken::No { why: "no".to_owned() }, r#"{"no":{"why":"no"}}"#;
}
