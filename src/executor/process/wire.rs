//! What a pool and its workers say to each other: framed, bounded, versioned messages.
//!
//! A frame is three letters, the version of this protocol in one byte, the length of the message in
//! four, and the message as JSON. Whatever else comes along is told apart at its first bytes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

use crate::task::{Alias, Outcome, RunId, Source, TaskSpec};
use crate::trigger::Learned;

/// The version of the protocol; it changes whenever a message does.
pub(super) const VERSION: u8 = 3;

/// The longest message, in bytes.
pub(super) const LIMIT: usize = 16 << 20;

/// How deep a message may be nested: a little less than what can be read.
const DEPTH: usize = 120;

/// The longest line of a log that is passed on, in bytes.
pub(super) const LINE: usize = 8 << 10;

const LETTERS: [u8; 3] = *b"CBW";
const HEADER: usize = 8;

/// What a pool says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToWorker {
    /// Do this run.
    Run(Box<Order>),
    /// Ask the run to stop.
    Cancel { run: RunId },
    /// An alarm of the run has rung.
    Ring { run: RunId, alarm: u64, time: Time },
    /// There is no more to do: end.
    Retire,
}

/// A run, as a worker needs it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Names of zones that the worker may not know, before what names them.
    #[serde(default, skip_serializing_if = "Learned::is_empty")]
    pub zones: Learned,
    pub id: RunId,
    pub task: Arc<TaskSpec>,
    pub store: Alias,
    pub executor: Alias,
    pub nominal: DateTime<Utc>,
    /// What the clock was away from UTC at the nominal time, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    pub due: DateTime<Utc>,
    pub coalesced: u64,
    pub source: Source,
    pub attempt: u32,
    pub beyond_max_instances: bool,
    /// The time of the pool's clock, when that is not the machine's.
    pub time: Option<Time>,
    /// The finest level of events that anybody wants, as tracing writes it.
    pub level: String,
}

/// What a virtual clock shows.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Time {
    pub now: DateTime<Utc>,
    pub elapsed: Duration,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromWorker {
    /// It is ready.
    Hello { version: String },
    /// It cannot work.
    Broken { problem: String },
    /// An event of its tracing.
    Log(Line),
    /// The run waits for this instant of a virtual clock.
    Alarm { run: RunId, alarm: u64, at: DateTime<Utc> },
    /// The run does nothing but wait for a virtual clock, and has heard so many calls.
    Idle { run: RunId, heard: u64 },
    /// It has got the run, and goes on to do it.
    Begun { run: RunId },
    /// The code of the run wants so much time to end by itself, once it is asked to stop.
    CancelGrace { run: RunId, grace: Duration },
    /// The run is over: how, what it had to show, and how long its work took, if that is known better
    /// than by this news.
    Ended {
        run: RunId,
        outcome: Outcome,
        output: Option<Box<Value>>,
        backtrace: Option<Box<str>>,
        took: Option<Duration>,
        /// How long the run lasted by the worker's clock.
        lasted: Duration,
    },
}

/// One event.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub level: String,
    pub target: String,
    pub text: String,
    /// The spans around it with their fields, the outermost first; empty when there are none.
    pub spans: String,
}

/// Why what came is no message, or what should go cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("a message of {bytes} bytes is longer than the {LIMIT} that are allowed")]
    TooLarge { bytes: usize },
    #[error("a message is nested {levels} levels deep, and {DEPTH} are allowed; pass what is deeper as text")]
    TooDeep { levels: usize },
    #[error("what came is no message of a worker: it begins with {start:?}")]
    NotAFrame { start: String },
    #[error(
        "it speaks version {theirs} of the worker protocol, and this program version {VERSION}; build both with the same version of callboard"
    )]
    Version { theirs: u8 },
    #[error("a message cannot be read: {reason}")]
    NotAMessage { reason: String },
    #[error("a message breaks off after {bytes} bytes")]
    Torn { bytes: usize },
}

/// A message in its frame.
pub(super) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)
        .map_err(|error| WireError::NotAMessage { reason: error.to_string() })?;
    let bytes = frame.len() - HEADER;
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= LIMIT).ok_or(WireError::TooLarge { bytes })?;
    let levels = depth(&frame[HEADER..]);
    if levels > DEPTH {
        return Err(WireError::TooDeep { levels });
    }
    frame[..3].copy_from_slice(&LETTERS);
    frame[3] = VERSION;
    frame[4..HEADER].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// How deep JSON is nested.
