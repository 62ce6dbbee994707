//! The edit of the section `seccomp` that hands sysinfo(2) to a supervisor, and refuses sockets of AF_VSOCK.
//!
//! The profile of the engine stays in force: a call that it refuses stays refused, and a rule that names none of the two
//! calls stays the text that it is.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::oci::raw_object::RawObject;

/// The system call that the supervisor answers.
const SYSINFO: &str = "sysinfo";

/// The system call that makes a socket.
const SOCKET: &str = "socket";

/// The address family of sockets between a virtual machine and its host. It has no namespaces.
const AF_VSOCK: u32 = libc::AF_VSOCK as u32;

/// The flag with which a filter changes nothing about the mitigations of speculation. Kernels before 5.16 slow a process down
/// that gets its first filter otherwise.
pub const KEEP_SPECULATION: &str = "SECCOMP_FILTER_FLAG_SPEC_ALLOW";

/// The flag with which only a signal that kills ends the wait for a supervisor that has begun.
pub const WAIT_KILLABLE: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

/// The action with which a supervisor answers a call.
pub const NOTIFY: &str = "SCMP_ACT_NOTIFY";

/// The architectures of the programs that this host can run.
const ARCHITECTURES: &[&str] = if cfg!(target_arch = "x86_64") {
    &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
} else if cfg!(target_arch = "aarch64") {
    &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
} else {
    &[]
};

/// The system calls of a container that a supervisor answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemCalls {
    /// The socket at which the supervisor takes the descriptor of the filter from the runtime.
    pub listener: PathBuf,
    /// What the runtime passes on with it.
    pub metadata: String,
    /// True if the runtime knows [`KEEP_SPECULATION`].
    pub keep_speculation: bool,
    /// True if the runtime knows [`WAIT_KILLABLE`].
    pub wait_killable: bool,
}

/// The result of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trapped {
    /// The supervisor answers sysinfo(2).
    Yes,
    /// The profile of the engine refuses sysinfo(2), and it stays refused.
    Refused,
    /// The profile has a supervisor of its own, and sysinfo(2) is refused unless that one is asked about it.
    OtherListener,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    #[serde(default)]
    args: Option<Vec<Argument>>,
}

#[derive(Debug, Deserialize)]
struct Argument {
    index: u32,
    value: u64,
    op: String,
}

impl Rule {
    fn names(&self, call: &str) -> bool {
        self.names.iter().any(|name| name == call)
    }

    fn is_conditional(&self) -> bool {
        self.args.as_ref().is_some_and(|args| !args.is_empty())
    }

    /// Returns true if the rule says nothing of AF_VSOCK but that it is not meant.
    fn excludes_vsock(&self) -> bool {
        let vsock = u64::from(AF_VSOCK);
        let is_other = |arg: &Argument| {
            arg.index == 0
                && match arg.op.as_str() {
                    "SCMP_CMP_NE" => arg.value == vsock,
                    "SCMP_CMP_EQ" => arg.value != vsock,
                    _ => false,
                }
        };
        self.args.iter().flatten().any(is_other)
    }
}

