//! Values that are made of the bytes of an input.

use arbitrary::{Arbitrary, Unstructured};

/// Returns the value that the bytes of an input stand for. Bytes that are missing count as 0.
pub fn decode<'a, T: Arbitrary<'a>>(bytes: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(bytes)).ok()
}

/// A change of a recorded file.
#[derive(Debug, Arbitrary)]
pub struct Edit {
    /// True for a file of a cgroup, false for one of the host.
    pub of_cgroup: bool,
    /// The index of the file, modulo their number.
    pub file: u16,
    change: Change,
}

#[derive(Debug, Arbitrary)]
enum Change {
    Remove,
    Replace(Vec<u8>),
    /// Puts bytes in the place of others.
    Splice {
        at: u16,
        removed: u8,
        bytes: Vec<u8>,
    },
    /// Puts another number in the place of one.
    Number {
        index: u8,
        number: u64,
    },
    /// Has the file again and again.
    Repeat(u8),
}

impl Edit {
    /// Returns the new bytes of a file; none if it is removed.
    pub fn apply(&self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        /// The most bytes that a change makes of a file.
        const MOST: usize = 1 << 18;
        match &self.change {
            Change::Remove => return None,
            Change::Replace(new) => bytes.clone_from(new),
            Change::Splice {
                at,
                removed,
                bytes: new,
            } => {
                let at = usize::from(*at) % (bytes.len() + 1);
                let end = bytes.len().min(at + usize::from(*removed));
                bytes.splice(at..end, new.iter().copied());
            }
            Change::Number { index, number } => {
                let mut numbers = Vec::new();
                let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
                for at in (0..bytes.len()).filter(|at| is_digit(*at)) {
                    match numbers.last_mut() {
                        Some((_, end)) if *end == at => *end += 1,
                        _ => numbers.push((at, at + 1)),
                    }
                }
                if !numbers.is_empty() {
                    let (at, end) = numbers[usize::from(*index) % numbers.len()];
                    bytes.splice(at..end, number.to_string().into_bytes());
                }
            }
            Change::Repeat(times) => {
                let times = usize::from(*times).min(MOST / bytes.len().max(1) + 1);
                bytes = bytes.repeat(times);
            }
        }
        bytes.truncate(MOST);
        Some(bytes)
    }
}
