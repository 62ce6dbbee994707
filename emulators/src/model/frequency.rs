//! The nominal frequency of a CPU, which files show in place of the present one: that tells what others do.

use crate::Context;
use crate::model::cpus::PATH;
use crate::text::{lines, parse_u64, trimmed};

/// Returns the nominal frequency of one of the host's CPUs in kHz.
pub(crate) fn read(cx: &Context<'_>, cpu: u32) -> Option<u64> {
    read_base_khz(cx, cpu).or_else(|| {
        let cpuinfo = cx.host.read_optional("/proc/cpuinfo").ok()??;
        let mut fields = lines(&cpuinfo).filter_map(field);
        fields.find(|(key, value)| *key == "processor" && *value == cpu.to_string())?;
        let block: Vec<(&str, &str)> = fields.take_while(|(key, _)| *key != "processor").collect();
        let value = |wanted: &str| block.iter().find(|(key, _)| *key == wanted);
        let value = |wanted: &str| value(wanted).map(|(_, value)| *value);
        nominal_khz(value("model name"), value("bogomips"))
    })
}

/// Reads the nominal frequency, if the driver has it (intel_pstate, amd-pstate).
pub(crate) fn read_base_khz(cx: &Context<'_>, cpu: u32) -> Option<u64> {
    let path = format!("{PATH}/cpufreq/policy{cpu}/base_frequency");
    parse_u64(&cx.host.read_optional(&path).ok()??)
}

/// Returns a line of /proc/cpuinfo as key and value.
pub(crate) fn field(line: &[u8]) -> Option<(&str, &str)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (key, rest) = line.split_at_checked(colon)?;
    Some((trimmed(key), trimmed(rest.get(1..)?)))
}

/// Returns the nominal frequency if the driver does not have it. Intel's model names end with "@ 2.40GHz". Else it is
/// half of bogomips, which is twice the frequency of the time stamp counter (calibrate_delay).
pub(crate) fn nominal_khz(model_name: Option<&str>, bogomips: Option<&str>) -> Option<u64> {
    let named = model_name.and_then(|name| {
        let ghz = name.rsplit_once("@ ")?.1.strip_suffix("GHz")?;
        parse_thousandths(ghz)?.checked_mul(1000)
    });
    named.or_else(|| Some(parse_thousandths(bogomips?)? / 2))
}

/// Parses "2.4" as 2400. Decimals after the third are cut off.
fn parse_thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text
        .trim()
        .split_once('.')
        .unwrap_or_else(|| (text.trim(), ""));
    let mut value = parse_u64(whole.as_bytes())?.checked_mul(1000)?;
    let mut weight = 100;
    for byte in fraction.bytes().take(3) {
        let digit = char::from(byte).to_digit(10)?;
        value = value.checked_add(u64::from(digit).checked_mul(weight)?)?;
        weight /= 10;
    }
    Some(value)
}
