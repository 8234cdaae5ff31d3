//! How an NFC server behaves: everything that may be different on real hosts, and everything that goes wrong.
//!
//! A [`Settings`] is plain values; [`Knobs`] holds one that may change while the server runs. Each can be set by name,
//! from a command line or a test: `order=reversed`. What happens once or now and then is a matter of
//! [`crate::sim::fault`] instead.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nfc::open;
use crate::sim::fault::Faults;
use crate::sim::fault::duration;
use crate::sim::nfc::dialect::Dialect;

/// The order in which the fragments of reads are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    #[default]
    Ascending,
    /// From the last to the first.
    Reversed,
    /// Any.
    Random,
    /// One of each operation that is due, in turn.
    Interleaved,
}

/// What a refused request is answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusalForm {
    /// The refusal, then the answer to the request with a status: as measured.
    #[default]
    WithAnswer,
    /// The refusal only.
    Alone,
    /// The answer with a status only.
    StatusOnly,
}

/// What happens to connections beyond the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Excess {
    /// They wait, without a banner, until another one ends: documented.
    #[default]
    Queue,
    /// They are closed at once.
    Refuse,
}

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The version of NFC that is answered; `None`: the release's.
    pub version: Option<u32>,
    /// The banner says `NFCSSL supported`; `None`: as the release.
    pub secure_data: Option<bool>,
    /// The banner says `SHA256 supported`; `None`: as the release.
    pub sha256: Option<bool>,
    /// Largest buffer of a session, in bytes.
    pub most_buffer: u32,
    /// Largest read or write, in bytes.
    pub most_operation: u32,
    /// The order of fragments.
    pub order: Order,
    /// How many percent of the fragments are not packed though they could be.
    pub unpacked: u8,
    /// How long the storage takes for an operation. Those of concurrent operations overlap.
    pub delay: Duration,
    /// The first connection on which so many bytes were sent is cut there.
    pub cut_sent: Option<u64>,
    /// The first connection on which so many bytes were received is cut there.
    pub cut_received: Option<u64>,
    /// A connection is cut each time that so many bytes passed on all together.
    pub cut_every: Option<u64>,
    /// What a refused request is answered with.
    pub refusals: RefusalForm,
    /// What a session wrote shows as not allocated until it ends, as observed on real hosts.
    pub stale_allocation: bool,
    /// OPEN_FILE answers 0 for the size of a sector.
    pub no_sector_size: bool,
    /// A ticket is good more than once.
    pub reuse_tickets: bool,
    /// A ticket of a vCenter names the host. The field is optional by its type; a bare host never fills it.
    pub ticket_host: bool,
    /// 36 comes after 51 only, as one source says.
    pub late_parameters: bool,
    /// Most connections at once.
    pub connections: Option<u32>,
    /// What happens to more.
    pub excess: Excess,
    /// Most bytes of all operations that are under way; more are refused with code 5.
    pub memory: Option<u64>,
    /// How long a session may be silent.
    pub idle: Duration,
    /// How long a step of the handshake may take, and the rest of a frame that has begun.
    pub patience: Duration,
    /// The host is in maintenance: no connection is taken.
    pub maintenance: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: None,
            secure_data: None,
            sha256: None,
            most_buffer: open::MOST_BUFFER,
            most_operation: 32 << 20, // the longest that was seen
            order: Order::Ascending,
            unpacked: 0,
            delay: Duration::ZERO,
            cut_sent: None,
            cut_received: None,
            cut_every: None,
            refusals: RefusalForm::WithAnswer,
            stale_allocation: false,
            no_sector_size: false,
            reuse_tickets: false,
            ticket_host: true,
            late_parameters: false,
            connections: None,
            excess: Excess::Queue,
            memory: None,
            idle: Duration::from_secs(30 * 60), // real hosts wait at least so long
            patience: Duration::from_secs(60),
            maintenance: false,
        }
    }
}

/// Changes one setting by its text.
type Setter = fn(&mut Settings, &str) -> Option<()>;

