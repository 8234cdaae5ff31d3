//! How many bytes may be in flight on a connection: as many as the round trip needs.
//!
//! Too few starve a connection with a long round trip; too many push data out of the processor's cache before it is
//! looked at. What one round trip needs is the rate times the shortest trip that was seen: the window doubles while it is
//! not clearly more than that, and halves when it is far more. Where trips differ that says little, so from time to time
//! it is doubled on trial, and stays so if that is much faster. Only times when the window held something back are
//! evidence.

use std::time::Duration;
use std::time::Instant;

/// Where it begins and never goes below, unless told otherwise. Over loopback more at once leaves the cache before it is
/// looked at.
const LEAST: u64 = 768 << 10;
/// Where it ends.
const MOST: u64 = 64 << 20;
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

/// Requests are not cut shorter than this for a server that is short of memory.
const SHORTEST: u64 = 64 << 10;
/// The first pause that such a server gets, and the longest.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest request that is cut, and how often it can be halved.
const LONGEST: u64 = 1 << 20;
const MOST_HALVINGS: u32 = 4;
/// After so many answers it is asked for more.
const CALM: u32 = 128;
/// How often the number of requests is halved for connections that are lost in vain; what it is at most where it has no
/// limit.
const MOST_IN_VAIN: u32 = 5;
const COUNTED: u32 = 32;

/// What a window may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in flight; 0 finds.
    pub bytes: u64,
    /// Where finding begins.
    pub least: u64,
    /// Most requests in flight.
    pub requests: u32,
    /// A server that is short of something is asked again for so long.
    pub put_off: Duration,
}

impl Limits {
    /// So many bytes, 0 finds; in any number of requests.
    pub fn of_bytes(bytes: u64) -> Limits {
        Limits { bytes, least: LEAST, requests: u32::MAX, put_off: Duration::ZERO }
    }
}

/// The window of one connection.
#[derive(Debug)]
pub struct Window {
    limits: Limits,
    size: u64,
    flying: u64,
    /// Requests in flight, and how many may be.
    requests: u32,
    most_requests: u32,
    /// How often the length of requests is halved.
    halvings: u32,
    /// Nothing goes out before this time.
    held_until: Option<Instant>,
    pause: Duration,
    /// Answers since the server last asked for patience.
    calm: u32,
    /// Connections that were lost before anything was answered, less those that answers made up for.
    in_vain: u32,
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
    /// It held something back, and more in flight would not be faster.
    saturated: bool,
}

impl Window {
    /// A window with nothing in flight.
    pub fn new(limits: Limits) -> Window {
        Window {
            limits,
            size: if limits.bytes == 0 { limits.least } else { limits.bytes },
            flying: 0,
            requests: 0,
            most_requests: limits.requests.max(1),
            halvings: 0,
            held_until: None,
            pause: PAUSE,
            calm: 0,
            in_vain: 0,
            floor: limits.least,
            trip: Duration::MAX,
            trial: None,
            rest: REST,
            busy_since: None,
            busy: Duration::ZERO,
            back: 0,
            held_back: false,
            saturated: false,
        }
    }

    /// Whether a request of this weight may go out. One always may, except in a pause.
    pub fn admits(&mut self, weight: u64, at: Instant) -> bool {
        if let Some(until) = self.held_until {
            if at < until {
                return false;
            }
            self.held_until = None;
        }
        if self.requests == 0 {
            return true;
        }
        let fits = self.flying.saturating_add(weight) <= self.size;
        self.held_back |= !fits;
        fits && self.requests < self.most_requests
    }

    /// A server that is short of something is asked again for so long.
    pub fn patience(&self) -> Duration {
        self.limits.put_off
    }

    /// Requests may be so long.
    pub fn longest(&self) -> u64 {
        if self.halvings == 0 { u64::MAX } else { (LONGEST >> self.halvings).max(SHORTEST) }
    }