/// Returns whether a call with this action is made.
fn permits(action: &str) -> bool {
    matches!(action, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG")
}

/// Returns the section `seccomp` of a container whose calls `calls` are trapped. `section` is that of the engine.
///
/// # Errors
/// When it has another form.
pub(super) fn trap(
    section: Option<RawObject>,
    calls: &SystemCalls,
) -> serde_json::Result<(RawObject, Trapped)> {
    let Some(mut section) = section else {
        return own(calls).map(|section| (section, Trapped::Yes));
    };
    let listener: Option<PathBuf> = section.read("listenerPath")?;
    let has_other = listener.is_some_and(|path| path != Path::new(""));
    let default: String = section.read("defaultAction")?.unwrap_or_default();
    let mut rules = Rules {
        kept: section
            .read::<Vec<Box<RawValue>>>("syscalls")?
            .unwrap_or_default(),
        permitted: permits(&default),
    };
    rules.refuse_vsock()?;
    let trapped = match has_other {
        true => rules.refuse_sysinfo()?,
        false => rules.trap_sysinfo()?,
    };
    section.write("syscalls", &rules.kept)?;
    if trapped == Trapped::Yes {
        section.write("listenerPath", &calls.listener)?;
        section.write("listenerMetadata", &calls.metadata)?;
        if calls.wait_killable {
            let flags: Option<Vec<String>> = section.read("flags")?;
            // Without the key, a runtime that knows this flag sets it.
            let default = || calls.keep_speculation.then(|| KEEP_SPECULATION.to_owned());
            let mut flags = flags.unwrap_or_else(|| default().into_iter().collect());
            if !flags.iter().any(|flag| flag == WAIT_KILLABLE) {
                flags.push(WAIT_KILLABLE.to_owned());
            }
            section.write("flags", &flags)?;
        }
    }
    Ok((section, trapped))
}

/// Returns the section of a container whose engine has none.
fn own(calls: &SystemCalls) -> serde_json::Result<RawObject> {
    let mut flags = Vec::new();
    flags.extend(calls.keep_speculation.then_some(KEEP_SPECULATION));
    flags.extend(calls.wait_killable.then_some(WAIT_KILLABLE));
    let mut section = RawObject::default();
    section.write("defaultAction", &"SCMP_ACT_ALLOW")?;
    section.write("architectures", &ARCHITECTURES)?;
    if !flags.is_empty() {
        section.write("flags", &flags)?;
    }
    section.write("listenerPath", &calls.listener)?;
    section.write("listenerMetadata", &calls.metadata)?;
    section.write("syscalls", &[notify(), no_vsock()])?;
    Ok(section)
}

fn notify() -> Value {
    json!({"names": [SYSINFO], "action": NOTIFY})
}

fn refused() -> Value {
    json!({"names": [SYSINFO], "action": "SCMP_ACT_ERRNO"})
}

/// The upper bits of the type of a socket, which no kernel knows.
const TYPE_UNUSED: u32 = 0xfff0_0000;

/// The bits in which address families differ.
const FAMILY_BITS: u32 = 6;

/// Returns a condition that holds if these bits of an argument have this value. All other bits are ignored: the kernel takes
/// the lower half of an argument for the family, and a filter compares the whole.
fn bits(index: u32, mask: u32, value: u32) -> Value {
    json!({"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"})
}

fn no_vsock() -> Value {
    json!({
        "names": [SOCKET],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": libc::EAFNOSUPPORT,
        // libseccomp makes a rule for socketcall(2) of this one, for 32-bit programs, and takes away the first condition: it
        // would refuse every socket. The second argument is a pointer there, for which the second condition does not hold.
        "args": [bits(0, u32::MAX, AF_VSOCK), bits(1, TYPE_UNUSED, 0)],
    })
}

/// Returns rules that together permit all families but AF_VSOCK: each those that differ from it in one bit.
fn all_but_vsock() -> impl Iterator<Item = Value> {
    (0..FAMILY_BITS).map(|bit| {
        let mask = 1 << bit;
        json!({
            "names": [SOCKET],
            "action": "SCMP_ACT_ALLOW",
            "args": [bits(0, mask, !AF_VSOCK & mask)],
        })
    })
}

/// The rules of a profile.
struct Rules {
    kept: Vec<Box<RawValue>>,
    /// True if the profile permits calls that no rule names.
    permitted: bool,
}

impl Rules {
    /// Returns the rules that name a call.
    fn of(&self, call: &str) -> serde_json::Result<Vec<Rule>> {
        let all = self
            .kept
            .iter()
            .map(|rule| serde_json::from_str(rule.get()));
        let named = all.filter(|rule: &serde_json::Result<Rule>| match rule {
            Ok(rule) => rule.names(call),
            Err(_) => true,
        });
        named.collect()
    }

    /// A filter has one listener. What is not the other supervisor's must not be the kernel's, which would tell of the host.
    fn refuse_sysinfo(&mut self) -> serde_json::Result<Trapped> {
        let rules = self.of(SYSINFO)?;
        if (rules.is_empty() && self.permitted) || rules.iter().any(|rule| permits(&rule.action)) {
            self.take_out(SYSINFO, |_| true)?;
            self.kept.push(to_raw_value(&refused())?);
        }
        Ok(Trapped::OtherListener)
    }

    fn trap_sysinfo(&mut self) -> serde_json::Result<Trapped> {
        let rules = self.of(SYSINFO)?;
        let refuses = |rule: &Rule| !permits(&rule.action);
        // What is refused with some arguments only is refused with all: the supervisor is asked for all.
        if rules.iter().any(refuses) || (rules.is_empty() && !self.permitted) {
            if rules
                .iter()
                .any(|rule| rule.is_conditional() || !refuses(rule))
            {
                self.take_out(SYSINFO, |_| true)?;
                self.kept.push(to_raw_value(&refused())?);
            }
            return Ok(Trapped::Refused);
        }
        self.take_out(SYSINFO, |_| true)?;
        self.kept.push(to_raw_value(&notify())?);
        Ok(Trapped::Yes)
    }

    fn refuse_vsock(&mut self) -> serde_json::Result<()> {
        let rules = self.of(SOCKET)?;
        if self.permitted {
            // A rule of the engine about this call decides, whatever it is.
            if rules.is_empty() {
                self.kept.push(to_raw_value(&no_vsock())?);
            }
            return Ok(());
        }
        let is_whole = |rule: &Rule| permits(&rule.action) && !rule.is_conditional();
        if rules.iter().any(is_whole) {
            self.take_out(SOCKET, is_whole)?;
            if !rules.iter().any(Rule::excludes_vsock) {
                for rule in all_but_vsock() {
                    self.kept.push(to_raw_value(&rule)?);
                }
            }
        }
        Ok(())
    }

    /// Takes a call out of the rules that `is_meant` holds for.
    fn take_out(&mut self, call: &str, is_meant: impl Fn(&Rule) -> bool) -> serde_json::Result<()> {
        let mut kept = Vec::new();
        for text in std::mem::take(&mut self.kept) {
            let rule: Rule = serde_json::from_str(text.get())?;
            if !rule.names(call) || !is_meant(&rule) {
                kept.push(text);
                continue;
            }
            let names: Vec<_> = rule.names.iter().filter(|name| *name != call).collect();
            if names.is_empty() {
                continue;
            }
            let mut rest: RawObject = serde_json::from_str(text.get())?;
            rest.write("names", &names)?;
            kept.push(to_raw_value(&rest)?);
        }
        self.kept = kept;
        Ok(())
    }
}
