//! Levels and the sink that log lines go to.
//!
//! A [`Log`] is handed down to whoever may have something to say; there is no global logger. Lines are delivered on the
//! thread that says them, because hosts tell their connections apart by thread.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The library cannot go on. Never used for anything a caller can recover from.
    Panic,
    /// The current call fails.
    Error,
    /// Something is odd, the call goes on. Goes to the host's `log` function: its `warn` is shown to users as an error.
    Warning,
    /// Worth a line in normal operation.
    Info,
    /// For those who look for a fault.
    Debug,
}

/// Where lines end up: the C callbacks, a file, a test's vector.
pub trait Sink: Send + Sync {
    /// Takes one line without a final newline.
    fn line(&self, level: Level, text: &str);

    /// False for levels that it drops anyway; may change at any time.
    fn wants(&self, _level: Level) -> bool {
        true
    }
}

/// A cheap handle on a sink with a threshold.
#[derive(Clone)]
pub struct Log {
    sink: Option<Arc<dyn Sink>>,
    threshold: Level,
}

impl Log {
    /// A log that drops everything.
    pub fn none() -> Self {
        Self { sink: None, threshold: Level::Panic }
    }

    /// A log that passes on lines up to `threshold`.
    pub fn new(sink: Arc<dyn Sink>, threshold: Level) -> Self {
        Self { sink: Some(sink), threshold }
    }

    /// True when lines of this level go anywhere.
    pub fn wants(&self, level: Level) -> bool {
        level <= self.threshold && self.sink.as_ref().is_some_and(|sink| sink.wants(level))
    }

    /// Says one line; the text is built only when it goes anywhere.
    pub fn say<S: AsRef<str>>(&self, level: Level, text: impl FnOnce() -> S) {
        if level <= self.threshold
            && let Some(sink) = &self.sink
            && sink.wants(level)
        {
            sink.line(level, text().as_ref());
        }
    }

    /// A line about something odd.
    pub fn warning<S: AsRef<str>>(&self, text: impl FnOnce() -> S) {
        self.say(Level::Warning, text);
    }

    /// A line of normal operation.
    pub fn info<S: AsRef<str>>(&self, text: impl FnOnce() -> S) {
        self.say(Level::Info, text);
    }

    /// A line for those who look for a fault.
    pub fn debug<S: AsRef<str>>(&self, text: impl FnOnce() -> S) {
        self.say(Level::Debug, text);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("threshold", &self.threshold).finish_non_exhaustive()
    }
}
