//! What an earlier version has stored and nobody may add today: it does not hold up the service.

use std::fs;

use super::Place;

#[test]
fn a_stored_interval_of_a_nanosecond_holds_nothing_up_across_restarts() {
    let place = Place::new();
    place.config(&format!(
        "[store.default]\ntype = 'file'\n[task.beat]\nevery = '200ms'\nshell = 'echo x >> {}'\n",
        place.path().join("beats").display()
    ));
    let beats = || fs::read_to_string(place.path().join("beats")).unwrap_or_default().lines().count();
    let nano = r#"{"type":"interval","seconds":1e-9}"#;
    let service = place.serve(&[]);
    let refused = place.run(&["add", "--trigger", nano, "--shell", "true"]);
    assert!(refused.code == 3 && refused.err.contains("1ms"), "{refused:?}");
    place.json(&["add", "--id", "dense", "--every", "1s", "--shell", "true"]);
    place.json(&["add", "--id", "nested", "--trigger", "or(every 1s; 0 3 * * *)", "--shell", "true"]);
    service.stop();

    // The records as they were when such an interval could be added.
    for id in ["dense", "nested"] {
        let record = place.data().join(format!("store-file/tasks/{id}.json"));
        let text = fs::read_to_string(&record).unwrap();
        let edited = text.replace("\"seconds\": 1\n", "\"seconds\": 1e-9\n");
        assert_ne!(edited, text, "{text}");
        let edited: String = edited.lines().filter(|line| !line.contains("\"sum\"")).collect();
        fs::write(&record, edited).unwrap();
    }
    for _ in 0..2 {
        let service = place.serve(&[]);
        let before = beats();
        super::eventually("others run", || beats() > before + 2);
        for id in ["dense", "nested"] {
            let task = place.until(&["inspect", id], |answer| answer["task"]["runs"].as_u64() > Some(2));
            assert_eq!(task["next"].as_array().unwrap().len(), 5, "{task}");
            assert!(!place.json(&["why", id])["times"].as_array().unwrap().is_empty());
        }
        let window = ["--from", "2026-01-01T00:00:00Z", "--to", "2096-01-01T00:00:00Z"];
        place.json(&[&["why", "dense"], &window[..]].concat());
        assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 3);
        place.json(&["pause", "nested"]);
        place.json(&["resume", "nested"]);
        service.stop();
    }
}
