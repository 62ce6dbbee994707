//! The configuration of a container for OCI runtimes, in the format of `runc spec`.

use std::path::Path;

use serde_json::{Value, json};

use crate::Limits;
use crate::cgroup::quota_usec;

/// The first host id of a user namespace, and the number of ids.
pub(crate) const HOST_ID: u32 = 100_000;
pub(crate) const HOST_IDS: u32 = 65_536;

/// Returns the configuration of a container whose pid 1 is `probe agent`.
pub(crate) fn config(root: &Path, cgroup: &str, limits: &Limits, user: bool) -> Value {
    let mut namespaces: Vec<Value> = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    let capabilities = json!(["CAP_KILL"]);
    let mut linux = json!({
        "cgroupsPath": cgroup,
        "resources": resources(limits),
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
        ],
        "readonlyPaths": [
            "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
        ],
    });
    if user {
        namespaces.push(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": HOST_ID, "size": HOST_IDS }]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
    }
    linux["namespaces"] = Value::Array(namespaces);
    let plain = ["nosuid", "noexec", "nodev"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/probe", "agent"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "noNewPrivileges": true,
        },
        "root": { "path": root, "readonly": true },
        "hostname": "eci-test",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": plain },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": linux,
    })
}

fn resources(limits: &Limits) -> Value {
    let mut resources = json!({
        "devices": [{ "allow": false, "access": "rwm" }],
    });
    if let Some(memory) = limits.memory {
        resources["memory"] = json!({ "limit": memory });
        if let Some(swap) = limits.swap {
            resources["memory"]["swap"] = json!(memory + swap);
        }
    }
    let mut cpu = serde_json::Map::new();
    if let Some(cpus) = limits.cpus {
        cpu.insert("quota".to_owned(), json!(quota_usec(cpus)));
        cpu.insert("period".to_owned(), json!(100_000));
    }
    if let Some(cpus) = limits.cpuset {
        cpu.insert("cpus".to_owned(), json!(cpus));
    }
    if !cpu.is_empty() {
        resources["cpu"] = Value::Object(cpu);
    }
    resources
}
