//! Refusal of keys of config.json that runtimes read in different ways.
//!
//! Runtimes in Go take a key in any letter case, the others only as it is written. Of two equal keys in one object some
//! take the first, and some the last. If eci-fs and a runtime took different ones, eci-fs would decide by a value that the
//! container does not have, and the other key could undo an edit. Engines write no such keys, so they are refused.

use std::collections::HashSet;
use std::fmt;

use eci_fs_protocol::error::{Error, Result};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

/// The part of a value that is read or edited.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// A value without keys that are known.
    Plain,
    /// An object, with the keys that are known in it.
    Object(&'static [(&'static str, Shape)]),
    /// An object whose keys are all data: each of them may be there once.
    Map,
    /// A list of such values.
    List(&'static Shape),
}

const MAPPINGS: Shape = Shape::List(&Shape::Object(&[
    ("containerID", Shape::Plain),
    ("hostID", Shape::Plain),
    ("size", Shape::Plain),
]));

const HOOKS: Shape = Shape::List(&Shape::Object(&[
    ("path", Shape::Plain),
    ("args", Shape::Plain),
    ("env", Shape::Plain),
    ("timeout", Shape::Plain),
]));

/// The keys of config.json that eci-fs reads or edits, and keys beside them that runtimes read for the same purpose.
const CONFIG: Shape = Shape::Object(&[
    (
        "root",
        Shape::Object(&[("path", Shape::Plain), ("readonly", Shape::Plain)]),
    ),
    (
        "process",
        Shape::Object(&[
            ("cwd", Shape::Plain),
            (
                "user",
                Shape::Object(&[
                    ("uid", Shape::Plain),
                    ("gid", Shape::Plain),
                    ("additionalGids", Shape::Plain),
                ]),
            ),
            ("capabilities", Shape::Object(&[("bounding", Shape::Plain)])),
        ]),
    ),
    (
        "mounts",
        Shape::List(&Shape::Object(&[
            ("destination", Shape::Plain),
            ("type", Shape::Plain),
            ("source", Shape::Plain),
            ("options", Shape::Plain),
            ("uidMappings", MAPPINGS),
            ("gidMappings", MAPPINGS),
        ])),
    ),
    ("annotations", Shape::Map),
    (
        "hooks",
        Shape::Object(&[
            ("prestart", HOOKS),
            ("createRuntime", HOOKS),
            ("createContainer", HOOKS),
            ("startContainer", HOOKS),
            ("poststart", HOOKS),
            ("poststop", HOOKS),
        ]),
    ),
    (
        "linux",
        Shape::Object(&[
            (
                "namespaces",
                Shape::List(&Shape::Object(&[
                    ("type", Shape::Plain),
                    ("path", Shape::Plain),
                ])),
            ),
            ("uidMappings", MAPPINGS),
            ("gidMappings", MAPPINGS),
            ("timeOffsets", Shape::Map),
            (
                "devices",
                Shape::List(&Shape::Object(&[
                    ("path", Shape::Plain),
                    ("type", Shape::Plain),
                    ("major", Shape::Plain),
                    ("minor", Shape::Plain),
                    ("fileMode", Shape::Plain),
                    ("uid", Shape::Plain),
                    ("gid", Shape::Plain),
                ])),
            ),
            (
                "resources",
                Shape::Object(&[(
                    "devices",
                    Shape::List(&Shape::Object(&[
                        ("allow", Shape::Plain),
                        ("type", Shape::Plain),
                        ("major", Shape::Plain),
                        ("minor", Shape::Plain),
                        ("access", Shape::Plain),
                    ])),
                )]),
            ),
            ("sysctl", Shape::Map),
            ("cgroupsPath", Shape::Plain),
            ("rootfsPropagation", Shape::Plain),
            ("maskedPaths", Shape::Plain),
            ("readonlyPaths", Shape::Plain),
        ]),
    ),
]);

