//! How many disks are open on a host and through a vCenter, and what to do when that is too many.
//!
//! A host gives all of its clients together so much memory for transfers, and a vCenter so many connections. What is beyond
//! is refused. The library cannot see other programs; its own disks it counts. Who is refused waits until a disk of this
//! library is closed, or a while, and tries again. A host that takes the connection and ends it without a word is full of whomever;
//! a port that takes no connection is waited for only where other disks of its host are open here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::{ErrorKind, Result};
use crate::logging::Log;

/// Disks of one host at a time that its maker recommends at most.
const PER_HOST: usize = 50;
/// Connections that a vCenter hands out at most.
const PER_VCENTER: usize = 52;
/// First and longest pause before a refused disk is asked for again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The disks of one library.
#[derive(Debug)]
pub struct Limits {
    log: Log,
    taken: Mutex<Taken>,
    /// Somebody left, or it is over.
    left: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    by_place: HashMap<Place, usize>,
    over: bool,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Host(String),
    Vcenter(String),
}

/// One disk, counted until this is dropped.
#[derive(Debug)]
pub struct Seat {
    limits: Arc<Limits>,
    places: Vec<Place>,
}

impl Limits {
    /// Nothing is open.
    pub fn new(log: Log) -> Arc<Limits> {
        Arc::new(Limits { log, taken: Mutex::default(), left: Condvar::new() })
    }

    /// Counts a disk of this host, which was asked of that vCenter, if of any. One too many is said, but not refused: only the
    /// host knows how much it has.
    pub fn sit(self: &Arc<Self>, host: &str, vcenter: Option<&str>) -> Seat {
        let vcenter = vcenter.map(|name| Place::Vcenter(name.to_lowercase()));
        let places: Vec<Place> = [Place::Host(host.to_lowercase())].into_iter().chain(vcenter).collect();
        let mut taken = self.taken.lock();
        let counts: Vec<usize> = places
            .iter()
            .map(|place| {
                let count = taken.by_place.entry(place.clone()).or_default();
                *count += 1;
                *count
            })
            .collect();
        drop(taken);
        for (place, count) in places.iter().zip(counts) {
            self.warn(place, count);
        }
        Seat { limits: Arc::clone(self), places }
    }

    fn warn(&self, place: &Place, count: usize) {
        let (what, most) = match place {
            Place::Host(name) => (format!("host {name}"), PER_HOST),
            Place::Vcenter(name) => (format!("vCenter {name}"), PER_VCENTER),
        };
        if count == most {
            self.log.warning(|| {
                format!("{count} disks are open on {what}: further ones may have to wait or fail there")
            });
        }
    }

    /// Disks of this host that are open.
    pub fn on_host(&self, host: &str) -> usize {
        let place = Place::Host(host.to_lowercase());
        self.taken.lock().by_place.get(&place).copied().unwrap_or(0)
    }

    /// Makes attempts until one succeeds, fails for another reason than that the host has no room, or time is up.
    /// `others` says how many other disks of this library the host serves: to them a refused connection is due, where there
    /// are any.
    pub fn patiently<T>(
        &self,
        what: &str,
        until: Instant,
        others: &dyn Fn() -> usize,
        attempt: &mut dyn FnMut() -> Result<T>,
    ) -> Result<T> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match attempt() {
                Err(error) if is_crowded(error.kind(), others()) => error,
                result => return result,
            };
            if Instant::now() + pause >= until {
                return Err(error.context(advice(others())));
            }
            if pause == FIRST_PAUSE {
                self.log.info(|| format!("{what} waits for room on its host: {error}"));
            }
            let mut taken = self.taken.lock();
            if !taken.over {
                self.left.wait_for(&mut taken, pause);
            }
            if taken.over {
                return Err(error.context("the library is being shut down"));
            }
            drop(taken);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Nobody waits any more.
    pub fn end(&self) {
        self.taken.lock().over = true;
        self.left.notify_all();
    }

    fn leave(&self, places: &[Place]) {
        let mut taken = self.taken.lock();
        for place in places {
            if let Some(count) = taken.by_place.get_mut(place) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    taken.by_place.remove(place);
                }
            }
        }
        drop(taken);
        self.left.notify_all();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.limits.leave(&self.places);
    }
}

/// True for faults that may come from the number of disks.
fn is_crowded(kind: ErrorKind, others: usize) -> bool {
    match kind {
        ErrorKind::OutOfMemory | ErrorKind::HostFull => true,
        ErrorKind::ConnectionRefused | ErrorKind::Busy => others > 0,
        _ => false,
    }
}

