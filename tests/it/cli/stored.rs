//! What an earlier version has stored and nobody may add today: it does not hold up the service.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::Place;

/// A record as it was when its trigger could be added, with a run time that is due.
fn rewrite(record: &Path, trigger: Value) {
    let text = fs::read_to_string(record).unwrap();
    let mut task: Value = serde_json::from_str(&text).unwrap();
    let fields = task.as_object_mut().unwrap();
    // A text that was edited has no sum.
    assert!(fields.remove("sum").is_some(), "{text}");
    assert_eq!(fields["spec"]["content"]["trigger"]["type"], "interval", "{text}");
    fields["spec"]["content"]["trigger"] = trigger;
    let since = fields["state"]["content"]["anchor"].clone();
    assert!(since.is_string(), "{text}");
    fields["state"]["content"]["next"] = json!({ "nominal": since, "due": since });
    fs::write(record, task.to_string()).unwrap();
}

#[test]
fn a_stored_interval_of_a_nanosecond_holds_nothing_up_across_restarts() {
    let place = Place::new();
    place.config(&format!(
        "[store.default]\ntype = 'file'\n[task.beat]\nevery = '200ms'\nshell = 'echo x >> {}'\n",
        place.path().join("beats").display()
    ));
    let beats = || fs::read_to_string(place.path().join("beats")).unwrap_or_default().lines().count();
    let nano = json!({ "type": "interval", "seconds": 1e-9 });
    let hour = json!({ "type": "interval", "hours": 1 });
    let stored = [
        ("plain", nano.clone()),
        ("jitter", json!({ "type": "interval", "seconds": 1e-9, "jitter": 1e-4 })),
        ("or", json!({ "type": "or", "triggers": [nano, hour] })),
        ("and", json!({ "type": "and", "triggers": [nano, nano] })),
        ("except", json!({ "type": "except", "trigger": nano, "triggers": [hour] })),
    ];
    let service = place.serve(&[]);
    for (id, trigger) in &stored {
        let refused = place.run(&["add", "--trigger", &trigger.to_string(), "--shell", "true"]);
        assert!(refused.code == 3 && refused.err.contains("1ms"), "{id}: {refused:?}");
        place.json(&["add", "--id", id, "--every", "1h", "--shell", "true"]);
    }
    service.stop();
    for (id, trigger) in &stored {
        rewrite(&place.data().join(format!("store-file/tasks/{id}.json")), trigger.clone());
    }
    for _ in 0..2 {
        let service = place.serve(&[]);
        let before = beats();
        super::eventually("others run", || beats() > before + 2);
        for (id, _) in &stored {
            let task = place.until(&["inspect", id], |answer| answer["task"]["runs"].as_u64() > Some(2));
            assert_eq!(task["next"].as_array().unwrap().len(), 5, "{task}");
            assert!(!place.json(&["why", id])["times"].as_array().unwrap().is_empty());
        }
        let window = ["--from", "2026-01-01T00:00:00Z", "--to", "2096-01-01T00:00:00Z"];
        place.json(&[&["why", "plain"], &window[..]].concat());
        assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 1 + stored.len());
        place.json(&["pause", "or"]);
        place.json(&["resume", "or"]);
        service.stop();
    }
    let service = place.serve(&[]);
    for (id, _) in &stored {
        place.json(&["remove", id]);
    }
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 1);
    service.stop();
}
