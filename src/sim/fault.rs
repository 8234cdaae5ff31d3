//! Faults on demand: a small language of rules, and what counts to know when each of them applies.
//!
//! ```text
//!   POINT [#ID] [:WHICH] = ACTION
//!
//!   nfc.read:3=error(5,"Failed to allocate the requested 2097176 bytes")
//!   nfc.*:100=cut                       soap.Login:1=fault(InvalidLogin)
//!   nfc.read=delay(2ms)                 soap.NfcGetVmFiles=fault(NoPermission,privilege=x.y)
//!   authd.proxy:2+=refuse               folder:2=status(503)
//! ```
//!
//! **POINT** is where the simulator asks: `authd.connect`, `authd.session`, `authd.proxy`, `authd.tls`; `nfc.session`,
//! `nfc.options`, `nfc.pool`, `nfc.open`, `nfc.read`, `nfc.write`, `nfc.query`, `nfc.ddb`, `nfc.close`, `nfc.end`; `soap.`
//! and the name of a method; `folder`. `nfc.*` stands for all that begin with `nfc`, `*` for all.
//!
//! **#ID** is one operation's number: `nfc.read#17`. Only frames of NFC have numbers.
//!
//! **WHICH** of the times that the rule's point is asked about: `3` the third, `3+` all from it on, `3-5` some, `/3` every
//! third; without it each. Every rule counts for itself, over all connections.
//!
//! **ACTION** is one of the following. Where several rules apply, their delays add up and the first other action is taken.
//!
//! | action | what happens |
//! |---|---|
//! | `error(CODE)`, `error(CODE,"TEXT")` | NFC: the operation is refused |
//! | `refuse` | the connection, ticket or session is refused in the way of the place |
//! | `cut` | the connection ends at once |
//! | `silence` | nothing more is said on the connection, which stays open |
//! | `short`, `short(silence)` | NFC: half of the answer, then the end, or silence |
//! | `magic` | NFC: the answer begins with another magic |
//! | `stray` | NFC: a message that nobody asked for comes before the answer |
//! | `shutdown` | the host goes into maintenance: every connection ends and none is accepted |
//! | `move`, `move(2)` | NFC: instead of the answer, the machine moves to the next host, or to the second |
//! | `delay(2ms)`, `delay(1s)`, `delay(50us)` | the answer comes later; delays of several operations overlap |
//! | `status(503)` | HTTP: this status instead of an answer |
//! | `fault(NAME)`, `fault(NAME,FIELD=VALUE,..)` | SOAP: a fault of this type with these fields |

mod parse;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::Result;

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// NFC: the operation is refused with this code and text.
    Error {
        /// The code.
        code: u64,
        /// The text, if there is one.
        text: Option<String>,
    },
    /// The connection, ticket or session is refused in the way of the place.
    Refuse,
    /// The connection ends at once.
    Cut,
    /// Nothing more is said on the connection, which stays open.
    Silence,
    /// NFC: half of the answer comes, and then the end.
    Short {
        /// Nothing more is said instead of the end.
        silence: bool,
    },
    /// NFC: the answer begins with another magic.
    Magic,
    /// NFC: a message that nobody asked for comes before the answer.
    Stray,
    /// Every connection to the host ends and none is accepted.
    Shutdown,
    /// NFC: instead of the answer, the machine moves to another host.
    Move(Target),
    /// The answer comes later.
    Delay(Duration),
    /// HTTP: this status instead of an answer.
    Status(u16),
    /// SOAP: a fault of this type.
    Fault {
        /// The type, without a prefix.
        name: String,
        /// Names and values of its fields.
        fields: Vec<(String, String)>,
    },
}

/// Where a machine moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the host behind its own; from the last one to the first.
    Next,
    /// To the host of this number, which counts from 0; rules count from 1.
    Host(usize),
}

/// A time with its unit, as rules have it: `2ms`.
pub fn duration(text: &str) -> Result<Duration> {
    parse::time(text)
}

/// When something happens, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Parts of the point's name; the last one may be a star.
    point: String,
    /// The operation's number.
    id: Option<u64>,
    which: Which,
    action: Action,
}

/// Which of the times, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// From the first to the last of them.
    Between(u64, u64),
    /// Every so many.
    Every(u64),
}

impl Rule {
    /// Reads a rule; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        parse::rule(text)
    }

    /// The number of the host that it moves machines to, if it names one.
    pub fn host(&self) -> Option<usize> {
        match self.action {
            Action::Move(Target::Host(at)) => Some(at),
            _ => None,
        }
    }

    fn is_for(&self, point: &str, id: Option<u64>) -> bool {
        if self.id.is_some() && self.id != id {
            return false;
        }
        match self.point.strip_suffix('*') {
            None => self.point == point,
            Some("") => true,
            Some(before) => point.starts_with(before) || before.strip_suffix('.') == Some(point),
        }
    }
}

impl Which {
    fn holds(self, time: u64) -> bool {
        match self {
            Which::Between(first, last) => (first..=last).contains(&time),
            Which::Every(step) => time.is_multiple_of(step),
        }
    }
}

/// What happens at a point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// How much later the answer comes.
    pub delay: Duration,
    /// What happens besides.
    pub action: Option<Action>,
}