/// Every setting by its name, with what it takes.
const NAMES: &[(&str, &str, Setter)] = &[
    ("version", "NUMBER or default", |s, v| optional(v).map(|v| s.version = v)),
    ("secure-data", "yes, no or default", |s, v| optional_switch(v).map(|v| s.secure_data = v)),
    ("sha256", "yes, no or default", |s, v| optional_switch(v).map(|v| s.sha256 = v)),
    ("most-buffer", "BYTES", |s, v| parsed(v).map(|v| s.most_buffer = v)),
    ("most-operation", "BYTES", |s, v| parsed(v).map(|v| s.most_operation = v)),
    ("order", "ascending, reversed, random or interleaved", |s, v| order(v).map(|v| s.order = v)),
    ("unpacked", "PERCENT", |s, v| parsed(v).filter(|v| *v <= 100).map(|v| s.unpacked = v)),
    ("delay", "TIME such as 2ms", |s, v| duration(v).ok().map(|v| s.delay = v)),
    ("cut-sent", "BYTES or default", |s, v| optional(v).map(|v| s.cut_sent = v)),
    ("cut-received", "BYTES or default", |s, v| optional(v).map(|v| s.cut_received = v)),
    ("cut-every", "BYTES or default", |s, v| optional(v).filter(|v| *v != Some(0)).map(|v| s.cut_every = v)),
    ("refusals", "with-answer, alone or status-only", |s, v| refusals(v).map(|v| s.refusals = v)),
    ("stale-allocation", "yes or no", |s, v| switch(v).map(|v| s.stale_allocation = v)),
    ("no-sector-size", "yes or no", |s, v| switch(v).map(|v| s.no_sector_size = v)),
    ("reuse-tickets", "yes or no", |s, v| switch(v).map(|v| s.reuse_tickets = v)),
    ("ticket-host", "yes or no", |s, v| switch(v).map(|v| s.ticket_host = v)),
    ("late-parameters", "yes or no", |s, v| switch(v).map(|v| s.late_parameters = v)),
    ("connections", "NUMBER or default", |s, v| optional(v).map(|v| s.connections = v)),
    ("excess", "queue or refuse", |s, v| excess(v).map(|v| s.excess = v)),
    ("memory", "BYTES or default", |s, v| optional(v).map(|v| s.memory = v)),
    ("idle", "TIME", |s, v| duration(v).ok().map(|v| s.idle = v)),
    ("patience", "TIME", |s, v| duration(v).ok().map(|v| s.patience = v)),
    ("maintenance", "yes or no", |s, v| switch(v).map(|v| s.maintenance = v)),
];

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// `Some(None)` is the default.
fn optional<T: FromStr>(text: &str) -> Option<Option<T>> {
    if text == "default" { Some(None) } else { parsed(text).map(Some) }
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn optional_switch(text: &str) -> Option<Option<bool>> {
    if text == "default" { Some(None) } else { switch(text).map(Some) }
}

fn order(text: &str) -> Option<Order> {
    match text {
        "ascending" => Some(Order::Ascending),
        "reversed" => Some(Order::Reversed),
        "random" => Some(Order::Random),
        "interleaved" => Some(Order::Interleaved),
        _ => None,
    }
}

fn refusals(text: &str) -> Option<RefusalForm> {
    match text {
        "with-answer" => Some(RefusalForm::WithAnswer),
        "alone" => Some(RefusalForm::Alone),
        "status-only" => Some(RefusalForm::StatusOnly),
        _ => None,
    }
}

fn excess(text: &str) -> Option<Excess> {
    match text {
        "queue" => Some(Excess::Queue),
        "refuse" => Some(Excess::Refuse),
        _ => None,
    }
}

impl Settings {
    /// Names of settings and what they take, for a help text.
    pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
        NAMES.iter().map(|(name, takes, _)| (*name, *takes))
    }

    /// Changes a setting: `NAME=VALUE`.
    pub fn set(&mut self, text: &str) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        let Some((name, value)) = text.split_once('=') else {
            return wrong(format!("{text:?} is no setting: expected NAME=VALUE"));
        };
        let Some((name, takes, set)) = NAMES.iter().find(|(known, ..)| *known == name.trim()) else {
            return wrong(format!("there is no setting {name:?}"));
        };
        match set(self, value.trim()) {
            Some(()) => Ok(()),
            None => wrong(format!("the setting {name} takes {takes}, not {value:?}")),
        }
    }
}

/// Settings that may change while a server runs, and the rules for what goes wrong.
#[derive(Debug)]
pub struct Knobs {
    /// The release that the host is of.
    pub dialect: &'static Dialect,
    /// What goes wrong, and when.
    pub faults: Arc<Faults>,
    settings: RwLock<Settings>,
    /// Connections may have to be cut. Most servers have none, and their fast paths look no further.
    cuts: AtomicBool,
    /// Bytes that passed on all connections, for [`Settings::cut_every`].
    passed: Mutex<u64>,
}

