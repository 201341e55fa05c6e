//! Servers that send without end and never come to their answer, and servers that send elsewhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Place;

/// A server that does `serve` with each connection.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address.to_string()
}

/// Sends `first`, and then `more` again and again as fast as it is taken.
fn flood(first: &'static str, more: &'static str, pieces: usize) -> String {
    server(move |mut stream| {
        let more = more.repeat(pieces);
        let _ = stream.write_all(first.as_bytes());
        while stream.write_all(more.as_bytes()).is_ok() {}
    })
}

#[test]
fn a_server_that_sends_without_end_costs_its_own_run_alone() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let drip = |first: &'static str| {
        server(move |mut stream| {
            let _ = stream.set_nodelay(true);
            let _ = stream.write_all(first.as_bytes());
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let turning = server(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n");
    });
    let floods = [
        ("interim", "http", flood("", "HTTP/1.1 100 Continue\r\n\r\n", 4000)),
        ("hints", "http", flood("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 4000)),
        ("fields", "http", flood(HEAD, "X-More: of this\r\n", 4000)),
        ("field", "http", flood("HTTP/1.1 200 OK\r\nX-Long: ", "xxxxxxxxxxxxxxxx", 4000)),
        ("status", "http", flood("HTTP/1.1 200 ", "OK ", 4000)),
        ("blank", "http", flood("", "\r\n", 4000)),
        ("bytes", "http", flood(HEAD, "x", 1)),
        ("extension", "http", flood(CHUNKED, "1;x=", 4000)),
        ("extensions", "http", flood(CHUNKED, "1;ext=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n", 4000)),
        (
            "trailers",
            "http",
            flood("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X-More: of this\r\n", 4000),
        ),
        ("handshake", "https", flood("", "\u{16}\u{3}\u{3}\u{0}\u{4}\u{0}\u{0}\u{0}\u{0}", 4000)),
        ("drip", "http", drip("")),
        ("drip-head", "http", drip(HEAD)),
        ("drip-body", "http", drip("HTTP/1.1 200 OK\r\n\r\n")),
        ("turning", "http", turning),
    ];
    let place = Place::new();
    let service = place.serve(&[]);
    for (id, scheme, address) in &floods {
        let url = format!("{scheme}://{address}/");
        place.json(&["add", "--id", id, "--cron", "0 3 1 1 *", "--http", "GET", &url, "--timeout", "3s"]);
        place.json(&["run", id]);
    }
    place.json(&["add", "--id", "beat", "--cron", "0 3 1 1 *", "--shell", "echo alive"]);
    let ends = |answer: &Value| -> Vec<Value> {
        let runs = answer["runs"].as_array().unwrap();
        runs.iter().map(|run| run["end"].clone()).filter(|end| !end.is_null()).collect()
    };
    // Meanwhile everybody else is served, promptly.
    for beat in 1..=3 {
        let begin = Instant::now();
        place.json(&["run", "beat"]);
        place.until(&["inspect", "beat"], |answer| ends(answer).len() == beat);
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
    for (id, ..) in &floods {
        let answer = place.until(&["inspect", id], |answer| !ends(answer).is_empty());
        let end = &ends(&answer)[0];
        // A body may be as long as it likes: its first part is the answer.
        let expected: &[&str] =
            if *id == "extensions" { &["executed", "failed", "timed_out"] } else { &["failed", "timed_out"] };
        assert!(expected.contains(&end["outcome"].as_str().unwrap()), "{id}: {end}");
        assert!(end["duration"].as_u64().unwrap() < 10_000_000_000, "{id}: {end}");
    }
    let begin = Instant::now();
    service.stop();
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

/// What a server was asked, head and body.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers with `answer`, and notes what it was asked.
fn noting(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (String, Asked) {
    let asked = Asked::default();
    let note = asked.clone();
    let address = server(move |stream| {
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) < 3 {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            head += &line;
        }
        let mut body = vec![0; length];
        let _ = reader.read_exact(&mut body);
        let reply = answer(&head);
        note.lock().unwrap().push((head, String::from_utf8(body).unwrap()));
        let _ = reader.get_mut().write_all(reply.as_bytes());
    });
    (address, asked)
}

fn redirection(status: u16, to: &str) -> String {
    format!("HTTP/1.1 {status} Go\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn a_redirection_loses_repeats_and_betrays_nothing() {
    let (other, heard) = noting(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned());
    let away = format!("http://{other}/there");
    let (from, asked) = noting(move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path.split('/').collect::<Vec<_>>()[..] {
            ["", "away", status] => redirection(status.parse().unwrap(), &away),
            ["", "near", status] => redirection(status.parse().unwrap(), "/here?key=secret"),
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        }
    });
    let place = Place::new();
    let service = place.serve(&[]);
    let serial = AtomicUsize::new(0);
    let run = |method: &str, path: &str, more: &[&str]| {
        let id = format!("t{}", serial.fetch_add(1, Ordering::Relaxed));
        let url = format!("http://user:secret@{from}{path}");
        let header = "X-Key: secret";
        let add = ["add", "--id", &id, "--cron", "0 3 1 1 *", "--http", method, &url, "--header", header];
        place.json(&[&add[..], more].concat());
        place.json(&["run", &id]);
        let ended = |answer: &Value| answer["runs"][0]["end"].is_object();
        place.until(&["inspect", &id], ended)["runs"][0]["end"].clone()
    };
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for status in [301, 302, 303, 307, 308] {
            let end = run(method, &format!("/away/{status}"), &["--body", "pay"]);
            assert_eq!(end["outcome"], "failed", "{method} {status}: {end}");
            let error = end["error"].as_str().unwrap();
            assert!(error.contains(&format!("http://{other}/there")) && !error.contains("secret"), "{error}");
        }
    }
    assert!(heard.lock().unwrap().is_empty(), "nothing was sent there");
    asked.lock().unwrap().clear();
    for status in [307, 308] {
        let end = run("POST", &format!("/near/{status}"), &["--body", "pay"]);
        assert_eq!((&end["outcome"], &end["value"]["status"]), (&"executed".into(), &json!(200)), "{end}");
    }
    for (head, body) in asked.lock().unwrap().drain(..) {
        assert!(head.starts_with("POST /") && body == "pay", "{head}{body}");
        assert!(head.contains("x-key: secret") && head.contains("authorization: Basic "), "{head}");
        assert!(!head.to_ascii_lowercase().contains("referer"), "{head}");
    }
    for status in [301, 302, 303] {
        let end = run("POST", &format!("/near/{status}"), &["--body", "pay"]);
        assert_eq!(end["outcome"], "failed", "{end}");
        assert!(!end["error"].as_str().unwrap().contains("secret"), "{end}");
    }
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(run("GET", &format!("/away/{status}"), &[])["outcome"], "executed");
    }
    assert_eq!(run("POST", "/away/303", &["--body", "pay", "--redirects", "all"])["outcome"], "executed");
    assert_eq!(run("GET", "/near/302", &["--redirects", "none"])["outcome"], "failed");
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 6);
    for (head, body) in heard.iter() {
        assert!(head.starts_with("GET /there ") && body.is_empty(), "{head}{body}");
        assert!(!head.contains("secret") && !head.to_ascii_lowercase().contains("authorization"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("referer"), "{head}");
    }
    service.stop();
}
