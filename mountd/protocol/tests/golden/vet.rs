//! Version 1 of the channel between the daemon and the supervisor of system calls.

use eci_fs_protocol::vet::{Container, FromVet, Listener, ToVet, VERSION};

use crate::golden;

fn container() -> Container {
    Container {
        pid: 7,
        id: "c".to_owned(),
    }
}

fn listener() -> Listener {
    Listener {
        slot: 3,
        container: container(),
    }
}

golden! { what_the_daemon_says, ToVet:
    ToVet::Start { .. } => ToVet::Start { version: VERSION, freshness_ms: 10, cpu_share: 25 },
        r#"{"start":{"version":1,"freshness_ms":10,"cpu_share":25}}"#;
    ToVet::Listen(..) => ToVet::Listen(listener()),
        r#"{"listen":{"slot":3,"container":{"pid":7,"id":"c"}}}"#;
    ToVet::Views(..) => ToVet::Views(container()), r#"{"views":{"pid":7,"id":"c"}}"#;
    ToVet::HandOver { .. } => ToVet::HandOver { version: VERSION },
        r#"{"hand-over":{"version":1}}"#;
    ToVet::End => ToVet::End, r#""end""#;
}

golden! { what_the_supervisor_says, FromVet:
    FromVet::Started => FromVet::Started, r#""started""#;
    FromVet::Failed { .. } => FromVet::Failed { why: "no".to_owned() }, r#"{"failed":{"why":"no"}}"#;
    FromVet::Ended { .. } => FromVet::Ended { slot: 3 }, r#"{"ended":{"slot":3}}"#;
    FromVet::FindViews(..) => FromVet::FindViews(container()),
        r#"{"find-views":{"pid":7,"id":"c"}}"#;
    FromVet::Held { .. } => FromVet::Held { listeners: vec![listener()], last: true },
        r#"{"held":{"listeners":[{"slot":3,"container":{"pid":7,"id":"c"}}],"last":true}}"#;
}
