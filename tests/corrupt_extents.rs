//! One number of a small valid extent is spoilt, every number in turn, with every value that parsers stumble over.
//!
//! A number that says how to read must lead to its kind of error, or to bytes that an independent reader of the spoilt file
//! also sees; a number that says nothing about reading must change nothing. Never a panic, never much time or memory.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use std::sync::Arc;
use std::time::Duration;

use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::format::Image;

use fuzz_bodies::check;
use fuzz_bodies::check::Tally;
use fuzz_bodies::extents::open_cowd;
use fuzz_bodies::extents::open_sesparse;
use fuzz_bodies::extents::open_stream;
use fuzz_bodies::images;
use fuzz_bodies::images::Built;
use fuzz_bodies::images::Field;
use fuzz_bodies::images::SparseSpec;
use fuzz_bodies::images::StreamLayout;
use fuzz_bodies::limits::Counting;
use fuzz_bodies::limits::measured;
use fuzz_bodies::limits::said;
use fuzz_bodies::oracle;
use fuzz_bodies::oracle::Oracle;
use fuzz_bodies::oracle::Want;
use fuzz_bodies::sparse::open_sparse;
use fuzz_bodies::store::Holey;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a spoilt number leads to.
#[derive(Clone, Copy, Debug)]
enum Leads {
    /// The file does not open, with this kind of error.
    Refused(ErrorKind),
    /// The file does not open, with one of these kinds; or it opens, and whatever reads is right.
    Maybe(&'static [ErrorKind]),
    /// Everything reads as before.
    Nowhere,
    /// The file opens; what the spoilt number describes reads as the number says or fails, all else reads.
    Local,
}

use ErrorKind::Corrupt;
use ErrorKind::EndOfFile;
use ErrorKind::NeedsRepair;
use ErrorKind::NotADisk;
use ErrorKind::UnsupportedFeature;
use ErrorKind::UnsupportedVersion;
use Leads::Local;
use Leads::Maybe;
use Leads::Nowhere;
use Leads::Refused;

/// What each number of a format leads to: the first entry whose text begins the number's name counts.
type Table = &'static [(&'static str, Leads)];

/// A second reader, or why it refuses the file.
type Judged = Result<Box<dyn Oracle>, &'static str>;

/// A format under test: how it opens, and the second reader.
struct Format {
    open: fn(&Arc<Holey>) -> Result<Box<dyn Image>>,
    oracle: fn(Arc<Holey>) -> Judged,
    table: Table,
}

const SPARSE: Format = Format {
    open: |file| Ok(Box::new(open_sparse(file, false)?)),
    oracle: |file| Ok(Box::new(oracle::Sparse::open(file)?)),
    table: &[
        ("magic", Refused(NotADisk)),
        ("version", Maybe(&[UnsupportedVersion])),
        ("flags", Maybe(&[UnsupportedFeature, NotADisk])),
        ("capacity", Maybe(&[NotADisk])),
        ("grainSize", Maybe(&[NotADisk])),
        ("descriptor", Maybe(&[NotADisk])),
        ("numGTEsPerGT", Refused(NotADisk)),
        ("rgdOffset", Nowhere),
        ("gdOffset", Maybe(&[NotADisk])),
        ("overHead", Maybe(&[NotADisk, Corrupt])),
        ("uncleanShutdown", Nowhere),
        ("newlines", Refused(NotADisk)),
        ("compressAlgorithm", Maybe(&[UnsupportedFeature])),
        ("pad", Nowhere),
        ("rgd[", Nowhere),
        ("rgt[", Nowhere),
        ("gd[", Local),
        ("gt[", Local),
    ],
};

