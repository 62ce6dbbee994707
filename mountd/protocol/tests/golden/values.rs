//! Values that all three protocols have: errors, choices, and names.

use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::{CgroupChoice, Part, Selector};
use eci_fs_protocol::error::{Error, Kind, Reason};
use eci_fs_protocol::host_sysctl::HostSysctl;
use eci_fs_protocol::link::{Access, Connection, CpuIds, CpuQuota, Resource, UserNamespace};

use crate::{assert_bytes, assert_reads, golden};

golden! { kinds_of_errors, Kind:
    Kind::NotFound => Kind::NotFound, r#""not-found""#;
    Kind::Refused => Kind::Refused, r#""refused""#;
    Kind::Denied => Kind::Denied, r#""denied""#;
    Kind::Busy => Kind::Busy, r#""busy""#;
    Kind::System => Kind::System, r#""system""#;
    Kind::Version => Kind::Version, r#""version""#;
    Kind::Other => Kind::Other, r#""other""#;
}

golden! { reasons_of_errors, Reason:
    Reason::Ending => Reason::Ending, r#""ending""#;
    Reason::ProcessEnded => Reason::ProcessEnded, r#""process-ended""#;
    Reason::NameTaken => Reason::NameTaken, r#""name-taken""#;
    Reason::OtherName => Reason::OtherName, r#""other-name""#;
    Reason::NotAView => Reason::NotAView, r#""not-a-view""#;
    Reason::NoRange => Reason::NoRange, r#""no-range""#;
    Reason::CommandGone => Reason::CommandGone, r#""command-gone""#;
    Reason::Other => Reason::Other, r#""other""#;
}

golden! { connections, Connection:
    Connection::Cached => Connection::Cached, r#""cached""#;
    Connection::Live => Connection::Live, r#""live""#;
}

golden! { cpu_ids, CpuIds:
    CpuIds::Physical => CpuIds::Physical, r#""physical""#;
    CpuIds::Dense => CpuIds::Dense, r#""dense""#;
}

golden! { cpu_quotas, CpuQuota:
    CpuQuota::Online => CpuQuota::Online, r#""online""#;
    CpuQuota::Ignore => CpuQuota::Ignore, r#""ignore""#;
}

golden! { what_is_opened_for, Access:
    Access::Look => Access::Look, r#""look""#;
    Access::List => Access::List, r#""list""#;
    Access::Read => Access::Read, r#""read""#;
    Access::Write => Access::Write, r#""write""#;
}

golden! { resources, Resource:
    Resource::Cpu => Resource::Cpu, r#""cpu""#;
    Resource::Memory => Resource::Memory, r#""memory""#;
    Resource::Io => Resource::Io, r#""io""#;
    Resource::Irq => Resource::Irq, r#""irq""#;
}

golden! { user_namespaces, UserNamespace:
    UserNamespace::Host => UserNamespace::Host, r#""host""#;
    UserNamespace::Container => UserNamespace::Container, r#""container""#;
    UserNamespace::Other => UserNamespace::Other, r#""other""#;
}

golden! { host_sysctls, HostSysctl:
    HostSysctl::FileMax => HostSysctl::FileMax, r#""/proc/sys/fs/file-max""#;
    HostSysctl::NrOpen => HostSysctl::NrOpen, r#""/proc/sys/fs/nr_open""#;
    HostSysctl::ConntrackMax => HostSysctl::ConntrackMax, r#""/proc/sys/net/netfilter/nf_conntrack_max""#;
    HostSysctl::ConntrackHashsize => HostSysctl::ConntrackHashsize, r#""/sys/module/nf_conntrack/parameters/hashsize""#;
}

golden! { programs, Part:
    Part::Daemon => Part::Daemon, r#""daemon""#;
    Part::Server => Part::Server, r#""server""#;
}

golden! { choices_of_a_cgroup, CgroupChoice:
    CgroupChoice::NamespaceRoot => CgroupChoice::NamespaceRoot, r#""namespace-root""#;
    CgroupChoice::Own => CgroupChoice::Own, r#""own""#;
}

golden! { selectors, Selector:
    Selector::Id(_) => Selector::Id("web".to_owned()), r#"{"id":"web"}"#;
    Selector::Pid(_) => Selector::Pid(7), r#"{"pid":7}"#;
}

#[test]
fn errors() {
    assert_bytes(&Error::refused("no"), r#"{"kind":"refused","what":"no"}"#);
    let full = Error::new(Kind::Busy, "no")
        .remedy("wait")
        .because(Reason::Ending)
        .with_errno(Some(24));
    assert_bytes(
        &full,
        r#"{"kind":"busy","what":"no","remedy":"wait","reason":"ending","errno":24}"#,
    );
    // Of a later release.
    assert_reads(
        r#"{"kind":"quota","what":"no","reason":"disk","device":"sda"}"#,
        &Error::new(Kind::Other, "no").because(Reason::Other),
    );
}

#[test]
fn choices() {
    assert_bytes(&Choices::default(), "{}");
    let all = Choices {
        without: vec!["/proc/meminfo".to_owned()],
        freshness_ms: Some(20),
        cpu_ids: Some(CpuIds::Dense),
        cpu_quota: Some(CpuQuota::Ignore),
    };
    assert_bytes(
        &all,
        r#"{"without":["/proc/meminfo"],"freshness-ms":20,"cpu-ids":"dense","cpu-quota":"ignore"}"#,
    );
}
