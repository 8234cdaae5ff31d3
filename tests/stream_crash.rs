//! Power cuts and failing calls while a streamOptimized disk is written: the file is refused, or it is whole.
#![allow(clippy::unwrap_used, reason = "a test ends where its expectations do")]

mod packed;

use std::sync::Arc;
use std::sync::Mutex;

use packed::Rng;
use packed::content;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::create;
use vixDiskLib::format::create::CreateSpec;
use vixDiskLib::format::create::DiskType;
use vixDiskLib::format::create::NewIdentity;
use vixDiskLib::format::geometry::Adapter;
use vixDiskLib::format::stream::PackOptions;
use vixDiskLib::format::stream::Stream;
use vixDiskLib::format::stream::StreamOptions;
use vixDiskLib::format::stream::StreamSink;
use vixDiskLib::logging::Log;
use vixDiskLib::storage::Storage;
use vixDiskLib::storage::memory::MemoryStorage;
use vixDiskLib::units::Sectors;

const GRAIN: usize = 65536;
const SECTORS: u64 = 2 * 65536 + 300;

/// What was done to a file, in order.
#[derive(Clone, Debug)]
enum Event {
    Write(u64, Vec<u8>),
    Length(u64),
    Flush,
}

/// A file that notes what is done to it, and whose `fails`-th change is refused.
#[derive(Debug)]
struct Noted {
    inner: MemoryStorage,
    events: Mutex<Vec<Event>>,
    fails: Option<usize>,
}

impl Noted {
    fn new(bytes: Vec<u8>, fails: Option<usize>) -> Arc<Noted> {
        Arc::new(Noted { inner: MemoryStorage::new("noted", bytes), events: Mutex::default(), fails })
    }

    fn note(&self, event: Event) -> Result<()> {
        let mut events = self.events.lock().unwrap();
        events.push(event);
        match self.fails == Some(events.len() - 1) {
            true => Err(Error::new(ErrorKind::DiskFull, "as it was asked for")),
            false => Ok(()),
        }
    }
}

impl Storage for Noted {
    fn size(&self) -> Result<u64> {
        self.inner.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.note(Event::Write(offset, buf.to_vec()))?;
        self.inner.write_at(buf, offset)
    }
    fn flush(&self) -> Result<()> {
        self.note(Event::Flush)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.note(Event::Length(len))?;
        self.inner.set_len(len)
    }
    fn label(&self) -> String {
        "noted".into()
    }
}

fn new_file() -> Vec<u8> {
    let spec = CreateSpec {
        disk_type: DiskType::StreamOptimized,
        adapter: Adapter::LsiLogic,
        hardware_version: 13,
        capacity: Sectors(SECTORS),
        logical_sector_size: 512,
        physical_sector_size: 512,
    };
    let layout = create::layout(&spec, "d.vmdk", &NewIdentity::from_random(&[7; 28])).unwrap();
    let file = &layout.files[0];
    let mut bytes = vec![0; file.len as usize];
    file.pieces
        .iter()
        .for_each(|piece| bytes[piece.offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes));
    bytes
}

fn open(bytes: Vec<u8>) -> Result<Stream> {
    let options = StreamOptions { cache_bytes: 0, log: Log::none(), name: "d.vmdk".into() };
    Stream::open(Arc::new(MemoryStorage::new("d.vmdk", bytes)), &options)
}

/// The grains that the tests write.
fn data() -> Vec<(u64, Vec<u8>)> {
    let mut rng = Rng(5);
    [0, 1, 3, 4, 5, 6, 9, 511, 512, 1024]
        .map(|grain| {
            (grain, (0..GRAIN).map(|i| if i % 3 == 0 { rng.next() as u8 | 1 } else { b' ' }).collect())
        })
        .into()
}

fn expected() -> Vec<u8> {
    let mut all = vec![0; SECTORS as usize * 512];
    for (grain, bytes) in data() {
        let at = grain as usize * GRAIN;
        let len = GRAIN.min(all.len() - at);
        all[at..at + len].copy_from_slice(&bytes[..len]);
    }
    all
}

/// Writes the grains and finishes; the first error ends writing but not the end itself, as when a program closes the disk.
fn write(file: &Arc<Noted>) -> Result<()> {
    let stream = open(file.inner.snapshot())?;
    let sink = StreamSink::open(file.clone(), &stream, PackOptions::without_threads(1), "d.vmdk")?;
    let written = (|| {
        sink.begin_writing()?;
        for (grain, bytes) in data() {
            let len = bytes.len().min(SECTORS as usize * 512 - grain as usize * GRAIN);
            let offset = grain * GRAIN as u64;
            let pending = sink.prepare(offset, len as u64)?.unwrap();
            pending.storage.write_at(&bytes[..len], pending.offset)?;
            sink.commit(pending, false)?;
        }
        Ok(())
    })();
    let finished = sink.finish();
    written.and(finished)
}

#[test]
fn a_power_cut_at_any_moment_leaves_a_file_that_is_refused_or_whole() {
    let file = Noted::new(new_file(), None);
    write(&file).unwrap();
    let events = file.events.lock().unwrap().clone();
    let (zeros, whole) = (vec![0; SECTORS as usize * 512], expected());
    let mut rng = Rng(99);
    let (mut refused, mut complete) = (0, 0);
    for cut in 0..=events.len() {
        for attempt in 0..4 {
            // What was flushed is there; of what came after it, all or any part.
            let stable = events[..cut].iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
            let mut bytes = new_file();
            for (i, event) in events[..cut].iter().enumerate() {
                if attempt > 0 && i > stable && rng.next().is_multiple_of(2) {
                    continue;
                }
                match event {
                    Event::Write(offset, data) => {
                        let end = *offset as usize + data.len();
                        bytes.resize(bytes.len().max(end), 0);
                        bytes[*offset as usize..end].copy_from_slice(data);
                    }
                    Event::Length(len) => bytes.resize(*len as usize, 0),
                    Event::Flush => {}
                }
            }
            match open(bytes) {
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::NotADisk, "{e}");
                    refused += 1;
                }
                Ok(stream) => {
                    let seen = content(&[&stream], 1 << 20);
                    assert!(seen == whole || (cut < 3 && seen == zeros), "cut {cut} of {}", events.len());
                    complete += usize::from(seen == whole);
                }
            }
        }
    }
    assert!(refused > 20 && complete > 0, "{refused} refused, {complete} complete");
}

#[test]
fn a_failing_call_is_reported_and_leaves_no_file_that_lies() {
    let whole = expected();
    let total = {
        let file = Noted::new(new_file(), None);
        write(&file).unwrap();
        file.events.lock().unwrap().len()
    };
    for fails in 0..total {
        let file = Noted::new(new_file(), Some(fails));
        let error = write(&file).expect_err("the failure is told");
        assert!(matches!(error.kind(), ErrorKind::DiskFull | ErrorKind::Io), "{fails}: {error}");
        match open(file.inner.snapshot()) {
            Err(e) => assert_eq!(e.kind(), ErrorKind::NotADisk, "{fails}: {e}"),
            Ok(stream) => {
                let seen = content(&[&stream], 1 << 20);
                // Only the first change and the last flush find a file that can be opened.
                assert!(seen == whole && fails == total - 1 || fails == 0, "call {fails} of {total}");
            }
        }
    }
}
