//! The tables in `tests/tables`: each line a trigger, a zone, and what is expected of it. Where a
//! line comes from stands in its `source`.

use std::fs;
use std::path::Path;

use callboard::trigger::answer;
use serde_json::{Value, json};

fn check(file: &str, least: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables").join(file);
    let text = fs::read_to_string(&path).unwrap();
    let mut failures = Vec::new();
    let mut lines = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        lines += 1;
        let row: Value = serde_json::from_str(line).unwrap();
        let question = json!({
            "id": row["id"], "trigger": row["trigger"], "timezone": row["timezone"],
            "after": row["after"], "count": row["count"],
        });
        let got: Value = serde_json::from_str(&answer(&question.to_string())).unwrap();
        let good = match row["error"].as_bool() {
            Some(true) => got["error"].is_string(),
            _ => {
                let same = |a: &Value, b: &Value| {
                    let time =
                        |v: &Value| chrono::DateTime::parse_from_rfc3339(v.as_str().unwrap_or_default());
                    matches!((time(a), time(b)), (Ok(a), Ok(b)) if a == b && a.offset() == b.offset())
                };
                let (want, have) = (row["expect"].as_array().unwrap(), got["got"].as_array());
                let exhausted = row["exhausted"].as_bool().unwrap_or(false);
                have.is_some_and(|have| {
                    have.len() == want.len() && want.iter().zip(have).all(|(a, b)| same(a, b))
                }) && got["exhausted"] == json!(exhausted)
            }
        };
        if !good {
            failures.push(format!("{row}\n    got {got}"));
        }
    }
    assert!(failures.is_empty(), "{} of {lines} failed:\n{}", failures.len(), failures.join("\n"));
    assert!(lines >= least, "{file} has only {lines} lines");
}

macro_rules! tables {
    ($($name:ident $least:literal)*) => {$(
        #[test]
        fn $name() {
            check(concat!(stringify!($name), ".jsonl"), $least);
        }
    )*};
}

tables! {
    calendar_interval 20
    clock_changes 42
    combined 11
    cron_fields 57
    cron_fields_dst 14
    crontab 65
    crontab_dst 36
    date 8
    decided 29
    interval 23
    invalid 56
}