fn advice(others: usize) -> String {
    let whose = match others {
        0 => "none of it is open here, so that it is others who use it".to_owned(),
        others => format!("{others} others of it are open here"),
    };
    format!(
        "the host has no room for one more disk, and {whose}: open fewer at a time, or with smaller buffers \
         (vixDiskLib.nfcAio.Session.BufSizeIn64KB, .BufCount)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::logging::Level;
    use crate::logging::Sink;

    #[derive(Default)]
    struct Lines(Mutex<Vec<(Level, String)>>);

    impl Sink for Lines {
        fn line(&self, level: Level, text: &str) {
            self.0.lock().push((level, text.to_owned()));
        }
    }

    fn limits() -> (Arc<Lines>, Arc<Limits>) {
        let lines = Arc::new(Lines::default());
        (lines.clone(), Limits::new(Log::new(lines, Level::Debug)))
    }

    #[test]
    fn one_line_warns_of_each_limit_and_the_disk_is_opened_all_the_same() {
        let (lines, limits) = limits();
        let seats: Vec<Seat> = (0..60).map(|_| limits.sit("ESX1", Some("vc"))).collect();
        let said = lines.0.lock().iter().map(|(_, line)| line.clone()).collect::<Vec<_>>();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("50 disks are open on host esx1"), "{said:?}");
        assert!(said[1].starts_with("52 disks are open on vCenter vc"), "{said:?}");
        assert_eq!(limits.on_host("esx1"), 60);
        drop(seats);
        assert_eq!((limits.on_host("esx1"), limits.taken.lock().by_place.len()), (0, 0));
    }

    #[test]
    fn each_host_is_counted_by_itself_and_a_vcenter_with_all_of_them() {
        let (lines, limits) = limits();
        let sit = |host: &str, count: usize| -> Vec<Seat> {
            (0..count).map(|_| limits.sit(host, Some("vc"))).collect()
        };
        let mut seats = [sit("esx1", 30), sit("esx2", 21)];
        assert!(lines.0.lock().is_empty(), "51 in all, and no host has 50");
        seats[1].extend(sit("esx2", 1));
        assert_eq!((limits.on_host("esx1"), limits.on_host("esx2")), (30, 22));
        seats[0].extend(sit("esx1", 20));
        let said = lines.0.lock().iter().map(|(_, line)| line.clone()).collect::<Vec<_>>();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("52 disks are open on vCenter vc"), "{said:?}");
        assert!(said[1].starts_with("50 disks are open on host esx1"), "{said:?}");
    }

    #[test]
    fn who_finds_no_room_is_let_in_when_another_disk_is_closed() {
        let (_, limits) = limits();
        let mut seat = Some(limits.sit("esx", None));
        let until = Instant::now() + Duration::from_secs(60);
        let mut attempts = 0;
        let opened = limits.patiently("a disk", until, &|| limits.on_host("esx"), &mut || {
            attempts += 1;
            match seat.take() {
                Some(seat) => {
                    drop(seat);
                    Err(Error::new(ErrorKind::OutOfMemory, "NFC error 5"))
                }
                None => Ok("open"),
            }
        });
        assert_eq!((opened.unwrap(), attempts), ("open", 2));
    }

    #[test]
    fn the_wait_for_room_ends_in_advice() {
        let (lines, limits) = limits();
        let _seat = limits.sit("esx", None);
        let until = Instant::now() + FIRST_PAUSE;
        let e = limits
            .patiently("a disk", until, &|| 1, &mut || -> Result<()> {
                Err(Error::new(ErrorKind::OutOfMemory, "NFC error 5"))
            })
            .unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfMemory);
        assert!(e.to_string().contains("BufCount") && e.to_string().contains("NFC error 5"), "{e}");
        assert!(lines.0.lock().is_empty(), "who does not wait does not say so");
    }

    #[test]
    fn a_refused_connection_is_waited_for_only_where_other_disks_are_open() {
        let (_, limits) = limits();
        let until = Instant::now() + Duration::from_secs(60);
        let mut attempts = 0;
        let mut refuse = || -> Result<()> {
            attempts += 1;
            let kind = if attempts > 3 { ErrorKind::NotFound } else { ErrorKind::ConnectionRefused };
            Err(Error::new(kind, "refused"))
        };
        assert_eq!(
            limits.patiently("x", until, &|| 0, &mut refuse).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        assert_eq!(limits.patiently("x", until, &|| 2, &mut refuse).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(attempts, 4);
    }

    #[test]
    fn a_host_that_is_full_of_others_is_waited_for() {
        let (_, limits) = limits();
        let until = Instant::now() + Duration::from_secs(60);
        let mut attempts = 0;
        let opened = limits.patiently("a disk", until, &|| 0, &mut || {
            attempts += 1;
            if attempts == 1 { Err(Error::new(ErrorKind::HostFull, "no greeting")) } else { Ok("open") }
        });
        assert_eq!((opened.unwrap(), attempts), ("open", 2));
        let e = limits
            .patiently("a disk", Instant::now(), &|| 0, &mut || -> Result<()> {
                Err(Error::new(ErrorKind::HostFull, "no greeting"))
            })
            .unwrap_err();
        assert_eq!(e.kind(), ErrorKind::HostFull);
        assert!(e.to_string().contains("none of it is open here"), "{e}");
    }

    #[test]
    fn shutting_down_ends_the_wait() {
        let (_, limits) = limits();
        limits.end();
        let until = Instant::now() + Duration::from_secs(600);
        let e = limits
            .patiently("x", until, &|| 0, &mut || -> Result<()> {
                Err(Error::new(ErrorKind::OutOfMemory, "no"))
            })
            .unwrap_err();
        assert!(e.to_string().contains("shut down"), "{e}");
    }
}
