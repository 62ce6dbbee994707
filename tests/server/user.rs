//! The user that a server is after its start.

use eci_fs_protocol::link::{BROKER, SERVER_USERS};
use support::status_field;

use crate::rig::Rig;

#[test]
fn privileged_a_server_is_a_user_without_groups_capabilities_and_files() {
    let mut rig = Rig::new(false);
    rig.broker = BROKER;
    let server = rig.start(true);
    let field = |key: &str| status_field(server.child.id(), key).unwrap();
    let [own, _] = SERVER_USERS;
    for key in ["Uid:", "Gid:"] {
        assert_eq!(
            field(key),
            [own.to_string().as_str(); 4].join("\t"),
            "{key}"
        );
    }
    assert_eq!(field("Groups:"), "");
    for key in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(key), "0000000000000000", "{key}");
    }
    assert_eq!(
        (field("NoNewPrivs:"), field("Seccomp:")),
        ("1".to_owned(), "2".to_owned())
    );
    server.kill();
}

/// That daemon neither reads nor writes for a server what only root may.
#[test]
fn privileged_a_server_beside_a_daemon_of_version_0_1_0_is_root_without_capabilities() {
    let mut rig = Rig::new(false);
    rig.broker = 0;
    let server = rig.start(true);
    let field = |key: &str| status_field(server.child.id(), key).unwrap();
    assert_eq!(field("Uid:"), "0\t0\t0\t0");
    assert_eq!(field("CapBnd:"), "0000000000000000");
    assert_eq!(field("CapEff:"), "0000000000000000");
    server.kill();
}
