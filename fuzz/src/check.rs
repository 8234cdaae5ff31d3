//! Holds an image against an oracle, and against the promises of [`Image`].

use std::ops::Range;

use vixDiskLib::format::Image;
use vixDiskLib::format::Mapping;
use vixDiskLib::format::Presence;

use super::oracle::Oracle;
use super::oracle::Want;

/// Sectors of an image that is looked at whole.
const WHOLE: u64 = 6000;

/// Sectors looked at around each interesting place of a bigger one.
const AROUND: u64 = 40;

/// How many of the answers were data, or zeros, or missing; and how many were errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sectors that were answered.
    pub answered: u64,
    /// Sectors whose answer was an error.
    pub failed: u64,
}

/// Every sector (of a big image: around every interesting place) is an error, or what the oracle says. The scan agrees.
pub fn image(image: &dyn Image, oracle: &dyn Oracle) -> Tally {
    assert_eq!(Some(image.capacity()), oracle.sectors().checked_mul(512), "capacity");
    let mut tally = Tally::default();
    let mut seen = Vec::new();
    for window in windows(oracle) {
        for (lba, presence) in mapped(image, oracle, window, &mut tally) {
            seen.push((lba * 512, presence));
        }
    }
    scanned(image, &seen);
    tally
}

/// How many of the sectors that are looked at are faults.
pub fn faults(oracle: &dyn Oracle) -> u64 {
    windows(oracle).into_iter().flatten().filter(|lba| oracle.sector(*lba) == Want::Fault).count() as u64
}

/// The parts of an image that are looked at.
pub fn windows(oracle: &dyn Oracle) -> Vec<Range<u64>> {
    let (sectors, table) = (oracle.sectors(), oracle.table_sectors());
    if sectors <= WHOLE {
        let whole = 0..sectors;
        return vec![whole];
    }
    let places = [0, table, 2 * table, sectors / table * table, sectors / 2, sectors];
    let all = places
        .iter()
        .map(|at| at.saturating_sub(AROUND)..at.saturating_add(AROUND).min(sectors))
        .filter(|w| w.start < w.end);
    let mut windows: Vec<Range<u64>> = all.collect();
    windows.sort_by_key(|w| w.start);
    windows
}

fn presence_of(mapping: &Mapping<'_>) -> Presence {
    match mapping {
        Mapping::Data { .. } | Mapping::Packed => Presence::Data,
        Mapping::Zero => Presence::Zero,
        Mapping::Unallocated => Presence::Unallocated,
    }
}

fn mapped(
    image: &dyn Image,
    oracle: &dyn Oracle,
    window: Range<u64>,
    tally: &mut Tally,
) -> Vec<(u64, Presence)> {
    let mut seen = Vec::new();
    let (mut at, end) = (window.start * 512, window.end * 512);
    while at < end {
        let Ok((mapping, run)) = image.map(at, end - at) else {
            tally.failed += 1;
            at += 512;
            continue;
        };
        assert!(run > 0 && run <= end - at, "a run of {run} bytes at {at:#x}, asked for {}", end - at);
        assert_eq!(run % 512, 0, "a run of {run} bytes at {at:#x} splits a sector");
        let presence = presence_of(&mapping);
        for (sector, content) in (0..).zip(sectors_of(image, &mapping, at, run)) {
            let Some(content) = content else {
                tally.failed += 1;
                continue;
            };
            let lba = at / 512 + sector;
            let got = match presence {
                Presence::Data => Want::Bytes(content),
                Presence::Zero => Want::Zero,
                Presence::Unallocated => Want::Parent,
            };
            assert_same(lba, &got, &oracle.sector(lba));
            tally.answered += 1;
            seen.push((lba, presence));
        }
        at += run;
    }
    seen
}

fn assert_same(lba: u64, got: &Want, want: &Want) {
    if got != want {
        let short = |w: &Want| match w {
            Want::Bytes(b) => format!("bytes {:02x?}..", &b[..16]),
            other => format!("{other:?}"),
        };
        panic!("sector {lba} holds {}, reads as {}", short(want), short(got));
    }
}

/// The sectors of a run, each `None` if it cannot be read. One bad sector fails a read of the whole run; what the others
/// hold is still worth a look.
fn sectors_of(image: &dyn Image, mapping: &Mapping<'_>, at: u64, run: u64) -> Vec<Option<Vec<u8>>> {
    let read = |start: u64, buf: &mut [u8]| match mapping {
        Mapping::Data { storage, offset } => storage.read_at(buf, offset + start).is_ok(),
        Mapping::Packed => image.read_packed(at + start, buf).is_ok(),
        Mapping::Zero | Mapping::Unallocated => true,
    };
    let mut content = vec![0; run as usize];
    if read(0, &mut content) {
        return content.chunks(512).map(|sector| Some(sector.to_vec())).collect();
    }
    let one = |start: u64| {
        let mut sector = vec![0; 512];
        read(start, &mut sector).then_some(sector)
    };
    (0..run).step_by(512).map(one).collect()
}

/// The scan covers the image without gaps and says of each looked-at sector what `map` said.
fn scanned(image: &dyn Image, seen: &[(u64, Presence)]) {
    let (mut at, mut next) = (0, 0);
    let done = image.scan(0..image.capacity(), &mut |range, presence| {
        assert_eq!(range.start, at, "the scan has a gap or goes back");
        assert!(range.end > range.start, "an empty part in a scan");
        at = range.end;
        while let Some((offset, mapped)) = seen.get(next).filter(|(offset, _)| *offset < range.end) {
            if *offset >= range.start {
                assert_eq!(presence, *mapped, "the scan and the map disagree at {offset:#x}");
            }
            next += 1;
        }
    });
    if done.is_ok() {
        assert_eq!(at, image.capacity(), "the scan ends early");
    }
}
