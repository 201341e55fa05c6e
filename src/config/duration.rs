use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no duration: {reason}; write for instance \"250ms\", \"90s\", \"5m\", \"1h30m\" or \"2days\""
)]
pub struct DurationError {
    text: String,
    reason: String,
}

/// Reads a length of time: numbers with units, largest first or not, as in `90s`, `5m`, `1h30m`.
///
/// A number without a unit is refused, because nobody can know what it means. So are months and
/// years: they have no fixed length, and a cron expression says what was probably meant.
///
/// ```
/// use callboard::config::parse_duration;
/// use std::time::Duration;
///
/// assert_eq!(parse_duration("1h30m")?, Duration::from_secs(5400));
/// assert_eq!(parse_duration("250ms")?, Duration::from_millis(250));
/// assert!(parse_duration("90").is_err());
/// assert!(parse_duration("1month").is_err());
/// # Ok::<(), callboard::config::DurationError>(())
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let refuse = |reason: String| DurationError { text: text.to_owned(), reason };
    let text = text.trim();
    if text.chars().all(|c| c.is_ascii_digit() || c == '.') && !text.is_empty() {
        return Err(refuse("it has no unit".to_owned()));
    }
    let units = text.split(|c: char| !c.is_alphabetic()).filter(|unit| !unit.is_empty());
    for unit in units {
        if unit == "M" || ["mo", "y"].iter().any(|long| unit.to_lowercase().starts_with(long)) {
            return Err(refuse(format!("`{unit}` has no fixed length (a cron expression can say it)")));
        }
    }
    humantime::parse_duration(text).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_duration_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("5", "no unit"),
            ("1.5", "no unit"),
            ("1M", "fixed length"),
            ("2y", "fixed length"),
            ("-5s", "no"),
            ("5 parsecs", "parsecs"),
            ("99999999999999999999s", ""),
        ] {
            let error = parse_duration(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert_eq!(parse_duration(" 2h ").unwrap(), Duration::from_secs(7200));
        assert_eq!(parse_duration("1m 30s").unwrap(), Duration::from_secs(90));
    }
}
