//! Runtimes of languages: Python, Node.js, Java.

use serde_json::Value;

use crate::Means::{Container, Cpuset, Machine, Zero};
use crate::{Said, Seen};

/// The line of JSON that a script printed.
#[track_caller]
fn json(said: &Said) -> Value {
    let line = said.text.lines().find(|line| line.starts_with('{'));
    match line.map(serde_json::from_str) {
        Some(Ok(value)) => value,
        other => panic!("{other:?}: {said:#?}"),
    }
}

/// Debian's Python, for its psutil is asked for.
const PYTHON: &str = r#"/usr/bin/python3 -c '
import json, os, time
try:
    import psutil
except ImportError:
    raise SystemExit("psutil is missing: cargo xtask setup, or apt-get install python3-psutil")
print(json.dumps({
    "memory": psutil.virtual_memory().total, "free": psutil.virtual_memory().available,
    "cpus": psutil.cpu_count(), "os_cpus": os.cpu_count(), "cores": psutil.cpu_count(logical=False),
    "rows": len(psutil.cpu_times(percpu=True)), "affinity": len(os.sched_getaffinity(0)),
    "switches": psutil.cpu_stats().ctx_switches, "load": os.getloadavg()[2], "psutil_load": psutil.getloadavg()[2],
    "age": time.time() - psutil.Process(1).create_time(), "boot": time.time() - psutil.boot_time(),
}))'"#;

#[test]
fn privileged_psutil_reports_the_memory_the_cpus_and_the_start_of_the_container() {
    let seen = Seen::of("python3", "python3", PYTHON);
    seen.row(
        "`psutil.virtual_memory().total`",
        Machine,
        Container,
        "/proc/meminfo",
        |said, means| {
            said.is_memory(json(said)["memory"].as_u64().unwrap(), means);
        },
    );
    let count = |name: &'static str| {
        move |said: &Said, means| said.is_count(json(said)[name].as_u64().unwrap() as usize, means)
    };
    let online = "/sys/devices/system/cpu/online";
    seen.row(
        "`os.cpu_count()`",
        Machine,
        Container,
        online,
        count("os_cpus"),
    );
    seen.row(
        "`psutil.cpu_count()`",
        Machine,
        Container,
        online,
        count("cpus"),
    );
    seen.row(
        "`psutil.cpu_times(percpu=True)`",
        Machine,
        Container,
        "/proc/stat",
        count("rows"),
    );
    seen.row(
        "`os.sched_getaffinity()`",
        Cpuset,
        Cpuset,
        "sched_getaffinity(2)",
        count("affinity"),
    );
    seen.row(
        "`psutil.cpu_stats().ctx_switches`",
        Machine,
        Zero,
        "/proc/stat",
        |said, means| {
            said.is_counter(json(said)["switches"].as_u64().unwrap(), means);
        },
    );
    let age = |name: &'static str| {
        move |said: &Said, means| said.is_uptime(json(said)[name].as_f64().unwrap(), 1.0, means)
    };
    seen.row(
        "`psutil.boot_time()`",
        Container,
        Container,
        "/proc/stat",
        age("boot"),
    );
    seen.row(
        "`psutil.Process(1).create_time()`",
        Container,
        Container,
        "/proc/1/stat, /proc/stat",
        age("age"),
    );
}

#[test]
fn privileged_python_reports_the_load_of_the_machine() {
    let seen = Seen::busy("python3", "python3", PYTHON);
    seen.row(
        "`os.getloadavg()`",
        Machine,
        Machine,
        "sysinfo(2)",
        |said, means| {
            said.is_load(json(said)["load"].as_f64().unwrap(), means);
            said.is_load(json(said)["psutil_load"].as_f64().unwrap(), means);
        },
    );
}

const NODE: &str = r#"node -e '
const os = require("os");
console.log(JSON.stringify({
    memory: os.totalmem(), cpus: os.cpus().length, parallel: os.availableParallelism?.(),
    load: os.loadavg()[2], up: os.uptime(),
}))'"#;

