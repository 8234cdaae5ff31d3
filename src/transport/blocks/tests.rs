use super::*;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::storage::Identity;

/// A server in memory that notes what it was asked.
#[derive(Debug)]
struct Peer {
    bytes: Mutex<Vec<u8>>,
    said: Mutex<Vec<String>>,
    /// What the server makes of a question for what is allocated.
    tells: fn() -> Result<bool>,
    can_zero: bool,
}

impl Peer {
    fn new(len: usize) -> Self {
        Self { bytes: Mutex::new(vec![7; len]), said: Mutex::default(), tells: || Ok(true), can_zero: true }
    }

    fn note(&self, what: String) {
        self.said.lock().push(what);
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut *self.said.lock())
    }
}

impl Blocks for Peer {
    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.note(format!("read {} at {offset}", buf.len()));
        let bytes = self.bytes.lock();
        buf.copy_from_slice(&bytes[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
    fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.note(format!("write {} at {offset}", buf.len()));
        self.bytes.lock()[offset as usize..offset as usize + buf.len()].copy_from_slice(buf);
        Ok(())
    }
    fn zero(&self, range: Range<u64>) -> Result<bool> {
        self.note(format!("zero {range:?}"));
        if self.can_zero {
            self.bytes.lock()[range.start as usize..range.end as usize].fill(0);
        }
        Ok(self.can_zero)
    }
    fn flush(&self) -> Result<()> {
        self.note("flush".to_owned());
        Ok(())
    }
    fn allocation(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Reads)) -> Result<bool> {
        self.note(format!("allocation {range:?}"));
        let tells = (self.tells)()?;
        if tells {
            let middle = range.start.midpoint(range.end);
            sink(range.start..middle, Reads::Zeros);
            sink(middle..range.end, Reads::Anything);
        }
        Ok(tells)
    }
    fn start(&self, mut transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        self.note(format!("start {} at {offset}", transfer.len()));
        let result = match &mut transfer {
            Transfer::Write(buf) => self.write(buf, offset),
            Transfer::Read(buf) => self.read(buf, offset),
            Transfer::ReadOwned(buf) => self.read(buf, offset),
        };
        finish(transfer, result);
        None
    }
}

fn export(peer: Peer, write: bool) -> (Arc<Peer>, Arc<BlockStorage>) {
    let peer = Arc::new(peer);
    let export = BlockStorage::new(peer.clone(), "nbd://x/".to_owned(), write, Log::none()).unwrap();
    (peer, Arc::new(export))
}

fn leaked(byte: u8, len: usize) -> &'static mut [u8] {
    Vec::leak(vec![byte; len])
}

#[test]
fn the_rest_of_the_last_sector_reads_as_zeros() {
    let (peer, export) = export(Peer::new(1000), false);
    assert_eq!(export.size().unwrap(), 1024);
    let mut buf = [1; 1024];
    export.read_at(&mut buf, 0).unwrap();
    assert!(buf[..1000] == [7; 1000] && buf[1000..] == [0; 24]);
    export.read_at(&mut buf[..512], 512).unwrap();
    assert_eq!(peer.said(), ["read 1000 at 0", "read 488 at 512"]);
    assert_eq!(export.read_at(&mut buf, 512).unwrap_err().kind(), ErrorKind::EndOfFile);
    assert_eq!(export.read_at(&mut buf, u64::MAX).unwrap_err().kind(), ErrorKind::EndOfFile);
}

#[test]
fn the_last_sector_is_not_written_when_it_is_not_whole() {
    let (peer, export) = export(Peer::new(1000), true);
    export.write_at(&[1; 512], 0).unwrap();
    let refused = export.write_at(&[1; 1024], 0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotSupported);
    assert!(refused.to_string().contains("byte 1000"), "{refused}");
    assert_eq!(peer.said(), ["write 512 at 0"]);
    assert!(export.zero(512..1024).unwrap());
    assert_eq!(peer.said(), ["zero 512..1000"]);
}

#[test]
fn large_writes_of_zeros_are_said_and_not_sent() {
    let (peer, export) = export(Peer::new(1 << 20), true);
    export.write_at(&vec![0; 65536], 512).unwrap();
    export.write_at(&vec![0; 65024], 512).unwrap();
    let mut nearly = vec![0; 65536];
    nearly[65535] = 1;
    export.write_at(&nearly, 0).unwrap();
    assert_eq!(peer.said(), ["zero 512..66048", "write 65024 at 512", "write 65536 at 0"]);
}

#[test]
fn a_server_that_is_slow_at_zeros_is_asked_once() {
    let (peer, export) = export(Peer { can_zero: false, ..Peer::new(1 << 20) }, true);
    (0..2).for_each(|_| export.write_at(&vec![0; 65536], 0).unwrap());
    assert_eq!(peer.said(), ["zero 0..65536", "write 65536 at 0", "write 65536 at 0"]);
}

