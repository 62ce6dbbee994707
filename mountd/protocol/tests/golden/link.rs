//! Version 2 of the link, and the questions of the server to the broker.

use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::facts::{Facts, HierarchyFacts, NetworkFacts};
use eci_fs_protocol::host_sysctl::HostSysctl;
use eci_fs_protocol::link::{
    Access, BROKER, BrokerReply, BrokerRequest, Connection, CpuIds, CpuQuota, FromServer, HELD,
    Resource, Row, Secrets, Settings, ToServer, Usage, UserNamespace, VERSION, WatchedFile,
};

use crate::{assert_bytes, assert_reads, golden};

fn facts() -> Facts {
    Facts {
        id: "web".to_owned(),
        start_nsec: 1,
        boottime_offset_nsec: Some(-2),
        pid_level: 3,
        pid_max_is_own: true,
        network: Some(NetworkFacts {
            settable: vec!["/proc/sys/net/core/somaxconn".to_owned()],
            groups: Vec::new(),
        }),
        disks: Vec::new(),
        uid: 4,
        gid: 5,
        hierarchies: vec![HierarchyFacts {
            version: 1,
            controllers: vec!["cpu".to_owned(), "cpuacct".to_owned()],
            depth: 6,
        }],
        can_measure_cpus: true,
    }
}

fn add(facts: Facts, choices: Choices) -> ToServer {
    ToServer::Add {
        slot: 7,
        secrets: Secrets {
            boot_id: [1; 16],
            host_secret: [2; 32],
            generation: 0,
        },
        facts: Box::new(facts),
        choices,
        process: Some(77),
    }
}

const ADD: &str = concat!(
    r#"{"add":{"slot":7,"secrets":{"boot_id":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"#,
    r#""machine_secret":[2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2]},"#,
    r#""facts":{"id":"web","start_nsec":1,"boottime_offset_nsec":-2,"pid_level":3,"pid_max_is_own":true,"#,
    r#""network":{"settable":["/proc/sys/net/core/somaxconn"]},"uid":4,"gid":5,"#,
    r#""hierarchies":[{"version":1,"controllers":["cpu","cpuacct"],"depth":6}],"can_measure_cpus":true},"#,
    r#""choices":{"without":["/proc/stat"]},"process":77}}"#,
);

/// The settings of a release whose default share was another one.
fn settings() -> Settings {
    Settings {
        cpu_share: 25,
        ..Settings::default()
    }
}

golden! { what_the_daemon_says, ToServer:
    ToServer::Start { .. } => ToServer::Start {
        version: VERSION,
        init: vec![vec![1, 2], vec![3]],
        settings: settings(),
        held: HELD,
        replies: None,
        broker: BROKER,
    }, concat!(
        r#"{"start":{"version":2,"init":[[1,2],[3]],"settings":{"freshness-ms":10,"#,
        r#""host-clamp":true,"cpu-ids":"physical","cpu-share":25},"held":4,"broker":1}}"#,
    );
    ToServer::Start { .. } => ToServer::Start {
        version: VERSION,
        init: vec![vec![1, 2], vec![3]],
        settings: settings(),
        held: 0,
        replies: Some(vec![vec![4], vec![5, 6]]),
        broker: 0,
    }, concat!(
        r#"{"start":{"version":2,"init":[[1,2],[3]],"settings":{"freshness-ms":10,"#,
        r#""host-clamp":true,"cpu-ids":"physical","cpu-share":25},"held":0,"replies":[[4],[5,6]]}}"#,
    );
    ToServer::Adopt { .. } => ToServer::Adopt { version: VERSION, generations: false, broker: 0 },
        r#"{"adopt":{"version":2}}"#;
    ToServer::Adopt { .. } => ToServer::Adopt { version: VERSION, generations: true, broker: BROKER },
        r#"{"adopt":{"version":2,"generations":true,"broker":1}}"#;
    ToServer::Catalogue { .. } => ToServer::Catalogue { slot: 7 }, r#"{"catalogue":{"slot":7}}"#;
    ToServer::Ping => ToServer::Ping, r#""ping""#;
    ToServer::Progress => ToServer::Progress, r#""progress""#;
    ToServer::Drain => ToServer::Drain, r#""drain""#;
    ToServer::Drained => ToServer::Drained, r#""drained""#;
    ToServer::Add { .. } => add(facts(), Choices {
        without: vec!["/proc/stat".to_owned()],
        ..Choices::default()
    }), ADD;
    ToServer::Expect { .. } => ToServer::Expect { slot: 7, generation: 0 }, r#"{"expect":{"slot":7}}"#;
    ToServer::Expect { .. } => ToServer::Expect { slot: 7, generation: 9 },
        r#"{"expect":{"slot":7,"generation":9}}"#;
    ToServer::Usage { .. } => ToServer::Usage { slots: vec![7, 8] }, r#"{"usage":{"slots":[7,8]}}"#;
    ToServer::Remove { .. } => ToServer::Remove { slot: 7 }, r#"{"remove":{"slot":7}}"#;
    ToServer::Serve { .. } => ToServer::Serve { resend: true }, r#"{"serve":{"resend":true}}"#;
    ToServer::HostSysctls { .. } => ToServer::HostSysctls {
        tunables: vec![HostSysctl::FileMax],
        user_namespaces: false,
    }, r#"{"raise":{"tunables":["/proc/sys/fs/file-max"]}}"#;
    ToServer::HostSysctls { .. } => ToServer::HostSysctls {
        tunables: Vec::new(),
        user_namespaces: true,
    }, r#"{"raise":{"tunables":[],"user_namespaces":true}}"#;
}

