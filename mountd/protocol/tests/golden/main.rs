//! The bytes of every packet that the programs exchange, one file for each of the four protocols.
//!
//! A test fails when a byte on the wire changes, and when a packet of before is not understood any more. A variant
//! that is added does not compile until it has its bytes here. If a change is meant, change the bytes here, and ask
//! whether the version of the protocol must grow: the two ends of a channel may be of different releases.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod handover;
mod link;
mod values;
mod vet;

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Asserts that `value` is written as `bytes`, and that `bytes` are read as `value`.
#[track_caller]
fn assert_bytes<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, bytes: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), bytes);
    assert_reads(bytes, value);
}

/// Asserts that bytes which a program of another release writes are read as `value`.
#[track_caller]
fn assert_reads<T: DeserializeOwned + PartialEq + Debug>(bytes: &str, value: &T) {
    assert_eq!(&serde_json::from_str::<T>(bytes).unwrap(), value, "{bytes}");
}

/// A test of an enum: for each variant its pattern, one value of it, and the bytes of that. The patterns must cover
/// the enum.
macro_rules! golden {
    ($test:ident, $type:ty: $($pattern:pat => $value:expr, $bytes:expr;)+) => {
        #[test]
        #[allow(unreachable_patterns, reason = "some variants have more than one row")]
        fn $test() {
            let _every_variant_has_a_row = |value: &$type| match value {
                $($pattern => (),)+
            };
            $(
                let value: $type = $value;
                assert!(matches!(&value, $pattern), "{value:?} is in the row of another variant");
                crate::assert_bytes(&value, $bytes);
            )+
        }
    };
}
pub(crate) use golden;
