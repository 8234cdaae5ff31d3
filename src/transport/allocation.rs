//! What a peer said about where data is, kept for later questions.
//!
//! Programs ask for a disk's allocated blocks in many small steps, and each question is a round trip or more. So whole
//! windows are asked for and remembered, where nobody writes through us. Gaps too small to be worth a gap are closed, which
//! bounds what a peer can make us remember.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;

/// What is asked for and remembered as one.
const WINDOW: u64 = 256 << 20;
/// Windows asked for at once, at least and at most: who asks for one goes on to the next.
const AT_LEAST: u64 = 8;
const AT_ONCE: u64 = 256;
/// Smaller gaps are closed: callers look at nothing smaller.
const GAP: u64 = 64 << 10;
/// Ranges remembered per disk; when there are more, all are forgotten.
const MOST: usize = 1 << 18;

/// Takes ascending ranges that may hold data.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Range<u64>);

/// Asks the peer.
pub(super) type Ask<'a> = &'a mut dyn FnMut(Range<u64>, Sink<'_>) -> Result<()>;

/// What is known of a disk that nobody writes to through us.
#[derive(Debug, Default)]
pub(super) struct Known {
    windows: Mutex<Windows>,
}

/// What the lock protects. It is not held while the peer is asked.
#[derive(Debug, Default)]
struct Windows {
    by_number: BTreeMap<u64, Arc<[Range<u64>]>>,
    ranges: usize,
}

impl Windows {
    fn remember(&mut self, number: u64, data: Arc<[Range<u64>]>) {
        if self.ranges + data.len() > MOST {
            *self = Self::default();
        }
        self.ranges += data.len();
        if let Some(before) = self.by_number.insert(number, data) {
            self.ranges -= before.len(); // two threads asked for it
        }
    }
}

impl Known {
    /// Tells the parts of `range`, inside the `size` bytes of the disk, that may hold data.
    pub fn tell(&self, range: Range<u64>, size: u64, ask: Ask<'_>, sink: Sink<'_>) -> Result<()> {
        let mut joined = Joined::new(range.clone(), sink);
        let (mut number, end) = (range.start / WINDOW, range.end.div_ceil(WINDOW));
        while number < end {
            if let Some(data) = self.window(number) {
                data.iter().for_each(|part| joined.add(part));
                number += 1;
                continue;
            }
            let limit = end.max(number + AT_LEAST).min(number + AT_ONCE).min(size.div_ceil(WINDOW));
            let until = (number + 1..limit).find(|&next| self.window(next).is_some()).unwrap_or(limit);
            for data in self.fetch(number..until, size, ask)? {
                data.iter().for_each(|part| joined.add(part));
            }
            number = until;
        }
        joined.end();
        Ok(())
    }

    fn window(&self, number: u64) -> Option<Arc<[Range<u64>]>> {
        self.windows.lock().by_number.get(&number).cloned()
    }

    /// Asks for windows that are not known and remembers them.
    fn fetch(&self, numbers: Range<u64>, size: u64, ask: Ask<'_>) -> Result<Vec<Arc<[Range<u64>]>>> {
        let range = numbers.start * WINDOW..numbers.end.saturating_mul(WINDOW).min(size);
        let mut windows: Vec<Vec<Range<u64>>> = numbers.clone().map(|_| Vec::new()).collect();
        closed(range.clone(), ask, &mut |part| {
            let mut at = part.start;
            while at < part.end {
                let number = at / WINDOW;
                let end = part.end.min((number + 1) * WINDOW);
                if let Some(window) = windows.get_mut((number - numbers.start) as usize) {
                    window.push(at..end);
                }
                at = end;
            }
        })?;
        let windows: Vec<Arc<[_]>> = windows.into_iter().map(Arc::from).collect();
        let mut known = self.windows.lock();
        numbers.zip(&windows).for_each(|(number, data)| known.remember(number, data.clone()));
        Ok(windows)
    }
}

/// Asks for a range and tells the answer with small gaps closed.
pub(super) fn closed(range: Range<u64>, ask: Ask<'_>, sink: Sink<'_>) -> Result<()> {
    let mut joined = Joined::new(range.clone(), sink);
    ask(range, &mut |part| joined.add(&part))?;
    joined.end();
    Ok(())
}

/// Clips parts to a range and joins neighbours.
struct Joined<'a> {
    range: Range<u64>,
    waiting: Option<Range<u64>>,
    sink: Sink<'a>,
}

impl<'a> Joined<'a> {
    fn new(range: Range<u64>, sink: Sink<'a>) -> Self {
        Self { range, waiting: None, sink }
    }

