//! How records look in files: JSON that people can read, with a sum that tells when it was damaged.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::store::envelope;

/// A value of the store. One of three, whichever shows most of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cell {
    /// A record whose content is JSON: its kind, its version, its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<char>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Box<RawValue>>,
    /// Plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Anything else, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

impl Cell {
    pub(super) fn new(value: &[u8]) -> Self {
        if let Some((kind, version, content)) = envelope::open(value)
            && content != "null"
            && let Ok(content) = RawValue::from_string(content.to_owned())
        {
            return Self {
                kind: Some(kind),
                version: Some(version),
                content: Some(content),
                ..Self::default()
            };
        }
        match std::str::from_utf8(value) {
            Ok(text) => Self { text: Some(text.to_owned()), ..Self::default() },
            Err(_) => Self { bytes: Some(hex(value)), ..Self::default() },
        }
    }

    /// The value again.
    pub(super) fn value(&self) -> Result<Vec<u8>, String> {
        let wrong = "a record has either `kind`, `version` and `content`, or `text`, or `bytes`";
        match self {
            Self {
                kind: Some(kind),
                version: Some(version),
                content: Some(content),
                text: None,
                bytes: None,
            } => envelope::close(*kind, *version, &compact(content.get())),
            Self { kind: None, version: None, content: None, text: Some(text), bytes: None } => {
                Ok(text.clone().into_bytes())
            }
            Self { kind: None, version: None, content: None, text: None, bytes: Some(digits) } => {
                unhex(digits).ok_or_else(|| "its `bytes` are not pairs of hexadecimal digits".to_owned())
            }
            _ => Err(wrong.to_owned()),
        }
    }
}

/// A key, or a part of one, as text: itself when that is what it is, else `0x` and its bytes.
pub(super) fn key_text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.starts_with("0x") && !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex(key)),
    }
}

pub(super) fn key_of(text: &str) -> Result<Vec<u8>, String> {
    match text.strip_prefix("0x") {
        Some(digits) => unhex(digits).ok_or_else(|| format!("`{text}` is no key")),
        None => Ok(text.as_bytes().to_vec()),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)]).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

const SUM: &str = r#"{"sum":""#;

/// An object as one line of JSON, with the sum of its text in front.
pub(super) fn sealed<T: Serialize>(object: &T) -> Result<String, String> {
    let text = serde_json::to_string(object).map_err(|error| error.to_string())?;
    let text = compact(&text);
    let rest = text.strip_prefix('{').ok_or("only objects have a sum")?;
    Ok(format!("{SUM}{:08x}\",{rest}", crc32fast::hash(text.as_bytes())))
}

/// Reads an object again. Without a sum it is taken as it is: somebody has edited it.
pub(super) fn unsealed<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
    // Some editors begin a text with a mark of their own.
    let text = compact(text.strip_prefix('\u{feff}').unwrap_or(text));
    let unsummed;
    let object = match summed(&text) {
        Some((sum, rest)) => {
            if sum != sum_of(rest) {
                return Err("its text does not have the sum that stands in it: it was damaged (whoever has \
                            edited it on purpose removes the line `sum`)"
                    .to_owned());
            }
            unsummed = format!("{{{rest}");
            &unsummed
        }
        None => &*text,
    };
    serde_json::from_str(object).map_err(|error| format!("it does not decode: {error}"))
}

/// What comes after the sum of a line as [`sealed`] writes it, if that is what it is and the sum is
/// right.
pub(super) fn sound(line: &str) -> Option<&str> {
    let (sum, rest) = summed(line)?;
    (sum == sum_of(rest)).then_some(rest)
}

fn summed(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(SUM).and_then(|rest| rest.split_once("\","))
}

/// The sum of an object whose text, without its opening brace, is `rest`.
fn sum_of(rest: &str) -> String {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(b"{");
    hasher.update(rest.as_bytes());
    format!("{:08x}", hasher.finalize())
}

/// JSON without blanks between its parts. What is no JSON stays none.
fn compact(json: &str) -> Cow<'_, str> {
    let blank = |byte: u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let trimmed = json.trim_matches([' ', '\t', '\r', '\n']);
    if !trimmed.bytes().any(blank) {
        return Cow::Borrowed(trimmed);
    }
    let mut out = String::with_capacity(trimmed.len());
    let mut strings = Strings::default();
    // What was copied up to here.
    let mut from = 0;
    for (index, byte) in trimmed.bytes().enumerate() {
        if !strings.inside(char::from(byte)) && blank(byte) {
            out.push_str(&trimmed[from..index]);
            from = index + 1;
        }
    }
    out.push_str(&trimmed[from..]);
    Cow::Owned(out)
}

