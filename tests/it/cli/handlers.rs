use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use super::{Place, alive, eventually, kill_in_mid_run};

/// Adds a task, runs it once, and returns the end of the run as it was recorded.
fn run_once(place: &Place, what: &[&str]) -> Value {
    place.json(
        &[&["add", "--id", "a", "--replace", "--cron", "0 3 1 1 *", "--max-instances", "9"], what].concat(),
    );
    let run = place.json(&["run", "a"])["run"].clone();
    let find = |answer: &Value| {
        let runs = answer["runs"].as_array().unwrap().clone();
        runs.into_iter().find(|record| record["id"] == run && !record["end"].is_null())
    };
    find(&place.until(&["inspect", "a"], |answer| find(answer).is_some())).unwrap()["end"].clone()
}

#[test]
fn a_command_has_its_directory_its_environment_and_its_output() {
    let place = Place::new();
    let service = place.serve(&[]);
    fs::create_dir(place.path().join("work")).unwrap();
    let command = "pwd; echo $WHO $CALLBOARD_TASK; echo aside >&2; cat";
    let end = run_once(&place, &["--shell", command, "--cwd", "work", "--env", "WHO=me"]);
    assert_eq!(end["outcome"], "executed");
    let out = end["value"]["stdout"].as_str().unwrap();
    assert!(out.contains("/work\nme a\n"), "{out}");
    assert_eq!(end["value"]["stderr"], "aside\n");
    service.stop();
}