fn depth(json: &[u8]) -> usize {
    let (mut levels, mut deepest, mut text, mut escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = text,
            b'"' => text = !text,
            _ if text => {}
            b'[' | b'{' => {
                levels += 1;
                deepest = deepest.max(levels);
            }
            b']' | b'}' => levels = levels.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Puts messages together from bytes as they come in.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 && self.at >= self.buffer.len() / 2 {
            self.buffer.drain(..self.at);
            self.at = 0;
            // A long message leaves no long buffer.
            self.buffer.shrink_to(64 << 10);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it is complete. After an error there is nothing more to be had.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let there = &self.buffer[self.at..];
        let letters = there.len().min(LETTERS.len());
        if there[..letters] != LETTERS[..letters] {
            let start = String::from_utf8_lossy(&there[..there.len().min(60)]).into_owned();
            return Err(WireError::NotAFrame { start });
        }
        if let Some(&theirs) = there.get(3).filter(|theirs| **theirs != VERSION) {
            return Err(WireError::Version { theirs });
        }
        let Some(length) = there.get(4..HEADER).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else {
            return Ok(None);
        };
        let bytes = u32::from_be_bytes(length) as usize;
        if bytes > LIMIT {
            return Err(WireError::TooLarge { bytes });
        }
        let Some(message) = there.get(HEADER..HEADER + bytes) else { return Ok(None) };
        let message = serde_json::from_slice(message)
            .map_err(|error| WireError::NotAMessage { reason: error.to_string() })?;
        self.at += HEADER + bytes;
        Ok(Some(message))
    }

    /// Nothing more will come: whether that is the middle of a message.
    pub(super) fn finish(&self) -> Result<(), WireError> {
        match self.buffer.len() - self.at {
            0 => Ok(()),
            bytes => Err(WireError::Torn { bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(message: &str) -> Vec<u8> {
        encode(&message).unwrap()
    }

    proptest! {
        /// However the stream is cut into pieces, the same messages come out; what is left over is
        /// noticed at the end.
        #[test]
        fn pieces_make_messages(
            messages in prop::collection::vec(".{0,40}", 0..8),
            cuts in prop::collection::vec(1usize..30, 1..60),
            missing in 0usize..8,
        ) {
            let mut stream: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
            stream.truncate(stream.len().saturating_sub(missing));
            let whole = messages.len() - usize::from(missing > 0 && !messages.is_empty());
            let mut frames = Frames::default();
            let mut came: Vec<String> = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                frames.push(piece);
                while let Some(message) = frames.next().unwrap() {
                    came.push(message);
                }
                rest = after;
            }
            prop_assert_eq!(&came[..], &messages[..whole]);
            prop_assert_eq!(frames.finish().is_err(), whole < messages.len());
        }

        /// No bytes from outside make it panic, take more memory than they have themselves, or
        /// pass for a message that nobody wrote.
        #[test]
        fn rubbish_is_an_error_or_nothing_yet(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            let next = frames.next::<FromWorker>();
            prop_assert!(!matches!(next, Ok(Some(_))), "{:?}", next);
            if bytes.first().is_some_and(|first| *first != b'C') {
                prop_assert!(next.is_err(), "{next:?}");
            }
        }
    }

    #[test]
    fn each_mistake_has_its_name() {
        let next = |bytes: &[u8]| {
            let mut frames = Frames::default();
            frames.push(bytes);
            frames.next::<String>()
        };
        assert_eq!(next(b"hello\n"), Err(WireError::NotAFrame { start: "hello\n".to_owned() }));
        assert_eq!(next(b"C"), Ok(None));
        assert_eq!(next(b"Cb"), Err(WireError::NotAFrame { start: "Cb".to_owned() }));
        assert_eq!(next(b"CBW\x01"), Err(WireError::Version { theirs: 1 }));
        assert_eq!(next(b"CBW\x03\xff\0\0\0"), Err(WireError::TooLarge { bytes: 0xff00_0000 }));
        assert!(matches!(next(b"CBW\x03\0\0\0\x02{}"), Err(WireError::NotAMessage { .. })));
        assert_eq!(next(&frame("x")), Ok(Some("x".to_owned())));
        let bytes = LIMIT + 2;
        assert_eq!(encode(&"x".repeat(LIMIT)), Err(WireError::TooLarge { bytes }));
        assert!(encode(&"x".repeat(LIMIT - 2)).is_ok());
        let nested = |levels: usize| (0..levels).fold(serde_json::Value::Null, |inner, _| [inner].into());
        assert_eq!(encode(&nested(DEPTH + 1)), Err(WireError::TooDeep { levels: DEPTH + 1 }));
        let mut frames = Frames::default();
        frames.push(&encode(&nested(DEPTH)).unwrap());
        assert_eq!(frames.next::<serde_json::Value>(), Ok(Some(nested(DEPTH))), "it can be read");
        assert_eq!(depth(br#"{"[[\"[": [{}, "\\", {"a": [1]}]}"#), 4);
    }
}
