//! Which way to a disk is taken: the caller's list is tried from left to right until one works.
//!
//! A list says what may be used and in which order. Names that this build lacks, or that do not lead to the disk at hand,
//! are passed over: programs hand the same list to every library and every disk.

use std::ops::Deref;

use crate::error::{Error, ErrorKind, Result};
use crate::logging::Log;
use crate::transport::Mode;

/// One way to reach a disk.
pub trait Way {
    /// What is there once it worked.
    type Opened;

    /// What callers call it.
    fn mode(&self) -> Mode;

    /// Opens the disk this way.
    fn open(&self) -> Result<Self::Opened>;
}

/// More names than any list has.
const MOST_NAMES: usize = 32;
/// Transports that callers may ask for alone and that are none of [`Mode::ALL`].
const ADVANCED: [&str; 2] = ["san", "hotadd"];

/// Opens a disk by the first way that works. Without a list the ways are tried as they stand; a single advanced mode is
/// served by `nbdssl`.
pub fn open<W: Way + ?Sized>(list: Option<&str>, ways: &[&W], target: &str, log: &Log) -> Result<W::Opened> {
    let possible: Vec<Mode> = ways.iter().map(|way| way.mode()).collect();
    let order = order(list, &possible, Some(Mode::NbdSsl), target, log)?;
    let wanted: Vec<&W> =
        order.iter().filter_map(|mode| ways.iter().find(|way| way.mode() == *mode).copied()).collect();
    first(&wanted, target, log).map(|(_, opened)| opened)
}

/// The modes of a list that lead to the target, each once, in its order; without a list all that are possible and need not
/// be named, as they stand. With a `stand_in`, that one is taken where the list names a single advanced mode, which is what guides promise.
/// `NotSupported` where nothing is left.
pub fn order(
    list: Option<&str>,
    possible: &[Mode],
    stand_in: Option<Mode>,
    target: &str,
    log: &Log,
) -> Result<Vec<Mode>> {
    let list = list.unwrap_or_default();
    let names: Vec<&str> =
        list.split(':').map(str::trim).filter(|name| !name.is_empty()).take(MOST_NAMES).collect();
    if names.is_empty() {
        return match possible.iter().copied().filter(|mode| !mode.must_be_named()).collect::<Vec<_>>() {
            found if found.is_empty() => Err(leads_nowhere(list, possible, target)),
            found => Ok(found),
        };
    }
    let mut found: Vec<Mode> = Vec::new();
    for name in &names {
        let known = Mode::ALL.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(name));
        match possible.iter().find(|mode| Some(**mode) == known) {
            Some(mode) if !found.contains(mode) => found.push(*mode),
            Some(_) => {}
            None => log.info(|| {
                let why = if known.is_some() { "does not lead there" } else { "is not in this build" };
                format!("transport {name:?} is passed over for {target}: it {why}")
            }),
        }
    }
    if let (true, [only], Some(mode)) = (found.is_empty(), &names[..], stand_in)
        && ADVANCED.iter().any(|name| name.eq_ignore_ascii_case(only))
    {
        log.info(|| format!("{target} is reached by {} instead of {only}", mode.name()));
        return Ok(vec![mode]);
    }
    match found.is_empty() {
        false => Ok(found),
        true => Err(leads_nowhere(list, possible, target)),
    }
}

fn leads_nowhere(list: &str, possible: &[Mode], target: &str) -> Error {
    let possible: Vec<_> = possible.iter().map(|mode| mode.name()).collect();
    let text = format!("no transport of the list {list:?} leads to {target}, only {}", possible.join(":"));
    Error::new(ErrorKind::NotSupported, text)
}

/// Opens by the first of these ways that works, and says which. A way is passed over that has to fail as the one before it
/// did. When none works, the error tells the cause of each.
pub fn first<W, P>(ways: &[P], target: &str, log: &Log) -> Result<(usize, W::Opened)>
where
    W: Way + ?Sized,
    P: Deref<Target = W>,
{
    let mut failures: Vec<(Mode, Error)> = Vec::new();
    for (i, way) in ways.iter().enumerate() {
        if let Some((mode, e)) = failures.last() {
            if !need_not_fail(e.kind(), *mode, way.mode()) {
                continue;
            }
            log.info(|| format!("{target} is not reached by {}: {e}", mode.name()));
        }
        match way.open() {
            Ok(opened) => return Ok((i, opened)),
            Err(e) => failures.push((way.mode(), e)),
        }
    }
    Err(all_of(failures, target))
}