const STREAM: Format = Format {
    open: |file| Ok(Box::new(open_stream(file)?)),
    oracle: |file| Ok(Box::new(oracle::Stream::open(file)?)),
    table: &[
        ("magic", Refused(NotADisk)),
        ("footer.magic", Refused(NotADisk)),
        ("version", Maybe(&[UnsupportedVersion, NotADisk, Corrupt])),
        ("footer.version", Maybe(&[UnsupportedVersion, NotADisk, Corrupt])),
        ("flags", Maybe(&[UnsupportedFeature, NotADisk, Corrupt])),
        ("footer.flags", Maybe(&[UnsupportedFeature, NotADisk, Corrupt])),
        ("numGTEsPerGT", Refused(NotADisk)),
        ("footer.numGTEsPerGT", Refused(NotADisk)),
        ("newlines", Refused(NotADisk)),
        ("compressAlgorithm", Maybe(&[UnsupportedFeature])),
        ("footer.compressAlgorithm", Maybe(&[UnsupportedFeature])),
        ("uncleanShutdown", Nowhere),
        ("footer.uncleanShutdown", Nowhere),
        ("pad", Nowhere),
        ("footer.pad", Nowhere),
        ("rgdOffset", Nowhere),
        ("footer.rgdOffset", Nowhere),
        ("gt marker", Nowhere),
        ("gd marker", Nowhere),
        ("footer marker", Maybe(&[NotADisk, Corrupt])),
        ("end marker", Maybe(&[NotADisk, Corrupt])),
        ("gd[", Local),
        ("gt[", Local),
        ("marker", Local),
        ("", Maybe(&[NotADisk, Corrupt, UnsupportedFeature])),
    ],
};

const COWD: Format = Format {
    open: |file| Ok(Box::new(open_cowd(file)?)),
    oracle: |file| Ok(Box::new(oracle::Cowd::open(file)?)),
    table: &[
        ("magic", Refused(NotADisk)),
        ("version", Refused(UnsupportedVersion)),
        ("flags", Maybe(&[UnsupportedFeature])),
        ("freeSector", Nowhere),
        ("generation", Nowhere),
        ("savedGeneration", Nowhere),
        ("uncleanShutdown", Nowhere),
        ("gd[", Local),
        ("gt[", Local),
        ("", Maybe(&[NotADisk])),
    ],
};

const SESPARSE: Format = Format {
    open: |file| Ok(Box::new(open_sesparse(file)?)),
    oracle: |file| Ok(Box::new(oracle::SeSparse::open(file)?)),
    table: &[
        ("magic", Refused(NotADisk)),
        ("version", Refused(UnsupportedVersion)),
        ("flags", Refused(UnsupportedFeature)),
        ("reserved", Refused(UnsupportedFeature)),
        ("grainSize", Maybe(&[NotADisk, UnsupportedFeature])),
        ("grainTableSize", Maybe(&[NotADisk, UnsupportedFeature])),
        ("v.magic", Refused(NotADisk)),
        ("v.replay", Refused(NeedsRepair)),
        ("v.", Nowhere),
        ("gd[", Local),
        ("gt[", Local),
        ("", Maybe(&[NotADisk, Corrupt])),
    ],
};

impl Format {
    /// The whole image reads as it was made, and every spoilt number leads where the table says.
    fn holds(&self, built: &Built) {
        let file = Holey::new(&built.file);
        let oracle = (self.oracle)(file.clone()).unwrap();
        let tally = check::image(&*(self.open)(&file).unwrap(), &*oracle);
        assert_eq!(tally.failed, 0, "an image without faults");
        oracle_sees(&*oracle, &built.content);
        let mut complaints = Vec::new();
        for field in &built.fields {
            let (_, leads) =
                self.table.iter().find(|(start, _)| field.name.starts_with(start)).expect("in the table");
            for value in images::nasty_values(built.value(field), field.width) {
                let result = std::panic::catch_unwind(|| self.spoilt(built, field, value, *leads, tally));
                if let Err(cause) = result {
                    let text = said(&*cause);
                    complaints.push(format!("{} = {value:#x}: {text}", field.name));
                }
            }
        }
        assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    }

    fn spoilt(&self, built: &Built, field: &Field, value: u64, leads: Leads, sound: Tally) {
        let file = Holey::new(&built.with(field, value));
        let ((), cost) = measured(|| self.leads(&file, leads, sound));
        assert!(cost.time < Duration::from_secs(5), "takes {:?}", cost.time);
        assert!(cost.memory < 48 << 20, "holds {} MiB at once", cost.memory >> 20);
        assert!(file.bytes_read() < 256 << 20, "reads {} MiB", file.bytes_read() >> 20);
    }