#[test]
fn a_disk_has_its_transfers_started_by_the_storage() {
    let (peer, export) = export(Peer::new(100_000), true);
    let disk = Disk::raw(export, true, Identity(0, 0)).unwrap();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let finish = || -> Finish {
        let ended = ended.clone();
        Box::new(move |transfer, result| ended.lock().push((transfer.len(), result.map_err(|e| e.kind()))))
    };
    assert!(disk.start(Transfer::Read(leaked(0, 512)), 1024, finish()).is_none());
    assert!(disk.start(Transfer::Write(leaked(1, 512)), 2048, finish()).is_none());
    assert!(disk.start(Transfer::Write(&[]), 0, finish()).is_none());
    assert_eq!(
        peer.said(),
        ["start 512 at 1024", "read 512 at 1024", "start 512 at 2048", "write 512 at 2048"]
    );
    assert_eq!(*ended.lock(), [(512, Ok(())), (512, Ok(())), (0, Ok(()))]);
    // The sector that is not whole, and zeros, are done by a thread that waits.
    assert!(disk.start(Transfer::Read(leaked(0, 512)), 99_840, finish()).is_some());
    assert!(disk.start(Transfer::Write(leaked(0, 65536)), 0, finish()).is_some());
    assert_eq!(peer.said(), Vec::<String>::new());
}

#[test]
fn a_read_only_disk_starts_no_writes() {
    let (peer, export) = export(Peer::new(1024), false);
    let disk = Disk::raw(export, false, Identity(0, 0)).unwrap();
    let ended = Arc::new(Mutex::new(None));
    let told = ended.clone();
    let finish: Finish = Box::new(move |_, result| *told.lock() = Some(result.map_err(|e| e.kind())));
    assert!(disk.start(Transfer::Write(leaked(1, 512)), 0, finish).is_none());
    assert_eq!(ended.lock().take(), Some(Err(ErrorKind::ReadOnly)));
    assert_eq!(peer.said(), Vec::<String>::new());
}

fn allocated(export: &BlockStorage) -> Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    export.allocated(0..export.size().unwrap(), &mut |part| found.push(part)).map(|()| found)
}

#[test]
fn what_does_not_read_as_zeros_is_allocated() {
    let (peer, export) = export(Peer::new(1 << 20), false);
    assert_eq!(allocated(&export).unwrap(), [1 << 19..1 << 20]);
    assert_eq!(allocated(&export).unwrap(), [1 << 19..1 << 20]);
    assert_eq!(peer.said().len(), 1, "the answer is remembered");
}

#[test]
fn a_disk_that_is_written_to_is_asked_each_time() {
    let (peer, export) = export(Peer::new(1 << 20), true);
    (0..2).for_each(|_| drop(allocated(&export).unwrap()));
    assert_eq!(peer.said().len(), 2);
}

#[test]
fn a_server_that_cannot_tell_makes_everything_allocated() {
    let all = [0..1000];
    let (peer, silent) = export(Peer { tells: || Ok(false), ..Peer::new(1000) }, true);
    (0..2).for_each(|_| assert_eq!(allocated(&silent).unwrap(), all));
    assert_eq!(peer.said().len(), 1);
    let fails = || Err(Error::new(ErrorKind::Io, "EIO"));
    let (_, broken) = export(Peer { tells: fails, ..Peer::new(1000) }, false);
    assert_eq!(allocated(&broken).unwrap(), all);
    let gone = || Err(Error::new(ErrorKind::ConnectionLost, "gone"));
    let (_, lost) = export(Peer { tells: gone, ..Peer::new(1000) }, false);
    assert_eq!(allocated(&lost).unwrap_err().kind(), ErrorKind::ConnectionLost);
}

#[test]
fn impossible_sizes_are_refused() {
    #[derive(Debug)]
    struct Huge(u64, Peer);
    impl Blocks for Huge {
        fn size(&self) -> u64 {
            self.0
        }
        fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            self.1.read(buf, offset)
        }
        fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
            self.1.write(buf, offset)
        }
        fn zero(&self, range: Range<u64>) -> Result<bool> {
            self.1.zero(range)
        }
        fn flush(&self) -> Result<()> {
            self.1.flush()
        }
        fn allocation(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Reads)) -> Result<bool> {
            self.1.allocation(range, sink)
        }
        fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
            self.1.start(transfer, offset, finish)
        }
    }
    for size in [u64::MAX, 1 << 63, i64::MAX as u64] {
        let opened = BlockStorage::new(Arc::new(Huge(size, Peer::new(0))), "x".into(), false, Log::none());
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::UnsupportedFeature, "{size:#x}");
    }
}
