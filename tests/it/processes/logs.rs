//! What workers print and log comes back, with the names of the task and the run.

use tracing::Level;

use super::*;
use crate::log::{self, Fields};

/// What the worker does for these tests.
pub(super) fn talk() {
    println!("to standard output");
    eprintln!("to standard error");
    tracing::error!(target: "theatre", act = 2, "the {} fell", "curtain");
    tracing::debug!(scene = "balcony", "whispered");
    tracing::trace!("breathed");
    let scene = tracing::info_span!("scene", number = 2, who = tracing::field::Empty);
    let dream = scene.in_scope(|| {
        tracing::info!("entered");
        tracing::debug_span!("dream", of = "night")
    });
    scene.record("who", "Juliet");
    drop(scene);
    dream.in_scope(|| tracing::info!("dreamt"));
    drop(dream);
    tracing::info!("awoke");
    println!("{}", "long".repeat(5000));
    print!("the end");
}

/// Events from workers, of all tests in this process.
fn heard() -> Vec<(Level, Fields)> {
    let lines = log::heard().lock().unwrap();
    let lines = lines.iter().filter(|line| line.target == "callboard::worker");
    lines.map(|line| (line.level, line.fields.clone())).collect()
}

#[test]
fn what_a_run_says_comes_back_before_its_end() {
    heard();
    on_stage(async {
        let mut play = Play::new(pool(1)).await;
        for _ in 0..2 {
            let run = play.submit("talk", Value::Null).await;
            assert!(play.end().await.outcome.is_success());
            let all = heard();
            let of_run: Vec<_> =
                all.iter().filter(|(_, fields)| fields.get("run") == Some(&run.id.to_string())).collect();
            assert!(of_run.iter().all(|(_, fields)| fields["task"] == "talk"));
            assert!(
                of_run
                    .iter()
                    .all(|(_, fields)| fields["executor"] == "default" && fields.contains_key("pid"))
            );
            let said: Vec<_> = of_run
                .iter()
                .map(|(level, fields)| (*level, fields["origin"].as_str(), fields["message"].as_str()))
                .collect();
            let of = |wanted: &str| -> Vec<_> {
                said.iter().filter(|(_, origin, _)| *origin == format!("{wanted:?}")).copied().collect()
            };
            let out = of("stdout");
            assert_eq!(out.len(), 3, "{said:#?}");
            assert_eq!((out[0].0, out[0].2), (Level::INFO, "to standard output"));
            assert!(out[1].2.len() < 9000 && out[1].2.ends_with("long [11808 bytes left out]"));
            assert_eq!(out[2].2, "the end");
            assert_eq!(of("stderr").len(), 1);
            assert_eq!(of("stderr")[0].0, Level::WARN);
            assert_eq!(of("theatre"), [(Level::ERROR, "\"theatre\"", "the curtain fell act=2")]);
            let whisper = said.iter().find(|(_, _, text)| text.starts_with("whispered")).unwrap();
            assert_eq!((whisper.0, whisper.2), (Level::DEBUG, "whispered scene=\"balcony\""));
            let spans = |what: &str| {
                let (_, fields) = of_run.iter().find(|(_, fields)| fields["message"] == what).unwrap();
                fields.get("spans").map(String::as_str)
            };
            assert_eq!(spans("entered"), Some("scene{number=2}"), "the run's own is known");
            assert_eq!(spans("dreamt"), Some("scene{number=2 who=\"Juliet\"}:dream{of=\"night\"}"));
            assert_eq!((spans("awoke"), spans("whispered scene=\"balcony\"")), (None, None));
            // Nobody wants these, so they do not cross.
            assert!(!said.iter().any(|(_, _, text)| text.contains("breathed")));
        }
    });
}

#[test]
fn a_panic_says_where_on_standard_error() {
    heard();
    on_stage(async {
        let mut play = Play::new(pool(1).env("RUST_BACKTRACE", "1")).await;
        let run = play.submit("fright", Value::Null).await;
        let end = play.end().await;
        assert!(matches!(end.outcome, Outcome::Panicked { .. }));
        assert!(end.backtrace.unwrap().contains("fright"), "and with the end");
        let all = heard();
        let text: String = all
            .iter()
            .filter(|(_, fields)| fields.get("run") == Some(&run.id.to_string()))
            .map(|(_, fields)| fields["message"].clone() + "\n")
            .collect();
        assert!(text.contains("stage fright") && text.contains("stack backtrace"), "{text}");
    });
}
