//! The side of the control socket that asks.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::data;
use super::exit::{Exit, Failure};
use super::protocol::{Envelope, MAX_REQUEST, Reply, Request, VERSION};
use super::time;

/// How long the service may take to answer. It gives up a little sooner by itself, and says why.
const PATIENCE: Duration = Duration::from_secs(35);

/// The same for what goes through everything a store holds.
const MUCH_PATIENCE: Duration = Duration::from_secs(3605);

/// Asks the service on `dir`.
pub(super) fn ask(dir: &Path, request: Request) -> Result<Value, Failure> {
    ask_within(dir, request, PATIENCE)
}

/// Asks the service on `dir` for something that may take long.
pub(super) fn ask_patiently(dir: &Path, request: Request) -> Result<Value, Failure> {
    ask_within(dir, request, MUCH_PATIENCE)
}

fn ask_within(dir: &Path, request: Request, patience: Duration) -> Result<Value, Failure> {
    let socket = data::socket(dir)?;
    let mut stream = UnixStream::connect(&socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused if !dir.is_dir() => {
            let message = format!(
                "no service runs on the data directory {}, which is missing; start one with `callboard serve --data \
                 {0}`, name another with --data, or put it back: a service that ran on it goes on then",
                dir.display()
            );
            Failure::new(Exit::NotRunning, message)
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            let message = format!(
                "no service runs on the data directory {}; start one with `callboard serve --data {0}`, \
                 or name another with --data",
                dir.display()
            );
            Failure::new(Exit::NotRunning, message)
        }
        ErrorKind::PermissionDenied => {
            let message = format!("{} belongs to another user: {error}", socket.display());
            Failure::new(Exit::Failed, message)
        }
        _ => Failure::new(Exit::Failed, format!("cannot reach the service at {}: {error}", socket.display())),
    })?;
    let failed = |error: std::io::Error| {
        let message = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("the service did not answer within {} s", patience.as_secs())
            }
            _ => format!("the connection to the service broke: {error}"),
        };
        Failure::new(Exit::Failed, message)
    };
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_write_timeout(Some(patience)).map_err(failed)?;

    let mut line = serde_json::to_vec(&Envelope { v: VERSION, request }).map_err(|error| {
        Failure::new(Exit::Failed, format!("the request cannot be written as JSON: {error}"))
    })?;
    if line.len() >= MAX_REQUEST {
        let message = format!("the request is {} bytes long; at most {MAX_REQUEST} are allowed", line.len());
        return Err(Failure::new(Exit::Invalid, message));
    }
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;

    let mut answer = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut answer).map_err(failed)?;
    if answer.is_empty() {
        return Err(Failure::new(Exit::Failed, "the service ended before it had answered; look at its log"));
    }
    let reply: Reply = serde_json::from_slice(&answer).map_err(|error| {
        Failure::new(Exit::Failed, format!("the service's answer cannot be read: {error}"))
    })?;
    if let Some(rules) = reply.rules() {
        time::use_those_of(rules);
    }
    reply.into()
}
