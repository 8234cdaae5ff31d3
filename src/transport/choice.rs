//! Which way to a disk is taken: the caller's list is tried from left to right until one works.
//!
//! A list says what may be used and in which order. Names that this build lacks, or that do not lead to the disk at hand,
//! are passed over: programs hand the same list to every library and every disk.

use crate::error::{Error, ErrorKind, Result};
use crate::logging::Log;
use crate::transport::Mode;
use crate::transport::Remote;

/// One way to reach a disk.
pub trait Way {
    /// What callers call it.
    fn mode(&self) -> Mode;

    /// Opens the disk this way.
    fn open(&self) -> Result<Remote>;
}

/// More names than any list has.
const MOST_NAMES: usize = 32;

/// Opens a disk by the first way that works. Without a list the ways are tried as they stand. When none works, the error is
/// that of the last one tried.
pub fn open(list: Option<&str>, ways: &[&dyn Way], target: &str, log: &Log) -> Result<Remote> {
    let wanted = match list.map(str::trim) {
        None | Some("") => ways.to_vec(),
        Some(list) => wanted(list, ways, target, log),
    };
    for (i, way) in wanted.iter().enumerate() {
        match way.open() {
            Ok(remote) => return Ok(remote),
            Err(e) if i + 1 < wanted.len() && is_about_the_way(e.kind()) => {
                log.info(|| format!("{target} is not reached by {}: {e}", way.mode().name()));
            }
            Err(e) => return Err(e),
        }
    }
    let possible: Vec<_> = ways.iter().map(|way| way.mode().name()).collect();
    let text = format!(
        "no transport of the list {:?} leads to {target}, only {}",
        list.unwrap_or_default(),
        possible.join(":")
    );
    Err(Error::new(ErrorKind::NotSupported, text))
}

/// The ways that a list names, each once, in its order.
fn wanted<'a>(list: &str, ways: &[&'a dyn Way], target: &str, log: &Log) -> Vec<&'a dyn Way> {
    let mut found: Vec<&dyn Way> = Vec::new();
    for name in list.split(':').map(str::trim).filter(|name| !name.is_empty()).take(MOST_NAMES) {
        let known = Mode::ALL.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(name));
        match ways.iter().find(|way| Some(way.mode()) == known) {
            Some(way) if found.iter().all(|other| other.mode() != way.mode()) => found.push(*way),
            Some(_) => {}
            None => log.info(|| {
                let why = if known.is_some() { "does not lead there" } else { "is not in this build" };
                format!("transport {name:?} is passed over for {target}: it {why}")
            }),
        }
    }
    found
}

/// True for faults that another way to the same disk need not have. A peer that cannot be trusted is not asked again with
/// less caution, and one that cannot be found is not there by another name either.
fn is_about_the_way(kind: ErrorKind) -> bool {
    // A server's policy may be about the way, too: nbdkit answers so when it has no TLS.
    matches!(kind, ErrorKind::Protocol | ErrorKind::NotSupported | ErrorKind::AccessDenied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::Arc;

    use crate::disk::Disk;
    use crate::logging::Level;
    use crate::logging::Sink;
    use crate::storage::Identity;
    use crate::storage::memory::MemoryStorage;
    use crate::transport::Line;

    #[derive(Debug)]
    struct NoLine;

    impl Line for NoLine {
        fn cut(&self) {}
        fn probe(&self, _answered: Box<dyn FnOnce() + Send>) {}
    }

    struct Fake<'a> {
        mode: Mode,
        fails: Option<ErrorKind>,
        tried: &'a RefCell<Vec<&'static str>>,
    }

    impl Way for Fake<'_> {
        fn mode(&self) -> Mode {
            self.mode
        }
        fn open(&self) -> Result<Remote> {
            self.tried.borrow_mut().push(self.mode.name());
            if let Some(kind) = self.fails {
                return Err(Error::new(kind, format!("{} fails", self.mode.name())));
            }
            let storage = Arc::new(MemoryStorage::new("m", vec![0; 512]));
            let disk = Disk::raw(storage, false, Identity(0, 0))?;
            Ok(Remote { disk, mode: self.mode, label: String::new(), line: Arc::new(NoLine) })
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
        (seen.into_inner(), result.map(|remote| remote.mode).map_err(|e| e.kind()), said)
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
}