/// Checks that all runtimes find the same values in the configuration `text`, as far as eci-fs reads or edits them.
///
/// # Errors
/// When `text` is no JSON, a key differs by its letter case alone from one that is known at its place, or is there twice,
/// and when a key or text has a zero byte.
pub(super) fn check(text: &[u8]) -> Result<()> {
    if has_zero(text) {
        return Err(Error::refused(
            "not the configuration of a container: a text in it has the letter \\u0000; for some runtimes it ends there",
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    CONFIG
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| Error::refused(format!("not the configuration of a container: {error}")))
}

/// Returns whether a text of the JSON has a zero byte. Only texts have backslashes.
fn has_zero(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        rest = rest.get(at + 1..).unwrap_or_default();
        if rest.starts_with(b"u0000") {
            return true;
        }
        // The letter after the backslash may be one itself.
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Returns true if a runtime in Go takes one key for the other: it compares by Unicode's simple folding, which maps two
/// letters beyond ASCII to letters of ASCII.
fn is_same_in_go(one: &str, other: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    one.chars().map(fold).eq(other.chars().map(fold))
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        match self {
            Self::Plain => IgnoredAny::deserialize(deserializer).map(drop),
            shape => deserializer.deserialize_any(Walk(shape)),
        }
    }
}

/// The visitor of a value. A value of another type than its shape says is left to those who read it.
struct Walk(Shape);

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        let entry = match self.0 {
            Shape::List(entry) => *entry,
            _ => Shape::Plain,
        };
        while list.next_element_seed(entry)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let known = match self.0 {
            Shape::Object(known) => known,
            _ => &[],
        };
        let is_map = matches!(self.0, Shape::Map);
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let found = known.iter().find(|(name, _)| is_same_in_go(name, &key));
            if let Some((name, _)) = found.filter(|(name, _)| *name != key) {
                return Err(A::Error::custom(format_args!(
                    "the field {key:?} is written {name:?}; some runtimes take it for that, and some do not"
                )));
            }
            let shape = found.map_or(Shape::Plain, |(_, shape)| *shape);
            if (is_map || found.is_some()) && seen.contains(&key) {
                return Err(A::Error::custom(format_args!(
                    "the field {key:?} is there twice; some runtimes take the first, and some the last"
                )));
            }
            map.next_value_seed(shape)?;
            if is_map || found.is_some() {
                seen.insert(key);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration that has every key that is known.
    fn example(shape: Shape) -> serde_json::Value {
        match shape {
            Shape::Plain => serde_json::json!(1),
            Shape::Map => serde_json::json!({ "a": "b", "A": "c" }),
            Shape::List(entry) => serde_json::json!([example(*entry), example(*entry)]),
            Shape::Object(known) => {
                let fields = known.iter();
                fields
                    .map(|(name, shape)| ((*name).to_owned(), example(*shape)))
                    .collect()
            }
        }
    }

    /// The places of all keys in a text, and what stands there.
    fn keys(text: &str) -> Vec<(usize, &str)> {
        let ends = text.match_indices("\":");
        ends.map(|(end, _)| {
            let start = text[..end].rfind('"').unwrap();
            (start, &text[start + 1..end])
        })
        .collect()
    }

    #[test]
    fn a_known_key_in_another_letter_case_is_refused_wherever_it_stands() {
        let text = example(CONFIG).to_string();
        check(text.as_bytes()).unwrap();
        let mut refused = 0;
        for (at, key) in keys(&text) {
            if key.len() == 1 {
                continue;
            }
            for other in [key.to_ascii_uppercase(), key.replacen('s', "\u{17f}", 1)] {
                if other == key {
                    continue;
                }
                let mut odd = text.clone();
                odd.replace_range(at + 1..at + 1 + key.len(), &other);
                let error = check(odd.as_bytes()).unwrap_err().to_string();
                assert!(
                    error.contains(key) && error.contains("written"),
                    "{other}: {error}"
                );
                // Beside the one that is known it is no better.
                let mut both = text.clone();
                both.insert_str(at, &format!("\"{other}\":null,"));
                assert!(check(both.as_bytes()).is_err(), "{other}");
                refused += 1;
            }
        }
        assert!(refused > 150, "{refused}");
    }

    #[test]
    fn a_known_key_that_is_there_twice_is_refused_wherever_it_stands() {
        let text = example(CONFIG).to_string();
        for (at, key) in keys(&text) {
            let mut twice = text.clone();
            twice.insert_str(at, &format!("\"{key}\":null,"));
            let error = check(twice.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("twice"), "{error}");
        }
    }

    #[test]
    fn a_zero_byte_is_refused_wherever_it_stands() {
        for text in [
            r#"{"linux\u0000":{},"linux":{}}"#,
            r#"{"linux":{"namespaces":[{"type":"user\u0000"}]}}"#,
            r#"{"a":"\\\u0000"}"#,
        ] {
            let error = check(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("u0000"), "{error}");
        }
        for text in [
            r#"{"a":"\\u0000"}"#,
            r#"{"a":"\u00001\u0001"}"#.replace("u00001", "u0010").as_str(),
        ] {
            check(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn what_is_not_known_and_values_of_other_types_are_left_to_their_readers() {
        for text in [
            "{}",
            r#"{"root":null,"linux":7,"mounts":{"Source":1},"annotations":[{"a":1,"a":2}]}"#,
            r#"{"new":1,"NEW":2,"new":3,"linux":{"intelRdt":{"Path":1,"path":2}}}"#,
            r#"{"annotations":{"Root":"a","root":"b"},"linux":{"sysctl":{"A":"1","a":"2"}}}"#,
            r#"{"process":{"args":["uid","UID"],"env":["UID=1"]}}"#,
        ] {
            check(text.as_bytes()).unwrap();
        }
        for text in ["", "{", "{}{}", r#"{"root":{}"#] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
    }
}
