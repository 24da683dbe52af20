//! Versions of the records. A line of an older version passes through the fix-ups, one version
//! after the other, before it is parsed into a type.

use serde_json::Value;

use super::{ACTION, AGENT, BIND_FAILURE, LOSS, OUTCOME};

/// Changes a record of one version into a record of the next. It must not fail: parsing reports
/// what is missing.
pub type Fixup = fn(&mut Value);

/// A kind of record and its history.
pub struct Kind {
    /// The current schema: a name and `/v` with the version.
    pub schema: &'static str,
    /// In order: the last changes the previous version into the current one.
    pub fixups: &'static [Fixup],
}

/// All kinds. The first versions are the current ones, so there are no fix-ups yet.
pub const KINDS: [Kind; 5] = [
    Kind { schema: BIND_FAILURE, fixups: &[] },
    Kind { schema: LOSS, fixups: &[] },
    Kind { schema: AGENT, fixups: &[] },
    Kind { schema: OUTCOME, fixups: &[] },
    Kind { schema: ACTION, fixups: &[] },
];

/// Why a record cannot be changed into the current version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It has no schema.
    #[error("not a portwatch record: it has no `schema`")]
    NoSchema,
    /// Another program wrote it.
    #[error("not a portwatch record: its schema is `{0}`")]
    Foreign(String),
    /// A newer portwatch wrote it.
    #[error("written by a newer portwatch: {found}; this one reads up to {known}")]
    Newer {
        /// The line's schema.
        found: String,
        /// The current schema.
        known: &'static str,
    },
    /// The version was never written, or is no longer read.
    #[error("cannot read version `{found}`; this portwatch writes {known}")]
    TooOld {
        /// The line's schema.
        found: String,
        /// The current schema.
        known: &'static str,
    },
}

/// Applies the fix-ups that change `value` into a record of the current version, and returns
/// its schema.
///
/// # Errors
/// It was not written by portwatch, or its version is unknown.
pub fn bring_up_to_date(value: &mut Value, kinds: &[Kind]) -> Result<&'static str, VersionError> {
    let schema = value.get("schema").and_then(Value::as_str).ok_or(VersionError::NoSchema)?;
    if let Some(kind) = kinds.iter().find(|kind| kind.schema == schema) {
        return Ok(kind.schema);
    }
    let found = schema.to_owned();
    let (kind, version) = kinds
        .iter()
        .find_map(|kind| Some((kind, version_of(&found, kind.schema)?)))
        .ok_or_else(|| VersionError::Foreign(found.chars().take(80).collect()))?;
    let (known, fixups) = (kind.schema, kind.fixups);
    let Some(steps) = version_of(known, known).and_then(|today| today.checked_sub(version)) else {
        return Err(VersionError::Newer { found, known });
    };
    let Some(first) = usize::try_from(steps).ok().and_then(|n| fixups.len().checked_sub(n)) else {
        return Err(VersionError::TooOld { found, known });
    };
    for fixup in fixups.iter().skip(first) {
        fixup(value);
    }
    if let Some(schema) = value.get_mut("schema") {
        *schema = known.into();
    }
    Ok(known)
}

/// Returns the version of `found`, if it is of the kind `known`.
fn version_of(found: &str, known: &str) -> Option<u32> {
    let (name, _) = known.rsplit_once("/v")?;
    found.strip_prefix(name)?.strip_prefix("/v")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A kind that has changed twice.
    const CHANGED: [Kind; 1] = [Kind {
        schema: "portwatch/test/v3",
        fixups: &[
            |value| value["b"] = value["a"].take(),
            |value| value["c"] = json!([value["b"].take()]),
        ],
    }];

    #[test]
    fn fixups_apply_in_order_from_the_version_on() {
        for mut old in [
            json!({"schema": "portwatch/test/v1", "a": 1}),
            json!({"schema": "portwatch/test/v2", "b": 1}),
            json!({"schema": "portwatch/test/v3", "c": [1]}),
        ] {
            assert_eq!(bring_up_to_date(&mut old, &CHANGED), Ok("portwatch/test/v3"));
            assert_eq!(old["schema"], "portwatch/test/v3");
            assert_eq!(old["c"], json!([1]), "{old}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let said = |schema: &str| {
            bring_up_to_date(&mut json!({"schema": schema}), &CHANGED).unwrap_err().to_string()
        };
        insta::assert_snapshot!(said("portwatch/test/v4"), @"written by a newer portwatch: portwatch/test/v4; this one reads up to portwatch/test/v3");
        insta::assert_snapshot!(said("portwatch/test/v0"), @"cannot read version `portwatch/test/v0`; this portwatch writes portwatch/test/v3");
        insta::assert_snapshot!(said("portwatch/test/vx"), @"not a portwatch record: its schema is `portwatch/test/vx`");
        insta::assert_snapshot!(said("other"), @"not a portwatch record: its schema is `other`");
        assert_eq!(bring_up_to_date(&mut json!([1]), &CHANGED), Err(VersionError::NoSchema));
    }
}
