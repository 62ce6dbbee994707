//! Views below /sys/devices/virtual/dmi.

pub mod id;
