//! Version 1 of the control protocol.

use std::path::PathBuf;

use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::{
    Answer, Attach, Attached, Call, CgroupChoice, IdRange, Isolate, Isolated, Listed, Lock, Part,
    Request, Response, Selector, Upgraded, VERSION, Watch,
};
use eci_fs_protocol::error::Error;
use eci_fs_protocol::link::Usage;
use eci_fs_protocol::locks::{Locks, ReadOnlyMount};

use crate::{assert_bytes, assert_reads, golden};

fn web() -> Selector {
    Selector::Id("web".to_owned())
}

golden! { requests, Request:
    Request::Attach(_) => Request::Attach(Attach {
        id: Some("web".to_owned()),
        cgroup: CgroupChoice::Own,
        root: Some("/r".into()),
        unmasked: true,
        choices: Choices { freshness_ms: Some(0), ..Choices::default() },
        measures_cpus: Some(true),
        engine_root: None,
    }), concat!(
        r#"{"attach":{"id":"web","cgroup":"own","root":"/r","unmasked":true,"choices":{"freshness-ms":0},"#,
        r#""measures_cpus":true}}"#,
    );
    Request::Attach(_) => Request::Attach(Attach { engine_root: Some("/o".into()), ..Attach::default() }),
        r#"{"attach":{"id":null,"cgroup":"namespace-root","engine_root":"/o"}}"#;
    Request::Attach(_) => Request::Attach(Attach::default()),
        r#"{"attach":{"id":null,"cgroup":"namespace-root"}}"#;
    Request::Detach(_) => Request::Detach(web()), r#"{"detach":{"id":"web"}}"#;
    Request::Forget { .. } => Request::Forget { id: "web".to_owned() }, r#"{"forget":{"id":"web"}}"#;
    Request::Mount { .. } => Request::Mount { dir: "/d".into(), created: true },
        r#"{"mount":{"dir":"/d","created":true}}"#;
    Request::Unmount { .. } => Request::Unmount { dir: "/d".into() }, r#"{"unmount":{"dir":"/d"}}"#;
    Request::List { .. } => Request::List { after: None }, r#"{"list":{"after":null}}"#;
    Request::List { .. } => Request::List { after: Some(7) }, r#"{"list":{"after":7}}"#;
    Request::Upgrade { .. } => Request::Upgrade { part: Part::Server, path: None },
        r#"{"upgrade":{"part":"server","path":null}}"#;
    Request::Upgrade { .. } => Request::Upgrade { part: Part::Daemon, path: Some("/p".into()) },
        r#"{"upgrade":{"part":"daemon","path":"/p"}}"#;
    Request::Open { .. } => Request::Open { container: Selector::Pid(7), path: "/proc/stat".to_owned() },
        r#"{"open":{"container":{"pid":7},"path":"/proc/stat"}}"#;
    Request::Isolate(_) => Request::Isolate(Isolate { key: "/run/runc/web".to_owned() }),
        r#"{"isolate":{"key":"/run/runc/web"}}"#;
    Request::Join(_) => Request::Join(Isolate { key: "/run/runc/web".to_owned() }),
        r#"{"join":{"key":"/run/runc/web"}}"#;
    Request::Lock(_) => Request::Lock(Lock { root: "/r".into(), locks: Locks::default(), views: None }),
        r#"{"lock":{"root":"/r","locks":{}}}"#;
    Request::Lock(_) => Request::Lock(Lock {
        root: "/r".into(),
        locks: Locks {
            masked: vec!["/proc/kcore".into()],
            read_only: vec!["/proc/sys".into()],
            mounts: vec![
                ReadOnlyMount { point: "/v".into(), recursive: false },
                ReadOnlyMount { point: "/w".into(), recursive: true },
            ],
        },
        views: Some(Attach::default()),
    }), concat!(
        r#"{"lock":{"root":"/r","locks":{"masked":["/proc/kcore"],"read_only":["/proc/sys"],"#,
        r#""mounts":[{"point":"/v"},{"point":"/w","recursive":true}]},"#,
        r#""views":{"id":null,"cgroup":"namespace-root"}}}"#,
    );
    Request::Watch(_) => Request::Watch(Watch { engine_root: "/o".into() }),
        r#"{"watch":{"engine_root":"/o"}}"#;
}

