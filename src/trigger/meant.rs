//! The name that was meant.

/// The name that was meant, if one is so much like what was written that it is a slip of the keyboard.
pub(crate) fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    let distances = known.into_iter().map(|key| (strsim::damerau_levenshtein(&written, key), key));
    let (distance, key) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1.max(key.len() / 3)).then_some(key)
}

/// `; did you mean …?`, or nothing.
pub(crate) fn hint<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(written, known).map(|meant| format!("; did you mean {meant}?")).unwrap_or_default()
}