    fn add(&mut self, part: &Range<u64>) {
        let part = part.start.max(self.range.start)..part.end.min(self.range.end);
        if part.start >= part.end {
            return;
        }
        match &mut self.waiting {
            Some(before) if part.start < before.end.saturating_add(GAP) => {
                before.end = before.end.max(part.end);
            }
            waiting => {
                if let Some(before) = waiting.replace(part) {
                    (self.sink)(before);
                }
            }
        }
    }

    fn end(self) {
        if let Some(last) = self.waiting {
            (self.sink)(last);
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges with one in them")]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::error::ErrorKind;

    const SIZE: u64 = 10 * WINDOW + 12345;

    /// A peer with data in the first 100 KiB of every odd window and at the border of windows 4 and 5.
    fn peer(asked: &mut Vec<Range<u64>>, range: Range<u64>, sink: Sink<'_>) -> Result<()> {
        asked.push(range.clone());
        let odd = (0..11).filter(|n| n % 2 == 1).map(|n| n * WINDOW..n * WINDOW + 102_400);
        let mut data: Vec<_> = odd.chain([5 * WINDOW - 512..5 * WINDOW + 512]).collect();
        data.sort_by_key(|part| part.start);
        for part in data {
            let part = part.start.max(range.start)..part.end.min(range.end);
            if part.start < part.end {
                sink(part);
            }
        }
        Ok(())
    }

    fn tell(known: &Known, range: Range<u64>, asked: &mut Vec<Range<u64>>) -> Vec<Range<u64>> {
        let mut told = Vec::new();
        known
            .tell(range, SIZE, &mut |range, sink| peer(asked, range, sink), &mut |part| told.push(part))
            .unwrap();
        told
    }

    #[test]
    fn the_peer_is_asked_once_and_in_one_go() {
        let (known, mut asked) = (Known::default(), Vec::new());
        let all = tell(&known, 0..SIZE, &mut asked);
        assert_eq!(asked, [0..SIZE]);
        assert_eq!(all.len(), 5);
        assert_eq!(all[2], 5 * WINDOW - 512..5 * WINDOW + 102_400, "joined over the border of windows");
        assert_eq!(tell(&known, 0..SIZE, &mut asked), all);
        assert_eq!(tell(&known, WINDOW + 10..WINDOW + 20, &mut asked), [WINDOW + 10..WINDOW + 20]);
        assert_eq!(tell(&known, 0..WINDOW, &mut asked), []);
        assert_eq!(asked.len(), 1);
    }

    #[test]
    fn only_what_is_missing_is_asked_for() {
        let (known, mut asked) = (Known::default(), Vec::new());
        tell(&known, 2 * WINDOW..2 * WINDOW + 1, &mut asked);
        tell(&known, 100..4 * WINDOW - 1, &mut asked);
        tell(&known, SIZE - 1..SIZE, &mut asked);
        assert_eq!(asked, [2 * WINDOW..10 * WINDOW, 0..2 * WINDOW, 10 * WINDOW..SIZE]);
    }

    #[test]
    fn a_peer_that_tells_of_every_sector_is_not_remembered_sector_by_sector() {
        let known = Known::default();
        let mut ask = |range: Range<u64>, sink: Sink<'_>| {
            (range.start / 1024..range.end / 1024).for_each(|n| sink(n * 1024..n * 1024 + 512));
            Ok(())
        };
        let mut told = Vec::new();
        known.tell(0..2 * WINDOW, 2 * WINDOW, &mut ask, &mut |part| told.push(part)).unwrap();
        assert_eq!(told, [0..2 * WINDOW - 512]);
        assert!(known.windows.lock().ranges <= 2);
    }

    #[test]
    fn what_fails_is_not_remembered() {
        let (known, mut asked) = (Known::default(), Vec::new());
        let mut ask = |_: Range<u64>, sink: Sink<'_>| {
            sink(0..1);
            Err(Error::new(ErrorKind::ConnectionLost, "gone"))
        };
        assert!(known.tell(0..10, SIZE, &mut ask, &mut |_| {}).is_err());
        assert_eq!(tell(&known, 0..10, &mut asked), []);
        assert_eq!(asked.len(), 1);
    }

    #[test]
    fn memory_stays_bounded() {
        let mut windows = Windows::default();
        let many: Arc<[Range<u64>]> = vec![0..1; MOST / 4].into();
        (0..20).for_each(|n| windows.remember(n, many.clone()));
        assert!(windows.ranges <= MOST && windows.by_number.len() <= 4);
        (0..20).for_each(|_| windows.remember(19, many.clone()));
        assert!(windows.ranges <= MOST && windows.by_number.contains_key(&19));
    }
}
