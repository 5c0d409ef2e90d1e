//! Keys that no setting has: the reason if gunicorn has them, otherwise the most similar setting.

use super::declare::Setting;
use super::error::{Origin, Problem};
use super::table::TABLE;
use super::unsupported;
use crate::similar::distance;

/// Creates a problem of an unknown key.
pub(super) fn unknown_key(origin: &Origin, key: &str) -> Problem {
    let hint = match (unsupported::reason(key), nearest(key)) {
        (Some(reason), _) => format!(" (of gunicorn): {reason}"),
        (None, Some(setting)) => format!("; did you mean {:?}?", setting.name),
        (None, None) => String::new(),
    };
    Problem::at(origin, format!("unknown key {key:?}{hint}"))
}

/// Returns the setting whose name or flag is most similar to `key`, if one is similar enough.
fn nearest(key: &str) -> Option<&'static Setting> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let spellings = |setting: &'static Setting| {
        let flags = setting.long.into_iter().chain(setting.aliases.iter().copied());
        std::iter::once(setting.name).chain(flags)
    };
    TABLE
        .iter()
        .filter_map(|setting| {
            let distance =
                spellings(setting).map(|name| distance(&key, &name.replace('-', "_"))).min()?;
            Some((distance, setting))
        })
        .filter(|(distance, _)| *distance <= 1 + key.chars().count() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, setting)| setting)
}
