//! Secrets in what is shown: headers, variables and parameters whose names say that their values are
//! secret, and passwords in URLs. What is stored, run and exported is not touched.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

/// What stands in the place of a secret.
pub(super) const MASK: &str = "***";

/// Parts of names that keep a secret, in small letters without `-` and `_`.
const PARTS: [&str; 13] = [
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
];

/// Whole names, and ends of names behind a `-` or `_`, that keep a secret.
const WORDS: [&str; 8] = ["auth", "pwd", "pass", "pat", "sig", "signature", "jwt", "sessionid"];

/// Keys of ours whose values people and scripts refer to.
const NAMES: [&str; 8] = ["id", "task", "run", "store", "executor", "handler", "event", "timezone"];

/// Whether a value of this name is a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let plain: String =
        name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect();
    let last = name.rsplit(['-', '_']).next().unwrap_or_default();
    // The working directory of a shell is no password.
    PARTS.iter().any(|part| plain.contains(part))
        || WORDS.iter().any(|word| plain == *word || last.eq_ignore_ascii_case(word))
            && !matches!(name, "PWD" | "OLDPWD" | "pwd")
}

/// Masks what is secret in an answer or an event.
pub(super) fn mask(value: &mut Value) {
    mask_in(value, true);
}

/// The same, of a value that is passed along.
pub(super) fn masked(mut value: Value) -> Value {
    mask(&mut value);
    value
}

/// `ours`: whether the keys are those of callboard, not of somebody's arguments.
fn mask_in(value: &mut Value, ours: bool) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if is_secret_name(key) {
                    hide(value);
                } else if !(ours && NAMES.contains(&key.as_str()) && value.is_string()) {
                    mask_in(value, ours && !matches!(key.as_str(), "args" | "userdata" | "value"));
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| mask_in(value, ours)),
        Value::String(text) => {
            if let Cow::Owned(masked) = mask_text(text) {
                *text = masked;
            }
        }
        _ => {}
    }
}

/// Hides every text and number in a value.
fn hide(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(hide),
        Value::Array(values) => values.iter_mut().for_each(hide),
        Value::String(_) | Value::Number(_) => *value = MASK.into(),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Masks what is secret in text: an error, a command line, JSON, a URL.
pub(super) fn mask_text(text: &str) -> Cow<'_, str> {
    let mut hidden: Vec<Range<usize>> = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '=' | ':' if text[at..].starts_with("://") => hidden.extend(userinfo(text, at + 3)),
            '=' | ':' => hidden.extend(assigned(text, at)),
            ' ' => hidden.extend(option(text, at)),
            _ => {}
        }
    }
    hidden.retain(|range| &text[range.clone()] != MASK && !range.is_empty());
    if hidden.is_empty() {
        return text.into();
    }
    hidden.sort_by_key(|range| range.start);
    let (mut masked, mut from) = (String::with_capacity(text.len()), 0);
    for range in hidden {
        if range.start >= from {
            masked.push_str(&text[from..range.start]);
            masked.push_str(MASK);
        }
        from = from.max(range.end);
    }
    masked.push_str(&text[from..]);
    masked.into()
}

/// What is secret between `://` and the host.
fn userinfo(text: &str, start: usize) -> Option<Range<usize>> {
    let authority = text[start..].split(|c: char| c.is_whitespace() || "/?#\"'<>`|".contains(c)).next()?;
    let at = authority.rfind('@')?;
    // A name without a password is most likely a token.
    let from = authority[..at].find(':').map_or(0, |colon| colon + 1);
    Some(start + from..start + at)
}

/// The value of `NAME=value`, `"name": "value"`, `Name: value` around the sign at `at`, if the name is
/// one of a secret.
fn assigned(text: &str, at: usize) -> Option<Range<usize>> {
    let before = text[..at].trim_end_matches(['"', '\'', '\\']);
    let named = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begin = before.char_indices().rev().take_while(|(_, c)| named(*c)).last()?.0;
    if !is_secret_name(before[begin..].trim_matches(['-', '.'])) {
        return None;
    }
    let colon = text[at..].starts_with(':');
    let mut start = at + 1;
    if colon {
        start += text[start..].len() - text[start..].trim_start_matches([' ', '\t']).len();
    }
    // Whatever the name and the value are quoted in ends the value.
    let around = text[..begin].chars().next_back().filter(|c| matches!(c, '"' | '\'' | '`'));
    let rest = &text[start..];
    let quote = ["\\\"", "\"", "'", "`"].into_iter().find(|quote| rest.starts_with(quote));
    if let Some(quote) = quote {
        let inner = start + quote.len();
        let length = closing(&text[inner..], quote);
        return Some(inner..inner + length);
    }
    let ends = |c: char| match colon {
        // A header goes to the end of its line.
        true => matches!(c, '\n' | '\r' | '"' | '\'' | '`' | '}' | ']') || Some(c) == around,
        false => c.is_whitespace() || matches!(c, '&' | ';' | '"' | '\'' | '`' | ',' | ')' | '}' | '#' | '|'),
    };
    let length = rest.find(ends).unwrap_or(rest.len());
    Some(start..start + rest[..length].trim_end().len())
}