golden! { what_the_server_answers, FromServer:
    FromServer::Started { .. } => FromServer::Started {
        replies: vec![vec![1], vec![2]],
        generations: false,
    }, r#"{"started":{"replies":[[1],[2]]}}"#;
    FromServer::Started { .. } => FromServer::Started {
        replies: vec![vec![1], vec![2]],
        generations: true,
    }, r#"{"started":{"replies":[[1],[2]],"generations":true}}"#;
    FromServer::Added { .. } => FromServer::Added {
        catalogue: vec![Row {
            path: "/proc/stat".to_owned(),
            connection: Connection::Cached,
            writable: true,
            directory: false,
        }],
    }, r#"{"added":{"catalogue":[{"path":"/proc/stat","connection":"cached","writable":true,"directory":false}]}}"#;
    FromServer::Done => FromServer::Done, r#""done""#;
    FromServer::Held { .. } => FromServer::Held {
        version: VERSION,
        init: vec![vec![1], vec![2]],
        replies: vec![vec![3], vec![4]],
        settings: Settings {
            freshness_ms: 0,
            host_clamp: false,
            cpu_ids: CpuIds::Dense,
            cpu_quota: Some(CpuQuota::Online),
            cpu_share: 0,
        },
        slots: vec![7, 8],
        generations: false,
    }, concat!(
        r#"{"held":{"version":2,"init":[[1],[2]],"replies":[[3],[4]],"settings":{"freshness-ms":0,"#,
        r#""host-clamp":false,"cpu-ids":"dense","cpu-quota":"online","cpu-share":0},"slots":[7,8]}}"#,
    );
    FromServer::Held { .. } => FromServer::Held {
        version: VERSION,
        init: Vec::new(),
        replies: Vec::new(),
        settings: settings(),
        slots: vec![7],
        generations: true,
    }, concat!(
        r#"{"held":{"version":2,"init":[],"replies":[],"settings":{"freshness-ms":10,"#,
        r#""host-clamp":true,"cpu-ids":"physical","cpu-share":25},"slots":[7],"generations":true}}"#,
    );
    FromServer::Left { .. } => FromServer::Left { busy: 3 }, r#"{"left":{"busy":3}}"#;
    FromServer::Progress { .. } => FromServer::Progress { answered: vec![3, 4] },
        r#"{"progress":{"answered":[3,4]}}"#;
    FromServer::Usage { .. } => FromServer::Usage {
        containers: vec![(7, Usage { cpu_usec: 1, requests: 2, waiting: 3, refused: 4 })],
    }, r#"{"usage":{"containers":[[7,{"cpu_usec":1,"requests":2,"waiting":3,"refused":4}]]}}"#;
    FromServer::Failed { .. } => FromServer::Failed { why: "no".to_owned(), errno: None },
        r#"{"failed":{"why":"no"}}"#;
    FromServer::Failed { .. } => FromServer::Failed { why: "no".to_owned(), errno: Some(24) },
        r#"{"failed":{"why":"no","errno":24}}"#;
}