/// Rules that are asked at every point by all threads, and may change at any time.
#[derive(Debug, Default)]
pub struct Faults {
    /// Rules, and how often each was asked about its point.
    rules: Mutex<Vec<(Rule, u64)>>,
    /// There are rules at all. Most simulators have none, and their fast paths look no further.
    any: AtomicBool,
    /// How often a rule made something happen.
    acted: AtomicU64,
}

impl Faults {
    /// Without rules.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule, whose counting begins here.
    pub fn add(&self, rule: Rule) {
        let mut rules = self.rules.lock();
        rules.push((rule, 0));
        self.any.store(true, Ordering::Release);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        let mut rules = self.rules.lock();
        rules.clear();
        self.any.store(false, Ordering::Release);
    }

    /// How often rules made something happen so far, those that were removed included.
    pub fn acted(&self) -> u64 {
        self.acted.load(Ordering::Acquire)
    }

    /// Something is about to happen at this point, for the operation of this number if it has one: what the rules say.
    /// Each rule for the point counts it.
    pub fn at(&self, point: &str, id: Option<u64>) -> Hit {
        let mut hit = Hit::default();
        if !self.any.load(Ordering::Acquire) {
            return hit;
        }
        for (rule, times) in self.rules.lock().iter_mut().filter(|(rule, _)| rule.is_for(point, id)) {
            *times += 1;
            match &rule.action {
                _ if !rule.which.holds(*times) => {}
                Action::Delay(time) => hit.delay = hit.delay.saturating_add(*time),
                action if hit.action.is_none() => hit.action = Some(action.clone()),
                _ => {}
            }
        }
        if hit != Hit::default() {
            self.acted.fetch_add(1, Ordering::AcqRel);
        }
        hit
    }

    /// The same for points without numbers, where one thing happens at a time: a delay only if nothing else happens.
    pub fn next(&self, point: &str) -> Option<Action> {
        let hit = self.at(point, None);
        hit.action.or_else(|| Some(Action::Delay(hit.delay)).filter(|_| !hit.delay.is_zero()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(rules: &[&str]) -> Faults {
        let faults = Faults::new();
        rules.iter().for_each(|rule| faults.add(Rule::parse(rule).unwrap()));
        faults
    }

    #[test]
    fn rules_say_which_of_the_times() {
        for (which, expected) in [
            ("", &[1, 2, 3, 4, 5, 6, 7][..]),
            (":3", &[3]),
            (":5+", &[5, 6, 7]),
            (":2-4", &[2, 3, 4]),
            (":/3", &[3, 6]),
        ] {
            let faults = faults(&[&format!("nfc.read{which}=cut")]);
            let times: Vec<i32> = (1..=7).filter(|_| faults.next("nfc.read").is_some()).collect();
            assert_eq!(times, expected, "{which}");
        }
    }

    #[test]
    fn a_star_stands_for_everything_below() {
        let faults = faults(&["nfc.*:2=cut", "folder.*:1=status(503)"]);
        assert_eq!(faults.next("nfc.open"), None);
        assert_eq!(faults.next("nfcx"), None);
        assert_eq!(faults.next("nfc.read"), Some(Action::Cut), "both points count for the rule");
        assert_eq!(faults.next("folder"), Some(Action::Status(503)));
        assert!(self::faults(&["*=refuse"]).next("soap.Login").is_some());
    }

    #[test]
    fn numbers_choose_one_operation() {
        let faults = faults(&["nfc.*#17=error(5)"]);
        assert_eq!(faults.at("nfc.read", Some(16)), Hit::default());
        assert_eq!(faults.at("nfc.read", None), Hit::default());
        let error = Action::Error { code: 5, text: None };
        assert_eq!(faults.at("nfc.write", Some(17)).action, Some(error));
    }

    #[test]
    fn delays_add_up_and_the_first_other_action_is_taken() {
        let faults = faults(&["a=delay(1s)", "a:2=cut", "a:2+=silence", "*=delay(5ms)"]);
        let times: Vec<Hit> = (0..3).map(|_| faults.at("a", None)).collect();
        assert!(times.iter().all(|hit| hit.delay == Duration::from_millis(1005)));
        let actions: Vec<_> = times.into_iter().map(|hit| hit.action).collect();
        assert_eq!(actions, [None, Some(Action::Cut), Some(Action::Silence)]);
        assert_eq!(faults.next("b"), Some(Action::Delay(Duration::from_millis(5))));
    }

    #[test]
    fn rules_can_be_taken_away() {
        let faults = faults(&["a=cut"]);
        assert_eq!((faults.acted(), faults.next("b"), faults.acted()), (0, None, 0));
        assert_eq!((faults.next("a"), faults.acted()), (Some(Action::Cut), 1));
        faults.clear();
        assert_eq!((faults.next("a"), faults.acted()), (None, 1));
        faults.add(Rule::parse("a=refuse").unwrap());
        assert_eq!(faults.next("a"), Some(Action::Refuse));
    }

    #[test]
    fn threads_count_together() {
        let faults = std::sync::Arc::new(faults(&["a:/10=cut"]));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let faults = std::sync::Arc::clone(&faults);
                std::thread::spawn(move || (0..100).filter(|_| faults.next("a").is_some()).count())
            })
            .collect();
        assert_eq!(workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>(), 40);
    }
}