golden! { responses, Response:
    Response::Attached(_) => Response::Attached(Attached {
        id: "web".to_owned(),
        grafts: 2,
        took_usec: 3,
        already: false,
        range: None,
    }), r#"{"attached":{"id":"web","grafts":2,"took_usec":3,"already":false}}"#;
    Response::Attached(_) => Response::Attached(Attached {
        id: "web".to_owned(),
        grafts: 2,
        took_usec: 3,
        already: true,
        range: Some(IdRange { first_id: 524_288, ids: 65_536 }),
    }), concat!(
        r#"{"attached":{"id":"web","grafts":2,"took_usec":3,"already":true,"#,
        r#""range":{"first_id":524288,"ids":65536}}}"#,
    );
    Response::Detached { .. } => Response::Detached { id: "web".to_owned(), grafts: 2 },
        r#"{"detached":{"id":"web","grafts":2}}"#;
    Response::Forgotten { .. } => Response::Forgotten { ended: true }, r#"{"forgotten":{"ended":true}}"#;
    Response::Mounted { .. } => Response::Mounted { id: "web".to_owned(), grafts: 2 },
        r#"{"mounted":{"id":"web","grafts":2}}"#;
    Response::Unmounted => Response::Unmounted, r#""unmounted""#;
    Response::Containers { .. } => Response::Containers {
        containers: vec![Listed {
            id: "web".to_owned(),
            slot: 1,
            pid: 7,
            grafts: 2,
            mounts: vec![PathBuf::from("/d")],
            usage: None,
            range: None,
            locked: false,
            vetted: false,
        }],
        more: false,
        trouble: Vec::new(),
    }, r#"{"containers":{"containers":[{"id":"web","slot":1,"pid":7,"grafts":2,"mounts":["/d"]}],"more":false}}"#;
    Response::Containers { .. } => Response::Containers {
        containers: vec![Listed {
            id: "web".to_owned(),
            slot: 1,
            pid: 7,
            grafts: 2,
            mounts: Vec::new(),
            usage: Some(Usage { cpu_usec: 1, requests: 2, waiting: 3, refused: 4 }),
            range: Some(IdRange { first_id: 524_288, ids: 65_536 }),
            locked: true,
            vetted: false,
        }],
        more: true,
        trouble: Vec::new(),
    }, concat!(
        r#"{"containers":{"containers":[{"id":"web","slot":1,"pid":7,"grafts":2,"mounts":[],"#,
        r#""usage":{"cpu_usec":1,"requests":2,"waiting":3,"refused":4},"range":{"first_id":524288,"ids":65536},"locked":true}],"#,
        r#""more":true}}"#,
    );
    Response::Containers { .. } => Response::Containers {
        containers: vec![Listed {
            id: "web".to_owned(),
            slot: 1,
            pid: 7,
            grafts: 2,
            mounts: Vec::new(),
            usage: None,
            range: None,
            locked: false,
            vetted: true,
        }],
        more: false,
        trouble: Vec::new(),
    }, concat!(
        r#"{"containers":{"containers":[{"id":"web","slot":1,"pid":7,"grafts":2,"mounts":[],"vetted":true}],"#,
        r#""more":false}}"#,
    );
    Response::Upgraded(_) => Response::Upgraded(Upgraded { pid: 7, release: "eci-fs 0.1.0".to_owned() }),
        r#"{"upgraded":{"pid":7,"release":"eci-fs 0.1.0"}}"#;
    Response::Opened => Response::Opened, r#""opened""#;
    Response::Isolated(_) => Response::Isolated(Isolated {
        first_id: 524_288,
        ids: 65_536,
        stage: "/run/eci-fs/stage".into(),
    }), r#"{"isolated":{"first_id":524288,"ids":65536,"stage":"/run/eci-fs/stage"}}"#;
    Response::Locked => Response::Locked, r#""locked""#;
    Response::Watched => Response::Watched, r#""watched""#;
    Response::Failed(_) => Response::Failed(Error::refused("no")),
        r#"{"failed":{"kind":"refused","what":"no"}}"#;
}

#[test]
fn packets() {
    let call = Call {
        version: VERSION,
        request: Request::List { after: None },
    };
    assert_bytes(&call, r#"{"version":1,"request":{"list":{"after":null}}}"#);
    let answer = Answer {
        version: VERSION,
        response: Response::Opened,
    };
    assert_bytes(&answer, r#"{"version":1,"response":"opened"}"#);
}

#[test]
fn a_field_of_a_later_release_is_passed_over() {
    assert_reads(
        r#"{"version":1,"response":{"detached":{"id":"web","grafts":2,"took_usec":3}},"host":"a"}"#,
        &Answer {
            version: 1,
            response: Response::Detached {
                id: "web".to_owned(),
                grafts: 2,
            },
        },
    );
}