golden! { what_the_server_asks_the_broker, BrokerRequest:
    BrokerRequest::Trigger { .. } => BrokerRequest::Trigger {
        slot: 7,
        resource: Resource::Io,
        trigger: b"some 1".to_vec(),
        number: None,
    }, r#"{"trigger":{"slot":7,"resource":"io","trigger":[115,111,109,101,32,49]}}"#;
    BrokerRequest::SetHostSysctl { .. } => BrokerRequest::SetHostSysctl {
        slot: 7,
        tunable: HostSysctl::NrOpen,
        value: u64::MAX,
        number: None,
    }, r#"{"raise":{"slot":7,"tunable":"/proc/sys/fs/nr_open","value":18446744073709551615}}"#;
    BrokerRequest::UserNamespace { .. } => BrokerRequest::UserNamespace { slot: 7, pid: 8, number: None },
        r#"{"user-namespace":{"slot":7,"pid":8}}"#;
    BrokerRequest::Network { .. } => BrokerRequest::Network {
        slot: 7,
        path: "core".to_owned(),
        access: Access::List,
        number: None,
    }, r#"{"network":{"slot":7,"path":"core","access":"list"}}"#;
    BrokerRequest::Network { .. } => BrokerRequest::Network {
        slot: 7,
        path: "core".to_owned(),
        access: Access::List,
        number: Some(8),
    }, r#"{"network":{"slot":7,"path":"core","access":"list","number":8}}"#;
    BrokerRequest::WriteNetwork { .. } => BrokerRequest::WriteNetwork {
        slot: 7,
        path: "core/somaxconn".to_owned(),
        offset: 2,
        bytes: b"1".to_vec(),
        number: None,
    }, r#"{"write-network":{"slot":7,"path":"core/somaxconn","offset":2,"bytes":[49]}}"#;
    BrokerRequest::Watch { .. } => BrokerRequest::Watch {
        files: vec![WatchedFile { dir: 1, name: "../cpu.max".to_owned() }],
        number: None,
    }, r#"{"watch":{"files":[{"dir":1,"name":"../cpu.max"}]}}"#;
    BrokerRequest::Host { .. } => BrokerRequest::Host { path: "/sys/a".to_owned(), number: None },
        r#"{"host":{"path":"/sys/a"}}"#;
}

golden! { what_the_broker_answers, BrokerReply:
    BrokerReply::Opened => BrokerReply::Opened, r#""opened""#;
    BrokerReply::Listed { .. } => BrokerReply::Listed {
        entries: vec![("somaxconn".to_owned(), false), ("eth0".to_owned(), true)],
    }, r#"{"listed":{"entries":[["somaxconn",false],["eth0",true]]}}"#;
    BrokerReply::UserNamespace { .. } => BrokerReply::UserNamespace { namespace: UserNamespace::Container },
        r#"{"user-namespace":{"namespace":"container"}}"#;
    BrokerReply::HostSysctlSet => BrokerReply::HostSysctlSet, r#""raised""#;
    BrokerReply::Written { .. } => BrokerReply::Written { count: 2 }, r#"{"written":{"count":2}}"#;
    BrokerReply::Watched { .. } => BrokerReply::Watched { watches: vec![Some(1), None] },
        r#"{"watched":{"watches":[1,null]}}"#;
    BrokerReply::Refused { .. } => BrokerReply::Refused { errno: 22 }, r#"{"refused":{"errno":22}}"#;
    BrokerReply::Numbered { .. } => BrokerReply::Numbered {
        number: 8,
        reply: Box::new(BrokerReply::Opened),
    }, r#"{"numbered":{"number":8,"reply":"opened"}}"#;
}

