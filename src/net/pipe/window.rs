//! How many bytes may be in flight on a connection: as many as the round trip needs.
//!
//! Too few starve a connection with a long round trip; too many push data out of the processor's cache before it is
//! looked at. What one round trip needs is the rate times the shortest trip that was seen: the window doubles while it is
//! not clearly more than that, and halves when it is far more. Where trips differ that says little, so from time to time
//! it is doubled on trial, and stays so if that is much faster. Only times when the window held something back are
//! evidence.

use std::time::Duration;
use std::time::Instant;

/// Where it begins and never goes below. Over loopback more at once leaves the cache before it is looked at.
const LEAST: u64 = 768 << 10;
/// Where it ends.
const MOST: u64 = 64 << 20;
/// What a request without data counts for.
pub const LIGHT: u64 = 4096;
/// What a question counts for whose answer may be long.
pub const ANSWER: u64 = 64 << 10;
/// Evidence is at least so many windows and so much time.
const SAMPLE_WINDOWS: u64 = 4;
const SAMPLE_TIME: Duration = Duration::from_millis(4);
/// The window doubles from this share of it needed by a round trip, and halves below that one.
const FULL: f64 = 0.6;
const EMPTY: f64 = 0.15;
/// Samples between two trials, and how much faster a trial must be.
const REST: u32 = 48;
const MUCH: f64 = 1.5;
/// Shorter requests say little about the trip of long ones.
const TELLING: u64 = 64 << 10;

/// The window of one connection.
#[derive(Debug)]
pub struct Window {
    size: u64,
    fixed: bool,
    flying: u64,
    /// Not below this, for a trial found it to be worth it.
    floor: u64,
    /// The shortest round trip of a long request.
    trip: Duration,
    /// The rate before a trial that is going on.
    trial: Option<f64>,
    /// Samples until the next one.
    rest: u32,
    /// When the busy time that is being measured began; `None` while nothing is in flight.
    busy_since: Option<Instant>,
    busy: Duration,
    back: u64,
    held_back: bool,
}

impl Window {
    /// A window of this size; 0: it finds its size.
    pub fn new(size: u64) -> Window {
        Window {
            size: if size == 0 { LEAST } else { size },
            fixed: size != 0,
            flying: 0,
            floor: LEAST,
            trip: Duration::MAX,
            trial: None,
            rest: REST,
            busy_since: None,
            busy: Duration::ZERO,
            back: 0,
            held_back: false,
        }
    }

    /// Whether a request of this weight may go out. One always may.
    pub fn admits(&mut self, weight: u64) -> bool {
        let admits = self.flying == 0 || self.flying.saturating_add(weight) <= self.size;
        self.held_back |= !admits;
        admits
    }

    /// A request went out.
    pub fn out(&mut self, weight: u64, at: Instant) {
        self.flying += weight;
        self.busy_since.get_or_insert(at);
    }

    /// The reply came to a request that went out then.
    pub fn back(&mut self, weight: u64, out: Instant, at: Instant) {
        if weight >= TELLING {
            self.trip = self.trip.min(at.saturating_duration_since(out));
        }
        self.flying = self.flying.saturating_sub(weight);
        self.back += weight;
        if let Some(since) = self.busy_since {
            let enough = self.back >= self.size * SAMPLE_WINDOWS;
            if enough || self.flying == 0 {
                self.busy += at.saturating_duration_since(since);
                self.busy_since = (self.flying > 0).then_some(at);
            }
            if enough && self.busy >= SAMPLE_TIME {
                self.look();
            }
        }
    }

    /// Bytes in flight.
    pub fn flying(&self) -> u64 {
        self.flying
    }

    /// The connection is another one, with nothing in flight.
    pub fn restart(&mut self) {
        let size = if self.fixed { self.size } else { 0 };
        *self = Window::new(size);
    }

    fn look(&mut self) {
        let seconds = self.busy.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
        let rate = self.back as f64 / seconds;
        let evident = std::mem::take(&mut self.held_back);
        (self.back, self.busy) = (0, Duration::ZERO);
        if self.fixed || !evident || self.trip == Duration::MAX {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share is an estimate")]
        let needed = rate * self.trip.as_secs_f64() / self.size as f64;
        if let Some(before) = self.trial.take() {
            match rate > before * MUCH {
                true => self.floor = self.size,
                false => self.size /= 2,
            }
        } else if needed >= FULL {
            self.size = (self.size * 2).min(MOST);
        } else if needed < EMPTY && self.size > self.floor {
            self.size /= 2;
        } else if let Some(rest) = self.rest.checked_sub(1) {
            self.rest = rest;
        } else if self.size < MOST {
            self.rest = REST;
            self.trial = Some(rate);
            self.size *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps a window full for `rounds` against a line of this rate and round trip.
    fn run(window: &mut Window, rate: f64, trip: Duration, rounds: usize) {
        let piece = 256_u32 << 10;
        let line = Duration::from_secs_f64(f64::from(piece) / rate);
        let piece = u64::from(piece);
        let mut now = Instant::now();
        let mut free = now; // when the line is
        let mut flying = std::collections::VecDeque::new();
        for _ in 0..rounds {
            while window.admits(piece) {
                window.out(piece, now);
                free = free.max(now + trip) + line;
                flying.push_back((now, free));
            }
            if let Some((out, back)) = flying.pop_front() {
                now = back;
                window.back(piece, out, now);
            }
        }
    }

    #[test]
    fn a_long_round_trip_opens_the_window() {
        let mut window = Window::new(0);
        run(&mut window, 4e9, Duration::from_millis(10), 4_000);
        assert!(window.size >= 32 << 20, "{}", window.size);
    }

    #[test]
    fn a_short_round_trip_keeps_it_small() {
        let mut window = Window::new(0);
        run(&mut window, 4e9, Duration::from_micros(20), 40_000);
        assert!(window.size <= 2 << 20, "{}", window.size);
    }

    #[test]
    fn a_middle_round_trip_ends_between() {
        let mut window = Window::new(0);
        run(&mut window, 3e9, Duration::from_millis(1), 8_000);
        assert!((2 << 20..=8 << 20).contains(&window.size), "{}", window.size);
    }

    #[test]
    fn one_request_is_always_admitted() {
        let mut window = Window::new(1000);
        assert!(window.admits(1 << 30));
        window.out(1 << 30, Instant::now());
        assert!(!window.admits(1));
    }
}
