//! The versions of each kind of record, and how the older ones become the present one.
//!
//! To change a format: add a step, which raises the version by one, and write what it writes now to
//! `tests/fixtures/store` (`tests/it/contract/landed.rs` says how). A field that older programs may
//! leave out of a task without harm needs no version; whatever they would misread or lose does.

use serde_json::{Map, Value};

use super::envelope::Kind;

/// What one version does to the members of the one before it.
type Step = fn(&mut Map<String, Value>) -> Result<(), String>;

/// The steps from version 1 on, in order.
const fn steps(kind: Kind) -> &'static [Step] {
    match kind {
        Kind::Spec => &[name_what_coalesces],
        // Attempts, back-fills and what is to be tried again: their absence says that there are none.
        // Then: where the run times lie that a run stands for, those that were passed over, and where a
        // schedule begins; the same.
        Kind::State | Kind::Run => &[unchanged, unchanged],
        Kind::Identity | Kind::Quarantine | Kind::Rules => &[],
        #[cfg(any(feature = "sled", feature = "redb"))]
        Kind::Mark => &[],
    }
}

/// The version that is written.
pub(super) const fn version(kind: Kind) -> u8 {
    steps(kind).len() as u8 + 1
}

/// The content of a record of an older version, as the present one would have written it.
pub(super) fn to_present(kind: Kind, version: u8, mut content: Value) -> Result<Value, String> {
    let Value::Object(members) = &mut content else { return Err("it is no object".to_owned()) };
    for step in steps(kind).iter().skip(usize::from(version.saturating_sub(1))) {
        step(members)?;
    }
    Ok(content)
}

fn unchanged(_: &mut Map<String, Value>) -> Result<(), String> {
    Ok(())
}

/// Version 1: whether run times that are due together become one. Version 2: which one.
fn name_what_coalesces(spec: &mut Map<String, Value>) -> Result<(), String> {
    match spec.get_mut("coalesce") {
        Some(coalesce) => {
            if let Value::Bool(flag) = *coalesce {
                *coalesce = if flag { "latest" } else { "all" }.into();
            }
            Ok(())
        }
        None => Err("`coalesce` is missing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_flag_becomes_a_word() {
        let present = |old| to_present(Kind::Spec, 1, old);
        assert_eq!(present(json!({ "coalesce": true })), Ok(json!({ "coalesce": "latest" })));
        assert_eq!(present(json!({ "coalesce": false, "b": 1 })), Ok(json!({ "coalesce": "all", "b": 1 })));
        assert!(present(json!({})).unwrap_err().contains("coalesce"));
        assert!(present(json!([])).unwrap_err().contains("no object"));
        assert_eq!(to_present(Kind::Spec, 2, json!({})), Ok(json!({})), "nothing is done to the present one");
    }

    /// Eight bits: there is room, and the byte of a version is never that of a codec.
    #[test]
    fn versions_start_at_one() {
        for kind in Kind::ALL {
            assert_eq!(usize::from(version(kind)), steps(kind).len() + 1);
        }
    }
}