/// One error of all that were met: the last one, with what the others say, or the last but those that only say that a way
/// cannot do what is wanted.
fn all_of(mut failures: Vec<(Mode, Error)>, target: &str) -> Error {
    let telling = failures.iter().rposition(|(_, e)| e.kind() != ErrorKind::NotSupported);
    let Some(at) = telling.or(failures.len().checked_sub(1)) else {
        return Error::new(ErrorKind::NotSupported, format!("no transport leads to {target}"));
    };
    let (mode, error) = failures.remove(at);
    if failures.is_empty() {
        return error;
    }
    let others: Vec<String> = failures.iter().map(|(mode, e)| format!("by {}: {e}", mode.name())).collect();
    error.context(format!("{target} is not reached {}; nor by {}", others.join("; nor "), mode.name()))
}

/// True for faults that the next way to the same disk need not have. A peer that cannot be trusted is not asked again with
/// less caution, and what cannot be found or was not meant so is not there by another name either.
pub fn need_not_fail(kind: ErrorKind, tried: Mode, next: Mode) -> bool {
    match kind {
        ErrorKind::CertificateRefused
        | ErrorKind::NotFound
        | ErrorKind::MachineNotFound
        | ErrorKind::ObjectNotFound
        | ErrorKind::InvalidArgument
        | ErrorKind::NameInvalid
        | ErrorKind::InvalidConnection
        | ErrorKind::Cancelled
        | ErrorKind::Internal => false,
        // The same door, the same host, the same permission, with TLS or without. Files of a datastore are at another port,
        // and of a vCenter at another machine, which has been talked to already.
        ErrorKind::ConnectionRefused
        | ErrorKind::HostFull
        | ErrorKind::ServerNotFound
        | ErrorKind::TimedOut
        | ErrorKind::HostUnavailable
        | ErrorKind::Busy
        | ErrorKind::OutOfMemory
        | ErrorKind::ReadOnly
        | ErrorKind::Unauthorised
        | ErrorKind::SessionInvalid => (tried == Mode::Https) != (next == Mode::Https),
        // A server's policy may be about the way, too: nbdkit answers so when it has no TLS. And a host shares what it locks
        // against others.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::Arc;

    use crate::logging::Level;
    use crate::logging::Sink;

    struct Fake<'a> {
        mode: Mode,
        fails: Option<ErrorKind>,
        tried: &'a RefCell<Vec<&'static str>>,
    }

    impl Way for Fake<'_> {
        type Opened = Mode;
        fn mode(&self) -> Mode {
            self.mode
        }
        fn open(&self) -> Result<Mode> {
            self.tried.borrow_mut().push(self.mode.name());
            if let Some(kind) = self.fails {
                return Err(Error::new(kind, format!("{} fails", self.mode.name())));
            }
            Ok(self.mode)
        }
    }

    #[derive(Default)]
    struct Lines(parking_lot::Mutex<Vec<String>>);

    impl Sink for Lines {
        fn line(&self, _level: Level, text: &str) {
            self.0.lock().push(text.to_owned());
        }
    }

    /// What was tried, what came of it, and what was said.
    fn tried(
        list: Option<&str>,
        tls: Option<ErrorKind>,
        plain: Option<ErrorKind>,
    ) -> (Vec<&'static str>, Result<Mode, ErrorKind>, Vec<String>) {
        let seen = RefCell::default();
        let lines = Arc::new(Lines::default());
        let log = Log::new(lines.clone(), Level::Debug);
        let tls = Fake { mode: Mode::NbdSsl, fails: tls, tried: &seen };
        let plain = Fake { mode: Mode::Nbd, fails: plain, tried: &seen };
        let result = open(list, &[&plain, &tls], "a disk", &log);
        let said = std::mem::take(&mut *lines.0.lock());
        (seen.into_inner(), result.map_err(|e| e.kind()), said)
    }

    #[test]
    fn the_list_is_tried_from_left_to_right() {
        let refused = Some(ErrorKind::Protocol);
        assert_eq!(tried(Some("nbdssl:nbd"), None, None).0, ["nbdssl"]);
        assert_eq!(tried(Some(" NBDSSL : nbd "), refused, None).0, ["nbdssl", "nbd"]);
        assert_eq!(tried(Some("nbd:nbdssl:nbd"), None, refused).1, Ok(Mode::NbdSsl));
        assert_eq!(
            tried(Some("nbd:nbdssl"), refused, Some(ErrorKind::NotSupported)).1,
            Err(ErrorKind::Protocol)
        );
        for none in [None, Some(""), Some(" ")] {
            assert_eq!(tried(none, None, None).0, ["nbd"]);
        }
    }

    /// What is tried of ways that fail so, and what comes of it.
    fn in_turn(ways: &[(Mode, ErrorKind)]) -> (Vec<&'static str>, ErrorKind, String) {
        let seen = RefCell::default();
        let ways: Vec<Fake<'_>> =
            ways.iter().map(|(mode, kind)| Fake { mode: *mode, fails: Some(*kind), tried: &seen }).collect();
        let ways: Vec<&Fake<'_>> = ways.iter().collect();
        let e = first(&ways, "a disk", &Log::none()).unwrap_err();
        (seen.take(), e.kind(), e.to_string())
    }

    #[test]
    fn the_error_tells_the_cause_of_every_way() {
        let (_, kind, text) = in_turn(&[
            (Mode::NbdSsl, ErrorKind::ServerFault),
            (Mode::Nbd, ErrorKind::TicketRefused),
            (Mode::Https, ErrorKind::Unauthorised),
        ]);
        assert_eq!(kind, ErrorKind::Unauthorised);
        assert_eq!(
            text,
            "a disk is not reached by nbdssl: nbdssl fails; nor by nbd: nbd fails; nor by https: https fails"
        );
    }

    #[test]
    fn a_way_that_cannot_do_it_does_not_hide_what_went_wrong_before() {
        let ways = [(Mode::NbdSsl, ErrorKind::HostUnavailable), (Mode::Https, ErrorKind::NotSupported)];
        let (tried, kind, text) = in_turn(&ways);
        assert_eq!((tried, kind), (vec!["nbdssl", "https"], ErrorKind::HostUnavailable));
        assert_eq!(text, "a disk is not reached by https: https fails; nor by nbdssl: nbdssl fails");
    }

    #[test]
    fn a_way_that_must_fail_alike_is_passed_over_and_the_next_one_is_not() {
        for kind in [
            ErrorKind::ConnectionRefused,
            ErrorKind::HostFull,
            ErrorKind::OutOfMemory,
            ErrorKind::ReadOnly,
            ErrorKind::Unauthorised,
            ErrorKind::TimedOut,
            ErrorKind::HostUnavailable,
        ] {
            let ways = [(Mode::NbdSsl, kind), (Mode::Nbd, kind), (Mode::Https, ErrorKind::Io)];
            assert_eq!(in_turn(&ways).0, ["nbdssl", "https"], "{kind:?}");
            let back = [(Mode::Https, kind), (Mode::NbdSsl, ErrorKind::Io)];
            assert_eq!(in_turn(&back).0, ["https", "nbdssl"], "{kind:?}");
        }
        for kind in [ErrorKind::ServerFault, ErrorKind::ConnectionLost, ErrorKind::TicketRefused] {
            let ways = [(Mode::NbdSsl, kind), (Mode::Nbd, kind), (Mode::Https, kind)];
            assert_eq!(in_turn(&ways).0, ["nbdssl", "nbd", "https"], "{kind:?}");
        }
        for kind in [ErrorKind::NotFound, ErrorKind::CertificateRefused, ErrorKind::InvalidArgument] {
            assert_eq!(in_turn(&[(Mode::NbdSsl, kind), (Mode::Https, kind)]).0, ["nbdssl"], "{kind:?}");
        }
    }

    #[test]
    fn what_is_not_listed_is_not_used() {
        assert_eq!(tried(Some("nbdssl"), Some(ErrorKind::Protocol), None).0, ["nbdssl"]);
        assert_eq!(tried(Some("nbd"), None, Some(ErrorKind::Protocol)).0, ["nbd"]);
    }

    #[test]
    fn names_that_lead_nowhere_are_passed_over_with_a_line_each() {
        let (seen, result, said) = tried(Some("file:san:hotadd::nbd"), None, None);
        assert_eq!((seen, result), (vec!["nbd"], Ok(Mode::Nbd)));
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(
            said[0].contains("\"file\"") && said[1].contains("\"san\"") && said[2].contains("\"hotadd\"")
        );
        let (seen, result, said) = tried(Some("san:file"), None, None);
        assert_eq!((seen, result, said.len()), (vec![], Err(ErrorKind::NotSupported), 2));
    }

    #[test]
    fn a_peer_that_cannot_be_trusted_is_not_asked_in_plain_text() {
        for kind in [ErrorKind::CertificateRefused, ErrorKind::ConnectionRefused, ErrorKind::NotFound] {
            let (seen, result, _) = tried(Some("nbdssl:nbd"), Some(kind), None);
            assert_eq!((seen, result), (vec!["nbdssl"], Err(kind)));
        }
    }

    #[test]
    fn a_single_advanced_mode_has_a_stand_in_where_there_is_one() {
        let lines = Arc::new(Lines::default());
        let log = Log::new(lines.clone(), Level::Debug);
        let both = [Mode::NbdSsl, Mode::Nbd];
        let chosen =
            |list, stand_in| order(Some(list), &both, stand_in, "a disk", &log).map_err(|e| e.kind());
        for name in ["san", " HotAdd:"] {
            assert_eq!(chosen(name, Some(Mode::NbdSsl)), Ok(vec![Mode::NbdSsl]));
            assert_eq!(chosen(name, None), Err(ErrorKind::NotSupported));
        }
        assert!(lines.0.lock().iter().any(|line| line == "a disk is reached by nbdssl instead of san"));
        for list in ["san:hotadd", "file", "nothing", "file:san"] {
            assert_eq!(chosen(list, Some(Mode::NbdSsl)), Err(ErrorKind::NotSupported), "{list}");
        }
        assert_eq!(chosen("san:nbd", Some(Mode::NbdSsl)), Ok(vec![Mode::Nbd]));
    }

    #[test]
    fn a_mode_that_must_be_named_is_taken_by_nobody_else() {
        let ways = [Mode::NbdSsl, Mode::Nbd, Mode::Https];
        let chosen =
            |list| order(list, &ways, Some(Mode::NbdSsl), "a disk", &Log::none()).map_err(|e| e.kind());
        for none in [None, Some(""), Some(":")] {
            assert_eq!(chosen(none), Ok(vec![Mode::NbdSsl, Mode::Nbd]));
        }
        assert_eq!(chosen(Some("san:Https:nbd")), Ok(vec![Mode::Https, Mode::Nbd]));
        assert_eq!(chosen(Some("san")), Ok(vec![Mode::NbdSsl]));
        let only = order(None, &[Mode::Https], None, "a disk", &Log::none());
        assert_eq!(only.unwrap_err().kind(), ErrorKind::NotSupported);
    }

    #[test]
    fn a_port_that_is_closed_is_no_reason_against_another_one() {
        let seen = RefCell::default();
        let (lost, refused) = (Some(ErrorKind::ConnectionRefused), Some(ErrorKind::CertificateRefused));
        let tried = |first, then: Mode| {
            let (first, then) = (
                Fake { mode: Mode::NbdSsl, fails: first, tried: &seen },
                Fake { mode: then, fails: None, tried: &seen },
            );
            super::first(&[&first, &then], "a disk", &Log::none()).map_err(|e| e.kind())
        };
        assert_eq!(tried(lost, Mode::Https), Ok((1, Mode::Https)));
        assert_eq!(tried(lost, Mode::Nbd), Err(ErrorKind::ConnectionRefused));
        assert_eq!(tried(refused, Mode::Https), Err(ErrorKind::CertificateRefused));
    }
}
