//! How long silence may last.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::net::pipe::Kind;

/// Silence longer than this, while something is due, is a loss of the connection; so is a reply that takes longer from its
/// first byte to its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// While only reads are in flight.
    pub read: Duration,
    /// While a write is.
    pub write: Duration,
    /// While anything else is.
    pub other: Duration,
}

impl Limits {
    /// The same whatever is in flight.
    pub fn all(limit: Duration) -> Limits {
        Limits { read: limit, write: limit, other: limit }
    }
}

/// When something was sent last, so that a receiver does not give up while the other direction goes on, and what is in
/// flight, so that it knows how long to wait.
#[derive(Debug)]
pub struct Progress {
    born: Instant,
    sent: AtomicU64,
    limits: Limits,
    reads: AtomicU32,
    writes: AtomicU32,
    others: AtomicU32,
}

impl Progress {
    /// With nothing in flight.
    pub fn new(limits: Limits) -> Progress {
        let least = |limit: Duration| limit.max(Duration::from_millis(1));
        let Limits { read, write, other } = limits;
        Progress {
            born: Instant::now(),
            sent: AtomicU64::new(0),
            limits: Limits { read: least(read), write: least(write), other: least(other) },
            reads: AtomicU32::new(0),
            writes: AtomicU32::new(0),
            others: AtomicU32::new(0),
        }
    }

    /// A request goes out. The books tell, under their lock.
    pub fn out(&self, kind: Kind) {
        let count = self.count(kind);
        count.store(count.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    /// It was answered.
    pub fn back(&self, kind: Kind) {
        let count = self.count(kind);
        count.store(count.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// Nothing is in flight any more.
    pub fn all_back(&self) {
        [&self.reads, &self.writes, &self.others].iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    fn count(&self, kind: Kind) -> &AtomicU32 {
        match kind {
            Kind::Read => &self.reads,
            Kind::Write => &self.writes,
            Kind::Flush | Kind::Other => &self.others,
        }
    }

    /// How long silence may last while this kind is in flight.
    pub fn limit_of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Read => self.limits.read,
            Kind::Write => self.limits.write,
            Kind::Flush | Kind::Other => self.limits.other,
        }
    }

    /// Silence longer than this is a loss: the longest patience of all that is in flight.
    pub fn limit(&self) -> Duration {
        let flying = [Kind::Read, Kind::Write, Kind::Other]
            .into_iter()
            .filter(|kind| self.count(*kind).load(Ordering::Relaxed) > 0);
        flying.map(|kind| self.limit_of(kind)).max().unwrap_or(self.limits.other)
    }

    /// Something was sent at this time.
    pub fn sent(&self, at: Instant) {
        let micros = at.saturating_duration_since(self.born).as_micros();
        self.sent.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When something was sent last.
    pub fn last_sent(&self) -> Instant {
        self.born + Duration::from_micros(self.sent.load(Ordering::Relaxed))
    }

    /// The end of the patience of one who has waited since `from`.
    pub fn until(&self, from: Instant) -> Instant {
        from.max(self.last_sent()) + self.limit()
    }

    /// Nothing moved for too long.
    pub fn timeout(&self) -> Error {
        let message = format!("the server has not moved for {:.1} s", self.limit().as_secs_f64());
        Error::new(ErrorKind::TimedOut, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_flight_decides_how_long_silence_may_last() {
        let seconds = Duration::from_secs;
        let limits = Limits { read: seconds(60), write: seconds(600), other: seconds(180) };
        let progress = Progress::new(limits);
        assert_eq!(progress.limit(), seconds(180));
        progress.out(Kind::Read);
        assert_eq!(progress.limit(), seconds(60));
        progress.out(Kind::Write);
        progress.out(Kind::Other);
        assert_eq!(progress.limit(), seconds(600));
        progress.back(Kind::Write);
        assert_eq!(progress.limit(), seconds(180));
        progress.all_back();
        progress.out(Kind::Read);
        assert_eq!(progress.limit(), seconds(60));
    }
}
