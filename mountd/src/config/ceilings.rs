//! The table `[raise]`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use eci_fs_protocol::host_sysctl::HostSysctl;

/// The table `[raise]`: the ceiling of each sysctl of the host. One that is not in it is never raised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ceilings(BTreeMap<HostSysctl, u64>);

impl Ceilings {
    /// Returns the ceiling of one.
    pub fn of(&self, tunable: HostSysctl) -> Option<u64> {
        self.0.get(&tunable).copied()
    }

    /// Returns the sysctls that may be raised.
    pub fn tunables(&self) -> Vec<HostSysctl> {
        self.0.keys().copied().collect()
    }
}

impl FromIterator<(HostSysctl, u64)> for Ceilings {
    fn from_iter<T: IntoIterator<Item = (HostSysctl, u64)>>(ceilings: T) -> Self {
        Self(ceilings.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Ceilings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Table)
    }
}

/// The visitor of the table.
struct Table;

impl<'de> Visitor<'de> for Table {
    type Value = Ceilings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of tunables and their ceilings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ceilings, A::Error> {
        let mut ceilings = BTreeMap::new();
        while let Some(tunable) = map.next_key()? {
            ceilings.insert(tunable, map.next_value_seed(CeilingOf(tunable))?);
        }
        Ok(Ceilings(ceilings))
    }
}

/// One value in the table: a number that the kernel takes for this sysctl.
struct CeilingOf(HostSysctl);

impl<'de> DeserializeSeed<'de> for CeilingOf {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        let Self(tunable) = self;
        let ceiling = u64::deserialize(deserializer)?;
        let most = tunable.most();
        if (1..=most).contains(&ceiling) {
            return Ok(ceiling);
        }
        Err(D::Error::custom(format!(
            "in [raise], {tunable} is {ceiling}, and must be 1 to {most}"
        )))
    }
}
