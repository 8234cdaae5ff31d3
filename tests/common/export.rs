//! An export of an NBD server as a disk of the C interface.
#![allow(unsafe_code)] // asynchronous requests keep buffers beyond the call

use super::model::is_zero;
use super::model::stamps;
use super::scratch;
use super::vix::Completions;
use super::vix::Disk;
use super::vix::Vix;
use super::vix::adapter;
use super::vix::code;

/// Sectors of the exports.
pub const SECTORS: u64 = 65536;

/// Initialises the library with these lines of configuration.
pub fn configured(text: &str) -> &'static Vix {
    let folder = scratch::folder();
    let path = folder.path().join("conf");
    std::fs::write(&path, text).expect("a configuration");
    let vix = Vix::started();
    assert_eq!(vix.init_with(6, 5, Some(&path)), code::OK);
    vix
}

/// What every server and transport must do.
#[track_caller]
pub fn use_as_disk(disk: Disk<'_>, mode: &str) {
    assert_eq!(disk.transport(), mode);
    let info = disk.info();
    assert_eq!((info.capacity, info.links, info.adapter), (SECTORS, 1, adapter::LSILOGIC));
    assert_eq!((info.physical.cylinders, info.physical.heads, info.physical.sectors), (32, 64, 32));
    assert_eq!((info.uuid, info.parent), (None, None));
    assert_eq!(disk.must_read(0, 8), vec![0; 4096]);
    assert_eq!(disk.read_refused(SECTORS - 1, 2), code::OUT_OF_RANGE);
    disk.must_write(7, &stamps(7, 1, 1));
    disk.must_write(1000, &stamps(1000, 6000, 2));
    assert_eq!(disk.flush(), code::OK);
    assert_eq!(disk.must_read(1000, 6000), stamps(1000, 6000, 2));
    write_many(&disk, 20_000, 5000);
    assert_eq!(disk.flush(), code::OK);
    let pieces: Vec<(u64, u64)> = (0..50).map(|n| (20_000 + n * 100, 100)).collect();
    let read = disk.read_many(&pieces, 16, 3).expect("asynchronous reads");
    assert!(read == stamps(20_000, 5000, 3), "asynchronous reads bring what was written");
    disk.must_write(1000, &vec![0; 512 * 2000]);
    assert!(is_zero(&disk.must_read(1000, 2000)) && disk.must_read(3000, 1) == stamps(3000, 1, 2));
    let blocks = disk.allocated_all(128);
    let covered = |sector: u64| blocks.iter().any(|(at, len)| (*at..at + len).contains(&sector));
    assert!(covered(7) && covered(3000) && covered(24_999), "{blocks:?}");
    assert_eq!(disk.wait(), code::OK);
    assert_eq!(disk.close(), code::OK);
}

/// Asynchronous writes of 100 sectors each, many at a time.
fn write_many(disk: &Disk<'_>, start: u64, count: u64) {
    let data = stamps(start, count, 3);
    let completions = Completions::default();
    let pieces = count / 100;
    for (id, piece) in data.chunks(51_200).enumerate() {
        let at = start + id as u64 * 100;
        // SAFETY: buffer and collector live until all have completed.
        let result = unsafe { disk.write_async(at, piece.as_ptr(), 100, id as u64, &completions) };
        assert_eq!(result, code::ASYNC);
    }
    completions.wait_for(pieces as usize);
    assert!(completions.take().iter().all(|(_, result)| *result == code::OK));
}