/// How long a quoted text is up to its closing quote.
fn closing(text: &str, quote: &str) -> usize {
    let mut from = 0;
    while let Some(found) = text[from..].find(quote) {
        let at = from + found;
        // `\"` within `"…"` does not close it.
        let escaped = quote == "\"" && text[..at].chars().rev().take_while(|c| *c == '\\').count() % 2 == 1;
        if !escaped {
            return at;
        }
        from = at + quote.len();
    }
    text.len()
}

/// The value of `--password value`, `-u name:value` and `Bearer value` in front of and behind the space at
/// `at`.
fn option(text: &str, at: usize) -> Option<Range<usize>> {
    let word = text[..at].rsplit(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).next()?;
    let start = at + 1;
    let rest = &text[start..];
    let length = rest.find(|c: char| c.is_whitespace() || "\"'`,;)|".contains(c)).unwrap_or(rest.len());
    let value = &rest[..length];
    if matches!(word, "-u" | "--user" | "--proxy-user") {
        let colon = value.find(':')?;
        return Some(start + colon + 1..start + length);
    }
    if matches!(word, "Bearer" | "Basic") && length >= 8 {
        return Some(start..start + length);
    }
    let name = word.strip_prefix("--").filter(|name| is_secret_name(name))?;
    // `--password --verbose` has none.
    (!name.contains('=') && !value.starts_with('-') && !value.is_empty()).then_some(start..start + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_secrets() {
        for name in [
            "Authorization",
            "authorization",
            "Proxy-Authorization",
            "Cookie",
            "set-cookie",
            "X-Api-Key",
            "api_key",
            "apikey",
            "X-Auth-Token",
            "GITHUB_TOKEN",
            "access_token",
            "client_secret",
            "AWS_SECRET_ACCESS_KEY",
            "DB_PASSWORD",
            "PGPASSWORD",
            "MYSQL_PWD",
            "passwd",
            "pass",
            "SMTP_PASS",
            "sig",
            "X-Amz-Signature",
            "X-Amz-Credential",
            "auth",
            "private-key",
            "jwt",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "PWD", "OLDPWD", "PATH", "path", "compass", "id", "author", "Accept", "design", "key", "keyboard",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn secrets_in_text() {
        for (text, masked) in [
            ("GET https://ann:pw@x.org/a: no answer", "GET https://ann:***@x.org/a: no answer"),
            ("https://ghp_123@x.org", "https://***@x.org"),
            ("redis://:p@ss@h:6379/0", "redis://:***@h:6379/0"),
            ("https://x.org/?q=1&api_key=abc&n=2", "https://x.org/?q=1&api_key=***&n=2"),
            ("https://x.org/a?token=s3cr3t", "https://x.org/a?token=***"),
            ("curl -H 'Authorization: Bearer abc def' x", "curl -H 'Authorization: ***' x"),
            ("curl -H \"X-Api-Key: abc\" -u ann:pw x", "curl -H \"X-Api-Key: ***\" -u ann:*** x"),
            ("PGPASSWORD=abc psql", "PGPASSWORD=*** psql"),
            ("PGPASSWORD='a b' psql", "PGPASSWORD='***' psql"),
            ("mysql --password=abc -e 'x'", "mysql --password=*** -e 'x'"),
            ("tool --token abc run", "tool --token *** run"),
            (r#"{"headers":{"Cookie":"a=\"b\"; c","X":"y"}}"#, r#"{"headers":{"Cookie":"***","X":"y"}}"#),
            (r#""{\"password\":\"abc\",\"n\":1}""#, r#""{\"password\":\"***\",\"n\":1}""#),
            ("sent with Bearer abcdefgh1234.", "sent with Bearer ***"),
            ("Set-Cookie: sid=1; Path=/\nnext", "Set-Cookie: ***\nnext"),
        ] {
            let once = mask_text(text).into_owned();
            assert_eq!(once, masked);
            assert_eq!(mask_text(&once), once, "masked twice");
        }
        for plain in [
            "at 2027-01-01T00:00:00Z: exit code 3; stderr: oh",
            "http://x.org:80/a?b=c#d",
            "a@b.org",
            "--user ann",
            "x=1 y=2",
            "ü: é=ß",
            "",
            "://",
            "=",
            ":",
            "@",
            "tokens are spent",
            "cd \"$PWD\" && PWD=/tmp make",
        ] {
            assert_eq!(mask_text(plain), plain);
        }
    }

    #[test]
    fn secrets_in_values() {
        let mut task = json!({
            "id": "token=abc", "name": "x", "handler": "http", "when": "every 5 minutes",
            "args": {
                "url": "https://u:p@h/?sig=1", "headers": { "Authorization": "Bearer x", "Accept": "*/*" },
                "body": { "pin": 5, "secret": { "a": ["b", 1, null] } }, "id": "https://u:p@h/",
            },
            "userdata": { "API_KEY": 5 },
        });
        mask(&mut task);
        assert_eq!(
            task,
            json!({
                "id": "token=abc", "name": "x", "handler": "http", "when": "every 5 minutes",
                "args": {
                    "url": "https://u:***@h/?sig=***", "headers": { "Authorization": "***", "Accept": "*/*" },
                    "body": { "pin": 5, "secret": { "a": ["***", "***", null] } }, "id": "https://u:***@h/",
                },
                "userdata": { "API_KEY": "***" },
            })
        );
    }
}
