//! The decision about a container: one function decides for all callers.

use std::collections::BTreeMap;

use eci_fs_protocol::choices::{Choice, Choices};
use eci_fs_protocol::error::{Error, Kind, Result};

use super::annotations::{self, PREFIX};

/// The decision about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The container keeps the kernel's files.
    LeaveAlone,
    /// The container gets its views, with these choices.
    Attach(Choices),
}

/// Decides about a container with `annotations`. `allow` lists the choices that it may make.
///
/// # Errors
/// When an annotation is invalid, or the host does not allow the choice. A caller that ignores the error must attach
/// without any choice: a wrong annotation must not give a container the host's figures.
pub fn decide(annotations: &BTreeMap<String, String>, allow: &[Choice]) -> Result<Decision> {
    let wanted = annotations::parse(annotations)?;
    if let Some(choice) = wanted.chosen.iter().find(|choice| !allow.contains(choice)) {
        let may = match allow {
            [] => "nothing".to_owned(),
            some => some.iter().map(|c| c.name()).collect::<Vec<_>>().join(", "),
        };
        return Err(Error::new(
            Kind::Denied,
            format!("the annotation {PREFIX}{choice} is not one that containers may have on this host"),
        )
        .remedy(format!(
            "remove it, or add {choice:?} to `allow` in the configuration, which lets containers choose {may}",
            choice = choice.name(),
        )));
    }
    Ok(if wanted.enabled {
        Decision::Attach(wanted.choices)
    } else {
        Decision::LeaveAlone
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(key: &str, value: &str, allow: &[Choice]) -> Result<Decision> {
        decide(&BTreeMap::from([(key.into(), value.into())]), allow)
    }

    #[test]
    fn a_container_that_chooses_nothing_gets_all_views_whatever_is_allowed() {
        for allow in [&[][..], &Choice::ALL] {
            let decision = decision("other", "x", allow).unwrap();
            assert_eq!(decision, Decision::Attach(Choices::default()));
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused_by_name() {
        let error = decision("eci-fs.enabled", "false", &[Choice::Views]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("eci-fs.enabled") && text.contains("choose views"),
            "{text}"
        );
        let allowed = decision("eci-fs.enabled", "false", &[Choice::Enabled]);
        assert_eq!(allowed.unwrap(), Decision::LeaveAlone);
    }
}
