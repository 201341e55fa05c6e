//! Signals, heard on a thread of their own: whatever holds up the rest of the service, it can be
//! stopped.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGTERM, SIGINT | the service stops: runs have the grace to end. A second one stops at once |
//! | SIGQUIT | stops at once |
//! | SIGHUP | the time zone database is read again; the service goes on, also when the terminal is closed |
//! | SIGUSR1, SIGUSR2 | a line in the log |
//! | SIGXFSZ | a line in the log: what could not be written is an error of who wrote |
//! | SIGPIPE | nothing: a reader that goes away is noticed when something is written |

use std::io;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::exit::Exit;
use super::out;
use crate::clock::Clock;
use crate::timer;

/// How long after a signal the same one is an echo of it: whoever stops a whole process group sends
/// it twice.
const ECHO: Duration = Duration::from_millis(500);

/// How long the service has to end by itself after it was told to stop at once.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the service was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Stop,
    StopAtOnce,
}

/// What is known of signals.
#[derive(Debug, Clone)]
pub(super) struct Signals {
    told: watch::Receiver<Told>,
    /// How often something is to be read again.
    hung_up: watch::Receiver<u64>,
}

impl Signals {
    /// Begins to hear them.
    pub(super) fn listen() -> io::Result<Self> {
        let (tell, told) = watch::channel(Told::Nothing);
        let (hang_up, hung_up) = watch::channel(0);
        // Those that come from here on are heard, also before the thread has begun to run.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ear = {
            let _entered = runtime.enter();
            Ear::new()?
        };
        thread::Builder::new()
            .name("callboard-signals".to_owned())
            .spawn(move || runtime.block_on(ear.hear(tell, hang_up)))?;
        Ok(Self { told, hung_up })
    }

    /// Waits until the service is to stop.
    pub(super) async fn stop(&mut self) {
        self.reach(Told::Stop).await;
    }

    /// Waits until the service is to stop at once.
    pub(super) async fn stop_at_once(&mut self) {
        self.reach(Told::StopAtOnce).await;
    }

    /// Waits until something is to be read again; false when that will not be.
    pub(super) async fn hang_up(&mut self) -> bool {
        self.hung_up.changed().await.is_ok()
    }

    async fn reach(&mut self, told: Told) {
        if self.told.wait_for(|now| *now >= told).await.is_err() {
            // The thread lives as long as the process; without it nobody can tell anything.
            futures::future::pending::<()>().await;
        }
    }
}

/// A file has reached the size that the system allows; unheard it would end the process.
const FILE_SIZE: SignalKind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());

const KINDS: [(SignalKind, &str); 7] = [
    (SignalKind::interrupt(), "SIGINT"),
    (SignalKind::terminate(), "SIGTERM"),
    (SignalKind::quit(), "SIGQUIT"),
    (SignalKind::hangup(), "SIGHUP"),
    (SignalKind::user_defined1(), "SIGUSR1"),
    (SignalKind::user_defined2(), "SIGUSR2"),
    (FILE_SIZE, "SIGXFSZ"),
];

struct Ear(Vec<(Signal, SignalKind, &'static str)>);

impl Ear {
    fn new() -> io::Result<Self> {
        let heard = KINDS.iter().map(|(kind, name)| Ok((signal(*kind)?, *kind, *name)));
        heard.collect::<io::Result<_>>().map(Self)
    }

    async fn next(&mut self) -> (SignalKind, &'static str) {
        let waiting = self.0.iter_mut().map(|(signal, kind, name)| {
            Box::pin(async move {
                signal.recv().await;
                (*kind, *name)
            })
        });
        futures::future::select_all(waiting).await.0
    }

    async fn hear(mut self, tell: watch::Sender<Told>, hang_up: watch::Sender<u64>) {
        let clock = Clock::system();
        let mut first = None;
        loop {
            let (kind, name) = self.next().await;
            match kind {
                // What others read again is read again here, too.
                kind if kind == SignalKind::hangup() => hang_up.send_modify(|times| *times += 1),
                kind if kind == SignalKind::user_defined1() || kind == SignalKind::user_defined2() => {
                    tracing::warn!(signal = name, "the signal means nothing here");
                }
                kind if kind == FILE_SIZE => {
                    tracing::warn!(
                        "a file is as large as the system allows; raise the limit (`ulimit -f`, LimitFSIZE= of a \
                         systemd unit)"
                    );
                }
                kind if kind == SignalKind::quit() => break,
                _ => match first {
                    None => {
                        first = Some(clock.monotonic());
                        tell.send_replace(Told::Stop);
                    }
                    Some(first) if clock.monotonic().saturating_sub(first) < ECHO => {}
                    Some(_) => break,
                },
            }
        }
        tell.send_replace(Told::StopAtOnce);
        timer::sleep(&clock, LAST_WORDS).await;
        // Something holds the service up. Its companion ends what it leaves behind.
        out::note("stopped at once; runs were cut off");
        out::finish_stderr();
        std::process::exit(Exit::CutOff as i32);
    }
}
