//! What is printed as text: nothing that a terminal would obey, and no secrets.

use std::borrow::Cow;
use std::fmt::Write;

use super::secrets;

/// Text as people get to see it: in one line, with secrets masked and with what a terminal would
/// obey as the escapes that stand for it in Rust.
pub(super) fn shown(text: &str) -> String {
    visible(&secrets::mask_text(text)).into_owned()
}

/// Text with escapes for what is not visible as itself.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return text.into();
    }
    let mut seen = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_obeyed(c) {
            true => seen.extend(c.escape_default()),
            false => seen.push(c),
        }
    }
    seen.into()
}

/// JSON that means the same and has nothing that a terminal would obey.
pub(super) fn visible_json(json: String) -> String {
    if !json.contains(is_obeyed) {
        return json;
    }
    let mut seen = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_obeyed(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(seen, "\\u{unit:04x}");
            }
        } else {
            seen.push(c);
        }
    }
    seen
}

/// Control characters, other ends of lines, and what turns the direction of writing or hides text.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: &str =
        "a\r\n\t\u{1b}[2J\u{7}\u{7f}\u{9b}1m\u{85}\u{2028}\u{202e}\u{2066}\u{feff}\u{e0041}ü€漢 z";

    #[test]
    fn nothing_is_told_to_the_terminal() {
        let seen = shown(BAD);
        assert!(!seen.contains(is_obeyed), "{seen:?}");
        assert!(seen.starts_with("a\\r\\n\\t\\u{1b}[2J\\u{7}") && seen.ends_with("ü€漢 z"), "{seen}");
        assert_eq!(shown(&seen), seen);
        assert_eq!(visible("C:\\new ü"), "C:\\new ü");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({ "k\u{202e}": BAD });
        let text = visible_json(value.to_string());
        assert!(!text.contains(is_obeyed), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
