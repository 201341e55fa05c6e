use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Place, alive, eventually};

#[test]
fn what_means_nothing_ends_nothing() {
    for before in [":", "trap '' HUP", "trap '' HUP INT QUIT"] {
        let place = Place::new();
        let mut service = place.spawn_after(before, |_| ());
        service.line("running");
        for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE] {
            service.signal(signal);
        }
        service.line_with(&["SIGHUP", "rules of time zones in force"]);
        for name in ["SIGUSR1", "SIGUSR2"] {
            service.signal(if name == "SIGUSR1" { Signal::USR1 } else { Signal::USR2 });
            service.line_with(&["means nothing here", name]);
        }
        place.json(&["add", "--id", "a", "--every", "50ms", "--shell", "true"]);
        service.line_with(&["a", "executed"]);
        assert!(service.running());
        service.stop();
    }
}

#[test]
fn sigquit_stops_at_once() {
    let place = Place::new();
    let service = place.serve(&["--grace", "10m"]);
    let pid = place.path().join("pid");
    let command = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 600", pid.display());
    place.json(&["add", "--id", "long", "--cron", "0 3 1 1 *", "--shell", &command]);
    place.json(&["run", "long"]);
    eventually("the run has begun", || pid.exists());
    service.signal(Signal::QUIT);
    let (code, rest) = service.end();
    assert!(code == 9 && rest.contains("stopped at once"), "{code}: {rest}");
    let pid = fs::read_to_string(pid).unwrap();
    eventually("the process group is gone", || !alive(&pid));
}

#[test]
fn a_service_that_is_still_adding_tasks_stops_when_it_is_told() {
    let place = Place::new();
    let task = |n: u32| format!("[task.t{n}]\ncron = '0 3 1 1 *'\nshell = 'true'\n");
    place.config(&(0..4000).map(task).collect::<String>());
    let service = place.spawn(&[]);
    eventually("it has begun", || place.data().join("callboard.lock").exists());
    let begin = Instant::now();
    service.signal(Signal::TERM);
    let (code, rest) = service.end();
    assert_eq!(code, 0, "{rest}");
    assert!(!rest.contains("running;"), "it was not up yet: {rest}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}
