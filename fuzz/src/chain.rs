//! Target for whole chains: a folder of files given as bytes, opened through the disk layer.

use std::sync::Arc;

use vixDiskLib::disk::Disk;
use vixDiskLib::disk::open::OpenOptions;
use vixDiskLib::format::stream::PackOptions;
use vixDiskLib::logging::Log;

use super::store::Holey;
use super::store::MemFolder;

/// What separates the files of a folder: this, the name, a line feed, the content.
pub const FILE: &[u8] = b"\n==FILE== ";

/// Bytes of a disk that are read whole.
const WHOLE: u64 = 1 << 20;

/// The files of an input. The first one is opened.
pub fn files(data: &[u8]) -> Vec<(String, &[u8])> {
    let mut parts = Vec::new();
    let mut rest = data;
    while let Some(start) = find(rest, FILE) {
        rest = &rest[start + FILE.len()..];
        let end = find(rest, FILE).unwrap_or(rest.len());
        let line = rest[..end].iter().position(|b| *b == b'\n').unwrap_or(end);
        let name = String::from_utf8_lossy(&rest[..line]).into_owned();
        parts.push((name, rest.get(line + 1..end).unwrap_or(&[])));
        rest = &rest[end..];
        if parts.len() == 12 {
            break;
        }
    }
    parts
}

/// The input for these files.
pub fn join<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    files.into_iter().flat_map(|(name, content)| [FILE, name.as_bytes(), b"\n", content].concat()).collect()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// How the tests open disks.
pub fn options(write: bool) -> OpenOptions {
    let (single_link, direct, log) = (false, false, Log::none());
    let pack = PackOptions::without_threads(1);
    OpenOptions { write, direct, single_link, table_cache: 1 << 18, grain_cache: 1 << 18, pack, log }
}

/// A folder of files: reads agree with each other and with the list of allocated parts; writes stay where they were put.
pub fn chain(data: &[u8]) {
    let parts = files(data);
    let Some((first, _)) = parts.first() else { return };
    let first = first.clone();
    let folder = MemFolder::new(parts.into_iter().map(|(name, content)| (name, Holey::decode(content))));
    let Some(content) = read_whole(&folder, &first) else { return };
    // A repair on opening may change what reads, and a file that stands in several places changes in all of them.
    let needs_repair =
        |file: Arc<Holey>| file.peek(0, 4).is_some_and(|m| m == b"KDMV") && file.peek(72, 1) != Some(vec![0]);
    if folder.has_shared_files() || folder.files().into_iter().any(needs_repair) {
        return;
    }
    if let Ok(disk) = folder.place(&first).and_then(|place| Disk::open(place, &options(true))) {
        write_and_reread(&folder, &first, disk, content);
    }
}

/// The content of the disk up to a limit; sectors that cannot be read are `None`. `None`: does not open.
fn read_whole(folder: &MemFolder, name: &str) -> Option<Vec<Option<[u8; 512]>>> {
    folder.forget_opened();
    let disk = folder.place(name).and_then(|place| Disk::open(place, &options(false))).ok()?;
    assert!(disk.capacity() > 0);
    assert!(disk.links().iter().all(|l| l.capacity() == disk.capacity()), "links of different sizes");
    let len = disk.capacity().min(WHOLE);
    let sectors: Vec<Option<[u8; 512]>> = (0..len / 512)
        .map(|lba| {
            let mut sector = [0x55; 512];
            disk.read(&mut sector, lba * 512).ok().map(|()| sector)
        })
        .collect();
    in_one_go(&disk, &sectors);
    listed(&disk, &sectors, len);
    let mut buf = [0; 512];
    assert!(disk.read(&mut buf, disk.capacity()).is_err(), "reads past the end");
    assert!(disk.read(&mut buf, u64::MAX - 511).is_err(), "reads past 2^64");
    Some(sectors)
}

/// A big read is the same as many small ones, and fails exactly when one of them does.
fn in_one_go(disk: &Disk, sectors: &[Option<[u8; 512]>]) {
    let mut whole = vec![0xaa; sectors.len() * 512];
    match disk.read(&mut whole, 0) {
        Ok(()) => {
            for (lba, (one, many)) in sectors.iter().zip(whole.chunks(512)).enumerate() {
                let Some(one) = one else { panic!("sector {lba} fails alone but not among others") };
                assert!(one == many, "sector {lba} differs between a big read and a small one");
            }
        }
        Err(e) => {
            assert!(sectors.iter().any(Option::is_none), "every sector reads alone, but not together: {e}");
        }
    }
}

/// What is not listed as allocated reads as zeros.
fn listed(disk: &Disk, sectors: &[Option<[u8; 512]>], len: u64) {
    let mut at = 0;
    let mut hidden = Vec::new();
    let done = disk.allocated(0..len, &mut |part| {
        assert!(
            part.start >= at && part.end > part.start && part.end <= len,
            "parts out of order: {part:?} after {at}"
        );
        hidden.push(at..part.start);
        at = part.end;
    });
    if done.is_err() {
        return;
    }
    hidden.push(at..len);
    for lba in hidden.into_iter().flat_map(|h| h.start.div_ceil(512)..h.end / 512) {
        if let Some(Some(sector)) = sectors.get(lba as usize) {
            assert!(sector.iter().all(|b| *b == 0), "sector {lba} holds data but is not listed");
        }
    }
}

/// Writes stamps over some sectors. After closing and opening again, they are there, and all else is as it was.
fn write_and_reread(folder: &MemFolder, name: &str, disk: Disk, mut content: Vec<Option<[u8; 512]>>) {
    let count = content.len() as u64;
    for (first, len) in [(0, 1), (count / 2, 3), (count.saturating_sub(9), 9), (7, 17)] {
        let len = len.min(count.saturating_sub(first));
        let stamp: Vec<u8> = (first..first + len).flat_map(|lba| super::images::pattern(8, lba)).collect();
        let written = disk.write(&stamp, first * 512);
        for (old, new) in content.iter_mut().skip(first as usize).zip(stamp.chunks(512)) {
            *old = written.as_ref().ok().map(|()| new.try_into().unwrap());
        }
    }
    if disk.flush().is_err() | disk.finish().is_err() {
        return;
    }
    drop(disk);
    let again = read_whole(folder, name).expect("opens after writing");
    for (lba, (want, got)) in content.iter().zip(&again).enumerate() {
        if let Some(want) = want {
            assert!(got.as_ref() == Some(want), "sector {lba} changed by writing elsewhere or lost: {got:?}");
        }
    }
}
