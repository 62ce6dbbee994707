//! The lists of all emulators. The server, the documentation and the tests walk them.

use crate::proc::{self, pressure};
use crate::sys::devices::system::{cpu, node};
use crate::sys::devices::virtual_::{dmi::id, powercap};
use crate::sys::{firmware, kernel};
use crate::{Directory, Emulator};

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
    &cpu::offline::Offline,
    &proc::vmstat::Vmstat,
    &proc::zoneinfo::Zoneinfo,
    &proc::buddyinfo::Buddyinfo,
    &proc::pagetypeinfo::Pagetypeinfo,
    &proc::slabinfo::Slabinfo,
    &proc::interrupts::Interrupts,
    &proc::softirqs::Softirqs,
    &proc::diskstats::Diskstats,
    &proc::schedstat::Schedstat,
    &proc::timer_list::TimerList,
    &proc::sched_debug::SchedDebug,
    &proc::latency_stats::LatencyStats,
    &pressure::cpu::Cpu,
    &pressure::memory::Memory,
    &pressure::io::Io,
    &pressure::irq::Irq,
    &proc::sys::kernel::random::boot_id::BootId,
    &id::product_uuid::ProductUuid,
    &id::product_serial::ProductSerial,
    &id::board_serial::BoardSerial,
    &id::chassis_serial::ChassisSerial,
    &kernel::notes::Notes,
];

/// All directory emulators. Their ids are from the same numbers.
pub static DIRECTORIES: &[&'static dyn Directory] = &[
    &cpu::Cpu,
    &node::Node,
    &kernel::debug::DEBUG,
    &kernel::tracing::TRACING,
    &kernel::security::SECURITY,
    &kernel::config::CONFIG,
    &firmware::FIRMWARE,
    &powercap::POWERCAP,
];
