//! One grain table, decoded into runs of neighbouring grains.
//!
//! A run says for its grains what their table entries say, without loss: the grains of a data run stand one after the other
//! in the file. Real tables are a handful of runs, so they are kept small and a lookup answers for many grains at once.

/// What a table entry says about its grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) enum Place {
    /// No grain: the parent's content.
    Unallocated,
    /// Zeros, whatever a parent holds.
    Zero,
    /// At this byte of the file, a multiple of 512 and not 0.
    Data(u64),
    /// The entry cannot be believed.
    Bad,
}

/// Tags stand where no grain can: below the first sector.
const UNALLOCATED: u64 = 0;
const ZERO: u64 = 1;
const BAD: u64 = 2;

/// The runs of one table.
#[derive(Debug)]
pub(super) struct Runs {
    /// The first grain of each run, within the table; the first is 0.
    starts: Box<[u16]>,
    /// A tag, or where the first grain of the run stands in the file.
    places: Box<[u64]>,
    /// Grains in the table.
    grains: u16,
    /// Bytes from one grain of a data run to the next.
    stride: u64,
}

impl Runs {
    /// Collects the places of all grains of a table in order. At most 65535 are taken.
    pub(super) fn collect(places: impl Iterator<Item = Place>, stride: u64) -> Self {
        let mut starts = Vec::new();
        let mut runs: Vec<u64> = Vec::new();
        let mut expected = None;
        let mut grains = 0u16;
        for place in places.take(usize::from(u16::MAX)) {
            let code = match place {
                Place::Unallocated => UNALLOCATED,
                Place::Zero => ZERO,
                Place::Data(at) => at,
                Place::Bad => BAD,
            };
            if expected != Some(code) {
                starts.push(grains);
                runs.push(code);
            }
            expected = Some(if code > BAD { code.wrapping_add(stride) } else { code });
            grains += 1;
        }
        Self { starts: starts.into(), places: runs.into(), grains, stride }
    }

    /// What lies at grain `index` of the table, and for how many grains from there on (at least 1).
    pub(super) fn find(&self, index: u16) -> (Place, u16) {
        let next = self.starts.partition_point(|&start| start <= index);
        let run = next.wrapping_sub(1);
        let (Some(&start), Some(&code)) = (self.starts.get(run), self.places.get(run)) else {
            return (Place::Bad, 1);
        };
        let end = self.starts.get(next).copied().unwrap_or(self.grains);
        let place = match code {
            UNALLOCATED => Place::Unallocated,
            ZERO => Place::Zero,
            BAD => Place::Bad,
            at => Place::Data(at.wrapping_add(u64::from(index - start).wrapping_mul(self.stride))),
        };
        (place, end.saturating_sub(index).max(1))
    }

    /// Bytes of memory behind it.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.starts) + size_of_val(&*self.places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_lose_nothing() {
        let places = [
            Place::Unallocated,
            Place::Unallocated,
            Place::Data(4096),
            Place::Data(4608),
            Place::Data(5120),
            Place::Data(4096),
            Place::Zero,
            Place::Bad,
            Place::Bad,
            Place::Data(1024),
        ];
        let runs = Runs::collect(places.into_iter(), 512);
        assert_eq!(runs.starts.len(), 6);
        for (index, place) in places.into_iter().enumerate() {
            assert_eq!(runs.find(index as u16).0, place, "grain {index}");
        }
        assert_eq!(runs.find(0), (Place::Unallocated, 2));
        assert_eq!(runs.find(3), (Place::Data(4608), 2));
        assert_eq!(runs.find(9), (Place::Data(1024), 1));
    }

    #[test]
    fn an_empty_table_is_one_run() {
        let runs = Runs::collect(std::iter::repeat_n(Place::Unallocated, 4096), 512);
        assert_eq!(runs.find(1), (Place::Unallocated, 4095));
        assert!(runs.weight() < 100);
    }
}
