//! Which parts of a disk changed since when.
//!
//! A change id is `<identity of the tracking>/<number>`. Each number is a moment: when a snapshot was made while tracking was
//! on. Between two moments lies an epoch. What was written in it is known in two ways, which are united: what the simulator
//! wrote itself, and, while the link exists that took the writes, all that this link holds; so other programs may have
//! written to the disk of a machine that is off. Where a link is merged away, its map is kept.

use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::error::Result;
use crate::sim::disks::areas::Areas;
use crate::sim::random;

/// The changes of one disk.
#[derive(Debug, Default)]
pub struct Tracker(Mutex<Option<Tracking>>);

#[derive(Debug)]
struct Tracking {
    /// 16 bytes as change ids write them.
    identity: String,
    /// The epoch after moment `i + 1`.
    epochs: Vec<Epoch>,
}

#[derive(Clone, Debug, Default)]
struct Epoch {
    written: Areas,
    /// The link that took the writes, while it exists.
    link: Option<PathBuf>,
}

/// What is known of the changes between two moments.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Changed for certain.
    pub areas: Areas,
    /// All that these links hold changed too.
    pub links: Vec<PathBuf>,
}

impl Tracker {
    /// Notes a write.
    pub fn wrote(&self, range: Range<u64>) {
        if let Some(epoch) = self.0.lock().as_mut().and_then(|tracking| tracking.epochs.last_mut()) {
            epoch.written.add(range);
        }
    }

    /// A moment: from here on `link`, a new one, takes the writes; without one, what the simulator writes is all that is known. Starts the tracking if it was off. Gives the change id.
    pub fn mark(&self, link: Option<&Path>) -> Result<String> {
        let mut tracking = self.0.lock();
        if tracking.is_none() {
            *tracking = Some(Tracking { identity: identity()?, epochs: Vec::new() });
        }
        let Some(tracking) = tracking.as_mut() else { return Ok(String::new()) };
        tracking.epochs.push(Epoch { written: Areas::default(), link: link.map(Path::to_owned) });
        Ok(tracking.id(tracking.epochs.len()))
    }

    /// Forgets everything: change ids given so far mean nothing any more.
    pub fn stop(&self) {
        *self.0.lock() = None;
    }

    /// The change id of the last moment, if tracking is on.
    pub fn latest(&self) -> Option<String> {
        self.0.lock().as_ref().map(|tracking| tracking.id(tracking.epochs.len()))
    }

    /// What changed between the moment `from` and the moment `to`, without which up to this moment. `None`: the ids are not
    /// of this tracking, or the wrong way round.
    pub fn between(&self, from: &str, to: Option<&str>) -> Option<Known> {
        let tracking = self.0.lock();
        let tracking = tracking.as_ref()?;
        let from = tracking.number(from)?;
        let to = to.map_or(Some(tracking.epochs.len() + 1), |to| tracking.number(to))?;
        let epochs = tracking.epochs.get(from - 1..to - 1)?;
        let mut known = Known::default();
        for epoch in epochs {
            known.areas.unite(&epoch.written);
            known.links.extend(epoch.link.clone());
        }
        Some(known)
    }

    /// A link is about to go, or to take up what another one held: its own map is kept.
    pub fn keep(&self, link: &Path, areas: &Areas) {
        let mut tracking = self.0.lock();
        for epoch in tracking.iter_mut().flat_map(|tracking| &mut tracking.epochs) {
            if epoch.link.as_deref() == Some(link) {
                epoch.written.unite(areas);
                epoch.link = None;
            }
        }
    }
}

impl Tracking {
    fn id(&self, number: usize) -> String {
        format!("{}/{number}", self.identity)
    }

    /// The number of a change id of this tracking.
    fn number(&self, id: &str) -> Option<usize> {
        let number = id.strip_prefix(self.identity.as_str())?.strip_prefix('/')?.parse().ok()?;
        (1..=self.epochs.len()).contains(&number).then_some(number)
    }
}

/// `52 f3 b6 37 30 8d ea 3e-58 70 c0 fd 61 44 26 62`.
fn identity() -> Result<String> {
    let bytes = random::bytes::<16>()?;
    let half = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let (first, second) = bytes.split_at(8);
    Ok(format!("{}-{}", half(first), half(second)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::disks::areas::UNIT;

    fn starts(known: &Known) -> Vec<u64> {
        known.areas.iter().map(|area| area.start / UNIT).collect()
    }

    #[test]
    fn changes_are_those_between_two_moments() {
        let tracker = Tracker::default();
        tracker.wrote(0..1);
        let a = tracker.mark(Some(Path::new("/1"))).unwrap();
        tracker.wrote(5 * UNIT..5 * UNIT + 1);
        let b = tracker.mark(Some(Path::new("/2"))).unwrap();
        tracker.wrote(9 * UNIT..9 * UNIT + 1);
        assert_eq!(starts(&tracker.between(&a, Some(&b)).unwrap()), [5]);
        assert_eq!(starts(&tracker.between(&a, None).unwrap()), [5, 9]);
        assert_eq!(starts(&tracker.between(&b, Some(&b)).unwrap()), [0; 0]);
        assert_eq!(tracker.between(&a, None).unwrap().links, [Path::new("/1"), Path::new("/2")]);
        assert_eq!(tracker.latest(), Some(b.clone()));
        assert!(tracker.between(&b, Some(&a)).is_none());
        for foreign in ["", "x/1", &format!("{a}9"), &a.replace('/', ""), &format!("{}/0", &a[..a.len() - 2])]
        {
            assert!(tracker.between(foreign, None).is_none(), "{foreign}");
        }
    }

    #[test]
    fn the_map_of_a_link_outlives_it() {
        let tracker = Tracker::default();
        let a = tracker.mark(Some(Path::new("/1"))).unwrap();
        tracker.mark(Some(Path::new("/2"))).unwrap();
        let mut areas = Areas::default();
        areas.add(3 * UNIT..4 * UNIT);
        tracker.keep(Path::new("/1"), &areas);
        let known = tracker.between(&a, None).unwrap();
        assert_eq!((starts(&known), known.links), (vec![3], vec![PathBuf::from("/2")]));
    }

    #[test]
    fn a_stopped_tracking_knows_its_old_ids_no_more() {
        let tracker = Tracker::default();
        let a = tracker.mark(Some(Path::new("/1"))).unwrap();
        tracker.stop();
        assert_eq!(tracker.latest(), None);
        assert!(tracker.between(&a, None).is_none());
        tracker.mark(Some(Path::new("/1"))).unwrap();
        assert!(tracker.between(&a, None).is_none());
    }
}
