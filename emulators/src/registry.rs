//! The one list of file emulators. The server, the documentation and the tests walk it.

use crate::Emulator;
use crate::proc;
use crate::sys::devices::system::cpu;

/// All file emulators. Their ids are never given again to another file.
pub static EMULATORS: &[&'static dyn Emulator] = &[
    &proc::uptime::Uptime,
    &proc::meminfo::Meminfo,
    &proc::cpuinfo::Cpuinfo,
    &proc::stat::Stat,
    &proc::swaps::Swaps,
    &proc::loadavg::Loadavg,
    &cpu::online::Online,
    &cpu::possible::Possible,
    &cpu::present::Present,
];