#[test]
fn privileged_node_reports_the_memory_and_the_cpus_of_the_container() {
    let seen = Seen::of("node", "nodejs", NODE);
    seen.row(
        "`os.totalmem()`",
        Machine,
        Container,
        "/proc/meminfo",
        |said, means| {
            said.is_memory(json(said)["memory"].as_u64().unwrap(), means);
        },
    );
    seen.row(
        "`os.cpus().length`",
        Machine,
        Container,
        "/proc/stat, /proc/cpuinfo",
        |said, means| {
            said.is_count(json(said)["cpus"].as_u64().unwrap() as usize, means);
        },
    );
    seen.row(
        "`os.uptime()`",
        Container,
        Container,
        "/proc/uptime",
        |said, means| {
            said.is_uptime(json(said)["up"].as_f64().unwrap(), 1.0, means);
        },
    );
    // Older than Node.js 18.14 it has no such function.
    seen.row(
        "`os.availableParallelism()`",
        Cpuset,
        Cpuset,
        "sched_getaffinity(2)",
        |said, means| {
            if let Some(count) = json(said)["parallel"].as_u64() {
                said.is_count(count as usize, means);
            }
        },
    );
}

#[test]
fn privileged_node_reports_the_load_of_the_container() {
    let seen = Seen::busy("node", "nodejs", NODE);
    seen.row(
        "`os.loadavg()`",
        Machine,
        Container,
        "/proc/loadavg",
        |said, means| {
            said.is_load(json(said)["load"].as_f64().unwrap(), means);
        },
    );
}

/// A source file is run without compiling it first, which takes a JDK. One compiler thread and a small collector,
/// for it is to fit beside other tests.
const JAVA: &str = r#"
dir=$(mktemp -d)
cat > $dir/Report.java <<'END'
import java.lang.management.ManagementFactory;
class Report {
    public static void main(String[] arguments) throws Exception {
        var bean = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        var age = java.time.Duration.between(
            ProcessHandle.of(1).orElseThrow().info().startInstant().orElseThrow(), java.time.Instant.now());
        System.out.println("{\"cpus\":" + Runtime.getRuntime().availableProcessors()
            + ",\"heap\":" + Runtime.getRuntime().maxMemory()
            + ",\"memory\":" + bean.getTotalMemorySize()
            + ",\"load\":" + bean.getCpuLoad()
            + ",\"age\":" + age.toMillis() / 1000.0 + "}");
    }
}
END
java -XX:-UseContainerSupport -XX:+UseSerialGC -XX:TieredStopAtLevel=1 $dir/Report.java
rm -r $dir
"#;

#[test]
fn privileged_java_without_container_support_reports_what_system_calls_say() {
    let seen = Seen::of("java", "default-jdk-headless", JAVA);
    seen.row(
        "`Runtime.availableProcessors()`",
        Cpuset,
        Cpuset,
        "sched_getaffinity(2)",
        |said, means| said.is_count(json(said)["cpus"].as_u64().unwrap() as usize, means),
    );
    seen.row(
        "`Runtime.maxMemory()`, times four",
        Machine,
        Machine,
        "sysinfo(2)",
        |said, means| {
            said.is_memory(json(said)["heap"].as_u64().unwrap() * 4, means);
        },
    );
    seen.row(
        "`getTotalMemorySize()`",
        Machine,
        Machine,
        "sysinfo(2)",
        |said, means| {
            said.is_memory(json(said)["memory"].as_u64().unwrap(), means);
        },
    );
    seen.row(
        "`ProcessHandle.of(1)`: start",
        Container,
        Container,
        "/proc/1/stat, /proc/stat",
        |said, means| said.is_uptime(json(said)["age"].as_f64().unwrap(), 1.0, means),
    );
}