#[test]
fn a_command_that_fails_says_how() {
    let place = Place::new();
    let service = place.serve(&[]);
    let error = |what: &[&str]| {
        let end = run_once(&place, what);
        assert_eq!(end["outcome"], "failed", "{end}");
        end["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(error(&["--shell", "echo oh >&2; exit 7"]), "exit code 7");
    assert_eq!(error(&["--shell", "kill -9 $$"]), "killed by signal 9");
    assert_eq!(error(&["--shell", "no-such-command-here"]), "exit code 127");
    assert!(error(&["--shell", "true", "--cwd", "nowhere"]).contains("nowhere"));
    service.stop();
}

#[test]
fn endless_output_is_bounded() {
    let place = Place::new();
    let service = place.serve(&[]);
    let end = run_once(&place, &["--shell", "head -c 5000000 /dev/zero | tr '\\0' x; echo the end"]);
    let out = end["value"]["stdout"].as_str().unwrap();
    assert!(
        out.len() < 17_000 && out.ends_with("xthe end\n") && out.contains("bytes left out]"),
        "{}",
        out.len()
    );
    service.stop();
}

#[test]
fn a_timeout_kills_the_whole_process_group() {
    let place = Place::new();
    let service = place.serve(&[]);
    let pids = place.path().join("pids");
    // A child in the background, and a shell that does not listen to SIGTERM.
    let command = format!(
        "trap '' TERM; sleep 600 & echo $$ $! > {}; echo waiting >&2; wait; sleep 600",
        pids.display()
    );
    let end = run_once(&place, &["--shell", &command, "--timeout", "300ms", "--kill-after", "500ms"]);
    assert_eq!((&end["outcome"], &end["after_ms"]), (&"timed_out".into(), &300.into()), "{end}");
    assert_eq!(end["output"]["stderr"], "waiting\n");
    let pids = fs::read_to_string(pids).unwrap();
    eventually("the process group is gone", || !pids.split_whitespace().any(alive));
    service.stop();
}

#[test]
fn what_a_command_leaves_in_the_background_ends_with_it() {
    let place = Place::new();
    let service = place.serve(&[]);
    let end = run_once(&place, &["--shell", "sleep 600 & echo $!"]);
    let pid = end["value"]["stdout"].as_str().unwrap().to_owned();
    eventually("the background process is gone", || !alive(&pid));
    service.stop();
}

#[test]
fn commands_run_in_worker_processes_and_end_with_the_service() {
    let place = Place::new();
    place.config("[executor.default]\ntype = 'processpool'\nworkers = 1\n");
    let service = place.serve(&[]);
    let worker = || {
        // The worker's own child finds the variable that its parent was started with, and is no worker.
        let command = format!("echo $PPID; {} next '0 3 * * *' --count 1", env!("CARGO_BIN_EXE_callboard"));
        let end = run_once(&place, &["--shell", &command]);
        assert_eq!(end["outcome"], "executed", "{end}");
        let out = end["value"]["stdout"].as_str().unwrap();
        assert!(out.contains("03:00:00"), "{out}");
        out.lines().next().unwrap().to_owned()
    };
    let pid = worker();
    assert!(alive(&pid) && pid != service.pid().to_string());
    assert_eq!(worker(), pid);
    let end = run_once(&place, &["--shell", "kill -9 $PPID; sleep 600"]);
    assert_eq!(end["error"], "its worker process was killed by signal 9 (SIGKILL)");
    assert!(!alive(&pid));

    kill_in_mid_run(&place, service);
}

/// A server on a port of its own that gives each request's answer.
fn server(answer: impl Fn(&str, &str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) < 3 {
                    break;
                }
                if let Some((name, value)) = line.split_once(':')
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse().unwrap();
                }
                head += &line;
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let answer = answer(&head, &String::from_utf8_lossy(&body));
            let _ = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn a_request_arrives_as_described_and_its_answer_is_the_value() {
    let place = Place::new();
    let service = place.serve(&[]);
    let url = server(|head, body| response("200 OK", &format!("{head}{body}")));
    let path = format!("{url}/path?q=1");
    let end = run_once(&place, &["--http", "PUT", &path, "--header", "X-Who: me", "--body", "hello"]);
    assert_eq!(end["outcome"], "executed", "{end}");
    assert_eq!(end["value"]["status"], 200);
    let echoed = end["value"]["body"].as_str().unwrap();
    assert!(
        echoed.starts_with("PUT /path?q=1 HTTP/1.1")
            && echoed.contains("x-who: me")
            && echoed.ends_with("hello"),
        "{echoed}"
    );
    service.line_with(&["a", "executed", "200 PUT /path"]);
    service.stop();
}

#[test]
fn a_status_of_400_or_more_is_a_failed_run() {
    let place = Place::new();
    let service = place.serve(&[]);
    let url = server(|head, _| {
        response(if head.contains("/gone") { "404 Not Found" } else { "500 Oops" }, "no luck")
    });
    let failed = |url: &str| {
        let end = run_once(&place, &["--http", "GET", url]);
        assert_eq!(end["outcome"], "failed", "{end}");
        end
    };
    let gone = failed(&format!("{url}/gone"));
    assert_eq!(gone["error"], format!("GET {url}/gone: status 404"));
    assert_eq!(gone["output"], json!({ "status": 404, "body": "no luck" }));
    service.line_with(&["a", "failed", "status 404; body: no luck"]);
    let secret = url.replace("http://", "http://user:secret@") + "/x?token=secret";
    let told = failed(&secret)["error"].to_string();
    assert!(told.contains("status 500") && !told.contains("secret"), "{told}");
    let told = failed("http://127.0.0.1:1/")["error"].to_string();
    assert!(told.contains("GET http://127.0.0.1:1/: no connection: "), "{told}");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let end = run_once(&place, &["--http", "GET", &silent, "--timeout", "200ms"]);
    assert_eq!((&end["outcome"], &end["after_ms"]), (&"timed_out".into(), &200.into()), "{end}");
    service.stop();
}

#[test]
fn an_endless_body_is_cut() {
    let place = Place::new();
    let service = place.serve(&[]);
    let url = server(|_, _| response("200 OK", &"y".repeat(1_000_000)));
    let end = run_once(&place, &["--http", "GET", &url]);
    assert_eq!(end["value"]["body"].as_str().unwrap().len(), 16 * 1024);
    service.stop();
}

#[test]
fn commands_inherit_neither_keys_nor_the_raised_limit_of_open_files() {
    for executor in ["async", "processpool"] {
        let place = Place::new();
        place.config(&format!(
            "[store.default]\ntype = 'redb'\nkey_env = 'HOUSE_KEYS'\n[executor.default]\ntype = '{executor}'\n"
        ));
        let key = "5f".repeat(32);
        // As a service manager starts it.
        let service = place.spawn_after("ulimit -S -n 256", |command| {
            command.env("HOUSE_KEYS", &key).env("ORDINARY", "kept").env("LANG", "C");
        });
        service.line("running");
        let out = |what: &[&str]| {
            let end = run_once(&place, what);
            assert_eq!(end["outcome"], "executed", "{end}");
            end["value"]["stdout"].as_str().unwrap().to_owned()
        };
        let seen = out(&["--shell", "env; ulimit -S -n; echo $0"]);
        assert!(seen.contains("ORDINARY=kept") && seen.contains("CALLBOARD_TASK=a"), "{seen}");
        assert!(!seen.contains(&key) && !seen.contains("HOUSE_KEYS"), "{seen}");
        assert!(
            !seen.contains("CALLBOARD_NOFILE")
                && !seen.contains("CALLBOARD_UMASK")
                && !seen.contains("CALLBOARD_WORKER"),
            "{seen}"
        );
        assert!(seen.ends_with("\n256\n/bin/sh\n"), "{seen}");
        let bare = out(&["--shell", "env", "--env-clear", "--env", "MINE=1"]);
        let mut names: Vec<&str> = bare.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        // The shell's own.
        names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
        let allowed = ["HOME", "LANG", "PATH", "SHELL", "TZ", "USER", "MINE"];
        let allowed = |name: &str| {
            allowed.contains(&name)
                || (name.starts_with("CALLBOARD_")
                    && !["CALLBOARD_NOFILE", "CALLBOARD_UMASK"].contains(&name))
        };
        assert!(names.iter().all(|name| allowed(name)), "{names:?}");
        assert!(
            ["LANG", "PATH", "MINE", "CALLBOARD_RUN"].iter().all(|name| names.contains(name)),
            "{names:?}"
        );
        let limits = fs::read_to_string(format!("/proc/{}/limits", service.pid())).unwrap();
        let files: Vec<&str> = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap()
            .split_whitespace()
            .collect();
        assert_eq!(files[3], files[4], "the service has raised its own: {files:?}");
        service.stop();
    }
}