    fn leads(&self, file: &Arc<Holey>, leads: Leads, sound: Tally) {
        let opened = (self.open)(file);
        let oracle = (self.oracle)(file.clone());
        let image = match (opened, leads) {
            (Err(e), Refused(kind)) => return assert_eq!(e.kind(), kind, "{e}"),
            (Err(e), Maybe(kinds)) => return assert!(kinds.contains(&e.kind()), "unexpected kind: {e:?}"),
            (Err(e), _) => panic!("does not open: {e:?}"),
            (Ok(_), Refused(kind)) => panic!("opens, should be refused as {kind:?}"),
            (Ok(image), _) => image,
        };
        let oracle = oracle.unwrap_or_else(|reason| panic!("opens, although it has {reason}"));
        let tally = check::image(&*image, &*oracle);
        match leads {
            Nowhere => assert_eq!(tally, sound, "reads other than before"),
            Local => assert_eq!(tally.failed, check::faults(&*oracle), "sectors fail that could be read"),
            _ => {}
        }
        kinds_of_faults(&*image, &*oracle);
    }
}

/// The second reader sees what the builder wrote: it has to be right itself.
fn oracle_sees(oracle: &dyn Oracle, content: &[u8]) {
    for lba in check::windows(oracle).into_iter().flatten() {
        let want = &content[lba as usize * 512..][..512];
        match oracle.sector(lba) {
            Want::Bytes(got) => assert!(got == want, "the second reader is wrong about sector {lba}"),
            Want::Zero | Want::Parent => assert!(want.iter().all(|b| *b == 0), "sector {lba} is not seen"),
            Want::Fault => panic!("the second reader cannot read sector {lba}"),
        }
    }
}

/// A fault in a table or grain is reported as damage, not as something a caller would try again.
fn kinds_of_faults(image: &dyn Image, oracle: &dyn Oracle) {
    for lba in check::windows(oracle).into_iter().flatten() {
        let mut sector = [0; 512];
        let error = match image.map(lba * 512, 512) {
            Err(e) => e,
            Ok((vixDiskLib::format::Mapping::Packed, _)) => match image.read_packed(lba * 512, &mut sector) {
                Err(e) => e,
                Ok(()) => continue,
            },
            Ok(_) => continue,
        };
        assert!([Corrupt, EndOfFile].contains(&error.kind()), "sector {lba}: {error:?}");
        return;
    }
}

#[test]
fn hosted_sparse() {
    SPARSE.holds(&images::sparse(&SparseSpec::tiny()));
}

#[test]
fn hosted_sparse_with_two_tables_and_zero_grains() {
    SPARSE.holds(&images::sparse(&SparseSpec::two_tables()));
}

#[test]
fn stream_optimised_with_a_footer() {
    STREAM.holds(&images::stream(StreamLayout::Footer));
}

#[test]
fn stream_optimised_with_tables_in_front() {
    STREAM.holds(&images::stream(StreamLayout::InFront));
}

#[test]
fn writing_to_a_spoilt_extent_is_refused_or_stays_where_it_belongs() {
    for spec in [SparseSpec::tiny(), SparseSpec::two_tables()] {
        let built = images::sparse(&spec);
        for field in &built.fields {
            for value in images::nasty_values(built.value(field), field.width) {
                let spoilt = built.with(field, value);
                let result = std::panic::catch_unwind(|| fuzz_bodies::sparse::sparse(&spoilt));
                assert!(result.is_ok(), "{} = {value:#x}", field.name);
            }
        }
    }
}

#[test]
fn cowd() {
    COWD.holds(&images::cowd());
}

#[test]
fn sesparse() {
    SESPARSE.holds(&images::sesparse());
}

#[test]
fn a_file_cut_anywhere_reads_right_or_fails() {
    let formats = [
        (SPARSE, images::sparse(&SparseSpec::tiny())),
        (STREAM, images::stream(StreamLayout::Footer)),
        (STREAM, images::stream(StreamLayout::InFront)),
        (COWD, images::cowd()),
        (SESPARSE, images::sesparse()),
    ];
    for (format, built) in formats {
        let step = (built.file.len() / 400).max(1);
        for len in (0..built.file.len()).step_by(step).chain((0..8192).step_by(512)) {
            let file = Holey::new(&built.file[..len.min(built.file.len())]);
            if let Ok(image) = (format.open)(&file) {
                let oracle = (format.oracle)(file)
                    .unwrap_or_else(|reason| panic!("cut at {len}: opens with {reason}"));
                check::image(&*image, &*oracle);
            }
        }
    }
}
