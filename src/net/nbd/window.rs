//! How many bytes may be in flight on a connection: more as long as that makes it faster.
//!
//! Too few starve a connection with a long round trip; too many push data out of the processor's cache before it is
//! looked at. The window doubles while the rate grows with it, goes back when it does not, and looks again in both
//! directions from time to time. Only times when the window held something back are evidence.

use std::time::Duration;
use std::time::Instant;

/// Where it begins and never goes below.
const LEAST: u64 = 1 << 20;
/// Where it ends.
const MOST: u64 = 64 << 20;
/// What a request without data counts for.
pub const LIGHT: u64 = 4096;
/// What a question counts for whose answer may be long.
pub const ANSWER: u64 = 64 << 10;
/// Evidence is at least so many windows and so much time.
const SAMPLE_WINDOWS: u64 = 4;
const SAMPLE_TIME: Duration = Duration::from_millis(4);
/// Samples between two looks around.
const REST: u32 = 48;

/// The window of one connection.
#[derive(Debug)]
pub struct Window {
    size: u64,
    fixed: bool,
    flying: u64,
    phase: Phase,
    /// When the busy time that is being measured began; `None` while nothing is in flight.
    busy_since: Option<Instant>,
    busy: Duration,
    back: u64,
    held_back: bool,
    look_down: bool,
}

#[derive(Debug)]
enum Phase {
    /// Twice what it was when bytes came at this rate.
    Larger(f64),
    /// Half of what it was when bytes came at this rate.
    Smaller(f64),
    /// Nothing to be tried for so many samples.
    Rest(u32),
}

impl Window {
    /// A window of this size; 0: it finds its size.
    pub fn new(size: u64) -> Window {
        Window {
            size: if size == 0 { LEAST } else { size },
            fixed: size != 0,
            flying: 0,
            phase: Phase::Rest(0),
            busy_since: None,
            busy: Duration::ZERO,
            back: 0,
            held_back: false,
            look_down: false,
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

    /// Its reply came.
    pub fn back(&mut self, weight: u64, at: Instant) {
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
        if self.fixed || !evident {
            return;
        }
        match self.phase {
            Phase::Larger(before) if rate > before * 1.1 => self.grow(rate),
            Phase::Larger(_) => self.settle(self.size / 2),
            Phase::Smaller(before) if rate > before * 0.97 => self.settle(self.size),
            Phase::Smaller(_) => self.settle(self.size * 2),
            Phase::Rest(0) if self.look_down && self.size > LEAST => {
                self.size /= 2;
                self.phase = Phase::Smaller(rate);
            }
            Phase::Rest(0) => self.grow(rate),
            Phase::Rest(n) => self.phase = Phase::Rest(n - 1),
        }
    }

    fn grow(&mut self, rate: f64) {
        if self.size >= MOST {
            self.settle(MOST);
        } else {
            self.size *= 2;
            self.phase = Phase::Larger(rate);
        }
    }

    fn settle(&mut self, size: u64) {
        self.size = size.clamp(LEAST, MOST);
        self.phase = Phase::Rest(REST);
        self.look_down = !self.look_down;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps a window full for `rounds` against a line of this rate and round trip.
    fn run(window: &mut Window, rate: f64, trip: Duration, rounds: usize) {
        let piece = 256 << 10;
        let mut now = Instant::now();
        for _ in 0..rounds {
            let mut out = 0;
            while window.admits(piece) {
                window.out(piece, now);
                out += piece;
            }
            #[expect(clippy::cast_precision_loss, reason = "a model")]
            let line = Duration::from_secs_f64(out as f64 / rate);
            now += line.max(trip);
            while window.flying() > 0 {
                window.back(piece, now);
            }
        }
    }

    #[test]
    fn a_long_round_trip_opens_the_window() {
        let mut window = Window::new(0);
        run(&mut window, 4e9, Duration::from_millis(10), 200);
        assert!(window.size >= 32 << 20, "{}", window.size);
    }

    #[test]
    fn a_short_round_trip_keeps_it_small() {
        let mut window = Window::new(0);
        run(&mut window, 4e9, Duration::from_micros(100), 20_000);
        assert!(window.size <= 2 << 20, "{}", window.size);
    }

    #[test]
    fn a_middle_round_trip_ends_between() {
        let mut window = Window::new(0);
        run(&mut window, 3e9, Duration::from_millis(1), 2_000);
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