    /// The server asks for patience.
    pub fn put_off(&mut self, at: Instant) {
        if self.held_until.is_none() {
            // what was in flight together is refused together, and counts once
            self.halvings = (self.halvings + 1).min(MOST_HALVINGS);
            self.most_requests = (self.most_requests.min(self.requests.saturating_add(1)) / 2).max(1);
            self.held_until = Some(at + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        self.calm = 0;
    }

    /// A request went out.
    pub fn out(&mut self, weight: u64, at: Instant) {
        self.flying += weight;
        self.requests += 1;
        self.busy_since.get_or_insert(at);
    }

    /// The reply came to a request that went out then.
    pub fn back(&mut self, weight: u64, out: Instant, at: Instant) {
        if weight >= TELLING {
            self.trip = self.trip.min(at.saturating_duration_since(out));
        }
        self.flying = self.flying.saturating_sub(weight);
        self.requests = self.requests.saturating_sub(1);
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

    /// More is asked for than the connection can carry, however wide the window is.
    pub fn is_saturated(&self) -> bool {
        self.saturated
    }

    /// A request was answered as it should be.
    pub fn answered(&mut self) {
        if self.halvings == 0 {
            return;
        }
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.pause = PAUSE;
            self.halvings -= 1;
            self.in_vain = self.in_vain.min(self.halvings);
            let relaxed = self.most_requests.saturating_mul(2);
            self.most_requests = if self.halvings == 0 {
                self.limits.requests.max(1)
            } else {
                relaxed.min(self.limits.requests)
            };
        }
    }

    /// The connection was lost before anything was answered, perhaps for what was asked of it.
    pub fn lost_in_vain(&mut self) {
        self.in_vain = (self.in_vain + 1).min(MOST_IN_VAIN);
    }

    /// The connection is another one, with nothing in flight. As often as those before were lost in vain, less is asked of
    /// it.
    pub fn restart(&mut self) {
        let in_vain = self.in_vain;
        *self = Window::new(self.limits);
        if in_vain > 0 {
            self.in_vain = in_vain;
            self.halvings = in_vain.min(MOST_HALVINGS);
            self.most_requests = (self.limits.requests.min(COUNTED) >> in_vain).max(1);
        }
    }

    fn look(&mut self) {
        let seconds = self.busy.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
        let rate = self.back as f64 / seconds;
        let evident = std::mem::take(&mut self.held_back);
        (self.back, self.busy) = (0, Duration::ZERO);
        self.saturated = evident;
        if self.limits.bytes != 0 || !evident || self.trip == Duration::MAX {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share is an estimate")]
        let needed = rate * self.trip.as_secs_f64() / self.size as f64;
        if let Some(before) = self.trial.take() {
            match rate > before * MUCH {
                true => self.floor = self.size,
                false => self.size /= 2,
            }
        } else if needed >= FULL && self.size < MOST {
            self.size = (self.size * 2).min(MOST);
            self.saturated = false;
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
            while window.admits(piece, now) {
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
        let mut window = Window::new(Limits::of_bytes(0));
        run(&mut window, 4e9, Duration::from_millis(10), 40);
        assert!(!window.is_saturated(), "a wider one carries more");
        window = Window::new(Limits::of_bytes(0));
        run(&mut window, 4e9, Duration::from_millis(10), 4_000);
        assert!(window.size >= 32 << 20, "{}", window.size);
    }

    #[test]
    fn a_short_round_trip_keeps_it_small() {
        let mut window = Window::new(Limits::of_bytes(0));
        assert!(!window.is_saturated());
        run(&mut window, 4e9, Duration::from_micros(20), 40_000);
        assert!(window.size <= 2 << 20, "{}", window.size);
        assert!(window.is_saturated(), "it is held back, and the line is full");
    }

    #[test]
    fn a_window_that_holds_nothing_back_is_not_saturated() {
        let mut window = Window::new(Limits::of_bytes(64 << 20));
        let (mut now, millisecond) = (Instant::now(), Duration::from_millis(1));
        for _ in 0..1000 {
            assert!(window.admits(1 << 20, now));
            window.out(1 << 20, now);
            now += millisecond;
            window.back(1 << 20, now - millisecond, now);
        }
        assert!(!window.is_saturated());
    }

    #[test]
    fn a_middle_round_trip_ends_between() {
        let mut window = Window::new(Limits::of_bytes(0));
        run(&mut window, 3e9, Duration::from_millis(1), 8_000);
        assert!((2 << 20..=8 << 20).contains(&window.size), "{}", window.size);
    }

    #[test]
    fn one_request_is_always_admitted() {
        let mut window = Window::new(Limits::of_bytes(1000));
        let now = Instant::now();
        assert!(window.admits(1 << 30, now));
        window.out(1 << 30, now);
        assert!(!window.admits(1, now));
    }

    #[test]
    fn a_window_of_requests_is_one_of_bytes_too() {
        let now = Instant::now();
        let mut window = Window::new(Limits { requests: 2, ..Limits::of_bytes(1000) });
        window.out(1, now);
        assert!(window.admits(999, now) && !window.admits(1000, now));
        window.out(1, now);
        assert!(!window.admits(1, now));
        window.back(1, now, now);
        assert!(window.admits(1, now));
    }

    #[test]
    fn a_server_short_of_memory_gets_less_and_then_more_again() {
        let mut now = Instant::now();
        let mut window = Window::new(Limits { least: 16 << 20, requests: 16, ..Limits::of_bytes(0) });
        (0..16).for_each(|_| window.out(1 << 20, now));
        (0..16).for_each(|_| {
            window.back(1 << 20, now, now);
            window.put_off(now);
        });
        assert_eq!(window.longest(), 512 << 10);
        assert!(!window.admits(1, now), "there is a pause");
        now += PAUSE;
        let mut out = 0;
        while window.admits(512 << 10, now) {
            window.out(512 << 10, now);
            out += 1;
        }
        assert_eq!(out, 8, "half of what was in flight");
        for _ in 0..out {
            window.back(512 << 10, now, now);
        }
        (0..CALM).for_each(|_| window.answered());
        assert_eq!((window.longest(), window.most_requests), (u64::MAX, 16));
    }

    #[test]
    fn what_is_refused_for_good_ends_at_one_short_request() {
        let mut now = Instant::now();
        let mut window = Window::new(Limits { least: 16 << 20, requests: 16, ..Limits::of_bytes(0) });
        for _ in 0..20 {
            now += LONGEST_PAUSE;
            assert!(window.admits(SHORTEST, now), "one goes out after each pause");
            window.out(SHORTEST, now);
            window.back(SHORTEST, now, now);
            window.put_off(now);
        }
        assert_eq!((window.longest(), window.most_requests), (SHORTEST, 1));
    }

    #[test]
    fn connections_that_are_lost_in_vain_are_asked_for_less_until_answers_come() {
        let mut window = Window::new(Limits { least: 16 << 20, requests: 16, ..Limits::of_bytes(0) });
        window.restart();
        assert_eq!(
            (window.longest(), window.most_requests),
            (u64::MAX, 16),
            "a loss is not the window's fault"
        );
        for (longest, requests) in [(512, 8), (256, 4), (128, 2), (64, 1), (64, 1), (64, 1)] {
            window.lost_in_vain();
            window.restart();
            assert_eq!((window.longest(), window.most_requests), (longest << 10, requests));
        }
        (0..CALM).for_each(|_| window.answered());
        window.restart();
        assert_eq!((window.longest(), window.most_requests), (128 << 10, 2), "one more chance");
        (0..MOST_HALVINGS * CALM).for_each(|_| window.answered());
        window.restart();
        assert_eq!((window.longest(), window.most_requests), (u64::MAX, 16));
    }
}