/// JSON with a line for each part, from JSON without blanks.
pub(super) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 3 / 2);
    let mut strings = Strings::default();
    let mut depth = 0_usize;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let mut rest = json.chars().peekable();
    while let Some(c) = rest.next() {
        if strings.inside(c) {
            out.push(c);
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some(end) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out.push('\n');
    out
}

/// Tells what is in a string from what is between.
#[derive(Default)]
struct Strings {
    open: bool,
    escaped: bool,
}

impl Strings {
    /// Whether the next character is part of a string, quotes included.
    fn inside(&mut self, c: char) -> bool {
        let was = self.open;
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' => self.escaped = was,
            '"' => self.open = !was,
            _ => {}
        }
        was || self.open
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn text_is_laid_out_for_people_and_back() {
        let value = json!({ "a": [1, { "b, {": "\"\\ :[" }, [], {}], "c": null });
        let text = pretty(&value.to_string());
        assert!(text.contains("\n    1,\n    {\n      \"b, {\": \"\\\"\\\\ :[\"\n    },\n    [],"), "{text}");
        assert_eq!(compact(&text), value.to_string());
    }

    #[test]
    fn an_edited_text_is_read_and_a_damaged_one_is_not() {
        let text = pretty(&sealed(&json!({ "runs": 12, "note": "a b" })).unwrap());
        assert_eq!(unsealed::<Value>(&text).unwrap(), json!({ "runs": 12, "note": "a b" }));
        let damaged = text.replace("12", "13");
        assert!(unsealed::<Value>(&damaged).unwrap_err().contains("removes the line `sum`"));
        let edited: String = damaged
            .lines()
            .filter(|line| !line.contains("\"sum\""))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(unsealed::<Value>(&edited).unwrap(), json!({ "runs": 13, "note": "a b" }));
        // Blanks mean nothing, but in a text they do.
        assert!(unsealed::<Value>(&text.replace("\n", "\r\n\t")).is_ok());
        assert!(unsealed::<Value>(&text.replace("a b", "a  b")).is_err());
        assert!(unsealed::<Value>(&format!("\u{feff}{text}")).is_ok());
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (text, because) in [
            (r#"{"text":"a","bytes":"00"}"#, "either"),
            (r#"{"kind":"S","content":{}}"#, "either"),
            (r#"{"bytes":"0"}"#, "hexadecimal"),
            (r#"{"bytes":"ä"}"#, "hexadecimal"),
        ] {
            let cell: Cell = serde_json::from_str(text).unwrap();
            assert!(cell.value().unwrap_err().contains(because), "{text}");
        }
        assert!(serde_json::from_str::<Cell>(r#"{"txt":"a"}"#).is_err());
        assert!(key_of("0xzz").is_err());
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in prop::collection::vec(any::<u8>(), 0..60), text in any::<String>()) {
            let record = [b"S\x01j".as_slice(), Value::from(text.clone()).to_string().as_bytes()].concat();
            for value in [&value, &text.clone().into_bytes(), &record] {
                let sealed = pretty(&sealed(&Cell::new(value)).unwrap());
                prop_assert_eq!(&unsealed::<Cell>(&sealed).unwrap().value().unwrap(), value);
                prop_assert_eq!(&key_of(&key_text(value)).unwrap(), value);
            }
        }

        #[test]
        fn no_flipped_bit_passes(text in "\\PC{0,40}", place in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let object = json!({ "text": text, "list": [1, 2.5] });
            let mut bytes = pretty(&sealed(&object).unwrap()).into_bytes();
            let index = place.index(bytes.len());
            bytes[index] ^= 1 << bit;
            let read = String::from_utf8(bytes).map_err(|error| error.to_string());
            // A blank for a blank is no damage; a broken name of the sum is an unknown name.
            match read.and_then(|text| unsealed::<Value>(&text)) {
                Ok(value) if value == object => {}
                Ok(value) => {
                    let names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
                    prop_assert_eq!(names.len(), 3, "{:?}", names);
                }
                Err(_) => {}
            }
        }
    }
}