impl Knobs {
    /// The usual settings.
    pub fn new(dialect: &'static Dialect, faults: Arc<Faults>) -> Self {
        let settings = RwLock::new(Settings::default());
        Self { dialect, faults, settings, cuts: AtomicBool::new(false), passed: Mutex::new(0) }
    }

    /// The settings at this moment.
    pub fn now(&self) -> Settings {
        *self.settings.read()
    }

    /// Changes settings. What is counted for cuts is counted from the start of the server.
    pub fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings.write();
        change(&mut settings);
        let any = settings.cut_sent.or(settings.cut_received).or(settings.cut_every).is_some();
        self.cuts.store(any, Ordering::Release);
    }

    /// Changes a setting by its text: `NAME=VALUE`.
    pub fn set(&self, text: &str) -> Result<()> {
        let mut result = Ok(());
        self.change(|settings| result = settings.set(text));
        result
    }

    /// How many of `wanted` bytes may pass on a connection on which `before` have; `None`: it is to be cut. Only with
    /// [`Knobs::has_passed`] do they count.
    pub(in crate::sim::nfc) fn may_pass(&self, way: Way, before: u64, wanted: usize) -> Option<usize> {
        if !self.cuts.load(Ordering::Acquire) {
            return Some(wanted);
        }
        let mut settings = self.settings.write();
        let once = match way {
            Way::Sent => &mut settings.cut_sent,
            Way::Received => &mut settings.cut_received,
        };
        let mut room = wanted as u64;
        if let Some(limit) = *once {
            if before >= limit {
                *once = None; // that was it
                return None;
            }
            room = room.min(limit - before);
        }
        if let Some(step) = settings.cut_every {
            let mut passed = self.passed.lock();
            if *passed >= step {
                *passed = 0;
                return None;
            }
            room = room.min(step - *passed);
        }
        Some(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// So many bytes passed.
    pub(in crate::sim::nfc) fn has_passed(&self, count: usize) {
        if self.cuts.load(Ordering::Acquire) {
            *self.passed.lock() += count as u64;
        }
    }
}

/// Which way bytes pass, from the server's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim::nfc) enum Way {
    /// To the client.
    Sent,
    /// From the client.
    Received,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_name_and_checks_its_value() {
        let mut settings = Settings::default();
        for text in [
            "version=7",
            "secure-data=no",
            "sha256=no",
            "most-buffer=65536",
            "most-operation=1048576",
            "order=random",
            "unpacked=50",
            "delay=2ms",
            "cut-sent=1000",
            "cut-received=1000",
            "cut-every=1000",
            "refusals=alone",
            "stale-allocation=yes",
            "no-sector-size=yes",
            "reuse-tickets=yes",
            "ticket-host=no",
            "late-parameters=yes",
            "connections=5",
            "excess=refuse",
            "memory=1000",
            "idle=5s",
            "patience=5s",
            "maintenance=yes",
        ] {
            let before = settings;
            settings.set(text).unwrap();
            assert!(settings != before, "{text}");
            let name = text.split('=').next().unwrap();
            assert_eq!(settings.set(&format!("{name}=?")).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(Settings::names().count(), 23);
        settings.set("version = default").unwrap();
        assert_eq!(settings.version, None);
        for text in ["", "order", "disorder=1", "unpacked=101", "cut-every=0", "version=-1"] {
            assert!(settings.set(text).is_err(), "{text}");
        }
    }

    fn knobs(text: &str) -> Knobs {
        let knobs = Knobs::new(Dialect::usual(), Arc::default());
        knobs.set(text).unwrap();
        knobs
    }

    #[test]
    fn a_cut_comes_once_at_its_byte() {
        let knobs = knobs("cut-sent=100");
        assert_eq!(knobs.may_pass(Way::Received, 500, 50), Some(50));
        assert_eq!(
            (knobs.may_pass(Way::Sent, 0, 70), knobs.may_pass(Way::Sent, 70, 70)),
            (Some(70), Some(30))
        );
        assert_eq!((knobs.may_pass(Way::Sent, 100, 1), knobs.may_pass(Way::Sent, 100, 1)), (None, Some(1)));
    }

    #[test]
    fn cuts_come_again_and_again_over_all_connections() {
        let knobs = knobs("cut-every=100");
        let mut cuts = 0;
        for _ in 0..100 {
            match knobs.may_pass(Way::Sent, 0, 30) {
                Some(room) => knobs.has_passed(room),
                None => cuts += 1,
            }
        }
        assert_eq!(cuts, 20, "four pieces and a cut each time");
    }
}