#[test]
fn a_container_that_shares_the_host_is_told_of_so() {
    let shares = Facts {
        boottime_offset_nsec: None,
        pid_max_is_own: false,
        network: None,
        can_measure_cpus: false,
        ..facts()
    };
    assert_bytes(
        &shares,
        concat!(
            r#"{"id":"web","start_nsec":1,"boottime_offset_nsec":null,"pid_level":3,"pid_max_is_own":false,"#,
            r#""network":null,"uid":4,"gid":5,"#,
            r#""hierarchies":[{"version":1,"controllers":["cpu","cpuacct"],"depth":6}]}"#,
        ),
    );
}

#[test]
fn disks_and_groups_of_a_container_are_told_where_it_has_any() {
    let has = Facts {
        network: Some(NetworkFacts {
            groups: vec![(0, 100_000, 65_536)],
            ..NetworkFacts::default()
        }),
        disks: vec![(254, 0), (8, 17)],
        ..facts()
    };
    assert_bytes(
        &has,
        concat!(
            r#"{"id":"web","start_nsec":1,"boottime_offset_nsec":-2,"pid_level":3,"pid_max_is_own":true,"#,
            r#""network":{"settable":[],"groups":[[0,100000,65536]]},"disks":[[254,0],[8,17]],"uid":4,"gid":5,"#,
            r#""hierarchies":[{"version":1,"controllers":["cpu","cpuacct"],"depth":6}],"can_measure_cpus":true}"#,
        ),
    );
}

#[test]
fn what_was_added_later_may_be_missing() {
    let before = ADD
        .replace(r#","choices":{"without":["/proc/stat"]}"#, "")
        .replace(r#","process":77"#, "")
        .replace(r#""pid_max_is_own":true,"#, "")
        .replace(r#","can_measure_cpus":true"#, "")
        .replace(
            r#""network":{"settable":["/proc/sys/net/core/somaxconn"]},"#,
            "",
        );
    let old = Facts {
        pid_max_is_own: false,
        network: None,
        can_measure_cpus: false,
        ..facts()
    };
    let mut expected = add(old, Choices::default());
    if let ToServer::Add { process, .. } = &mut expected {
        *process = None;
    }
    assert_reads(&before, &expected);
    assert_reads(
        r#"{"adopt":{"version":2}}"#,
        &ToServer::Adopt {
            generations: false,
            version: VERSION,
            broker: 0,
        },
    );
    assert_reads(
        r#"{"path":"/proc/stat","connection":"live"}"#,
        &Row {
            path: "/proc/stat".to_owned(),
            connection: Connection::Live,
            writable: false,
            directory: false,
        },
    );
    assert_reads(r#"{}"#, &Settings::default());
}

/// Version 0.1.0 could pad views to a constant size. A daemon that takes over from it hears of that, and so does a server
/// that such a daemon starts.
#[test]
fn the_padding_of_version_0_1_0_is_passed_over() {
    for padding in [true, false] {
        let settings = format!(
            r#"{{"freshness-ms":10,"padding":{padding},"host-clamp":true,"cpu-ids":"physical"}}"#
        );
        assert_reads(&settings, &Settings::default());
    }
}

#[test]
fn the_generation_of_a_container_stands_beside_its_secrets() {
    let secrets = |generation| Secrets {
        boot_id: [1; 16],
        host_secret: [2; 32],
        generation,
    };
    let bytes = |rest: &str| {
        let (boot_id, host_secret) = ("1,".repeat(15) + "1", "2,".repeat(31) + "2");
        format!(r#"{{"boot_id":[{boot_id}],"machine_secret":[{host_secret}]{rest}}}"#)
    };
    assert_bytes(&secrets(0), &bytes(""));
    assert_bytes(&secrets(9), &bytes(r#","generation":9"#));
}

#[test]
fn a_field_of_a_later_release_is_passed_over() {
    assert_reads(
        r#"{"left":{"busy":3,"sleeping":1}}"#,
        &FromServer::Left { busy: 3 },
    );
}
