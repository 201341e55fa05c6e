//! What can be said about text without the library: only what is certainly wrong is refused here.
//! The library reads the text again when the task is added, and has the last word.

use std::time::Duration;

/// The words that end a pattern and begin an option, as `in Europe/Lisbon`.
const OPTIONS: [&str; 6] = ["in", "from", "until", "jitter", "gap", "fold"];

/// The words of the pattern itself.
fn pattern(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().take_while(|word| !OPTIONS.contains(word))
}

/// A crontab line: a nickname, or 5 to 7 fields.
pub(crate) fn crontab(text: &str) -> Result<(), String> {
    let fields = pattern(text).count();
    if text.trim_start().starts_with('@') || (5..=7).contains(&fields) {
        return Ok(());
    }
    Err(format!("a crontab line has 5, 6 or 7 fields, this has {fields}; for instance \"30 8 * * mon-fri\""))
}

/// The length of an interval.
pub(crate) fn interval(text: &str) -> Result<(), String> {
    let words: Vec<&str> = pattern(text).collect();
    match duration(&words.join(" "))? {
        Duration::ZERO => Err("an interval is longer than 0".to_owned()),
        _ => Ok(()),
    }
}

/// A length of time: `90s`, `1h 30m`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parts(text).ok_or_else(|| {
        format!("`{text}` is not a length of time; write for instance \"90s\", \"15m\", \"1h 30m\", \"2d\"")
    })
}

fn parts(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = None;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
        let part = match rest[..letters].to_ascii_lowercase().as_str() {
            "w" => seconds(604_800),
            "d" => seconds(86_400),
            "h" => seconds(3_600),
            "m" | "min" => seconds(60),
            "s" => seconds(1),
            "" if rest.is_empty() => seconds(1),
            "ms" => Some(Duration::from_millis(number)),
            "us" => Some(Duration::from_micros(number)),
            "ns" => Some(Duration::from_nanos(number)),
            _ => None,
        }?;
        rest = rest[letters..].trim_start();
        total = Some(total.unwrap_or(Duration::ZERO).checked_add(part)?);
    }
    total
}

/// An id or an alias.
pub(crate) fn name(text: &str) -> Result<(), String> {
    match text {
        "" => Err("is empty; give it at least one character".to_owned()),
        long if long.len() > 255 => Err("is longer than 255 bytes".to_owned()),
        odd if odd.chars().any(char::is_control) => {
            Err("contains a control character; use printable text".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether text can be the name of a zone. Which zones there are is known when the task is added, to the
/// time zone database in use.
pub(crate) fn is_zone(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "+-_".contains(c))
    };
    name.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        let seconds = |text| duration(text).map(|length| length.as_secs());
        assert_eq!(seconds("1h 30m"), Ok(5400));
        assert_eq!(seconds("1h30M"), Ok(5400));
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(duration("250 ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "soon", "1x", "5 5", "1h-2m", "99999999999999999999s", "9999999999999999999w"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_end_where_options_begin() {
        assert!(interval("15m in Europe/Lisbon jitter 30s").is_ok());
        assert!(interval("0s").is_err() && interval("in UTC").is_err());
        assert!(crontab("0 3 * * * in Europe/Lisbon").is_ok() && crontab("@daily").is_ok());
        assert!(crontab("0 3 * *").is_err());
    }

    #[test]
    fn zones_have_names_of_parts() {
        for name in ["UTC", "Etc/GMT+1", "America/Port-au-Prince", "America/Argentina/Buenos_Aires", "W-SU"] {
            assert!(is_zone(name), "{name}");
        }
        for name in ["", "Mars (south)", "Europe/", "/Lisbon", "Europe//Lisbon", "../Lisbon", "Etc/1"] {
            assert!(!is_zone(name), "{name}");
        }
    }
}
