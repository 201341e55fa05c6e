//! Answers questions about triggers, one JSON object a line on stdin, one answer a line on stdout.
//!
//! ```text
//! echo '{"id": 1, "trigger": "30 8 * * mon-fri", "timezone": "Europe/Lisbon",
//!        "after": "2026-01-01T00:00:00Z", "count": 3}' | tr -d '\n' | cargo run -q --example vectors
//! ```

use std::io::{BufRead, BufWriter, Write, stdin, stdout};

fn main() -> std::io::Result<()> {
    let mut out = BufWriter::new(stdout().lock());
    for line in stdin().lock().lines() {
        let line = line?;
        if !line.trim().is_empty() {
            writeln!(out, "{}", callboard::trigger::answer(&line))?;
        }
    }
    out.flush()
}
