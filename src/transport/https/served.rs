//! A disk whose chain is read over HTTPS, for those who want blocks.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::disk::Disk;
use crate::disk::open::OpenOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::os;
use crate::transfer::Finish;
use crate::transfer::Transfer;
use crate::transport::Chain;
use crate::transport::Line;
use crate::transport::Mode;
use crate::transport::blocks::Blocks;
use crate::transport::blocks::Reads;
use crate::transport::https::file::LONGEST;
use crate::transport::https::folder::open_place;
use crate::transport::https::joint::Joint;
use crate::transport::https::lanes;
use crate::transport::https::lanes::Lanes;
use crate::transport::https::path::FilePath;
use crate::transport::https::site::Site;
use crate::units::align_up;

/// A disk. Reads of any length may be under way at once; eight of them, or pieces of a long one, talk to the server at the
/// same time. Dropping it ends what is under way.
#[derive(Debug)]
pub struct ServedDisk {
    inner: Arc<Inner>,
    lanes: Lanes<Job>,
}

#[derive(Debug)]
struct Inner {
    disk: Disk,
    site: Arc<Site>,
    path: FilePath,
}

/// What a thread can be told to do.
enum Job {
    /// A read.
    Whole(Transfer, u64, Finish),
    /// To take part in a long one.
    Help(Arc<Joint>),
    /// To find out whether the server is there.
    Probe(Box<dyn FnOnce() + Send>),
}

/// Longer reads are done in pieces, at least this long, by several threads.
const WORTH_SHARING: usize = 512 << 10;
const SHORTEST_PIECE: u64 = 256 << 10;
/// Pieces end at multiples of this, as grains and windows do.
const ALIGNED: u64 = 64 << 10;
/// How long threads of a closed disk are waited for. One that is connecting at that moment ends by itself.
const LAST_STEPS: Duration = Duration::from_millis(200);

impl ServedDisk {
    /// Opens the disk whose descriptor is at `path`, with its whole chain.
    pub fn open(site: Arc<Site>, path: FilePath, options: &OpenOptions) -> Result<ServedDisk> {
        let opened = open_place(&site, path.clone()).and_then(|place| Disk::open(place, options));
        let disk = opened.inspect_err(|_| site.end())?;
        let inner = Arc::new(Inner { disk, site, path });
        let theirs = Arc::clone(&inner);
        Ok(ServedDisk { inner, lanes: Lanes::new(move |job| theirs.work(job)) })
    }

    /// The links below the opened one.
    pub fn chain(&self) -> Chain {
        let links = self.inner.disk.links();
        let parent = links.get(1).map(|link| link.label().to_owned());
        Chain { links: u32::try_from(links.len()).unwrap_or(u32::MAX), parent }
    }

    /// The pairs of its database: those of the opened link, and of its parents what that has not.
    pub fn database(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (i, link) in self.inner.disk.links().iter().enumerate() {
            link.with_descriptor(|descriptor| {
                for key in descriptor.ddb_keys() {
                    let is_known = all.iter().any(|(known, _)| known.eq_ignore_ascii_case(key));
                    // What is in a parent is not what is in the disk.
                    let is_foreign = i > 0 && key.eq_ignore_ascii_case("longContentID");
                    if let (false, false, Some(value)) = (is_known, is_foreign, descriptor.ddb(key)) {
                        all.push((key.to_owned(), value.to_owned()));
                    }
                }
            });
        }
        all
    }

    fn read_in_pieces(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let joint = Arc::new(Joint::collected(offset, buf.len(), piece_of(buf.len())));
        let helpers = joint.pieces().saturating_sub(1).min(lanes::MOST - 1);
        (0..helpers).for_each(|_| drop(self.lanes.submit(Job::Help(Arc::clone(&joint)))));
        joint.collect(buf, &|buf, at| self.inner.read(buf, at))
    }

    fn start_in_pieces(&self, transfer: Transfer, offset: u64, finish: Finish) {
        let piece = piece_of(transfer.len());
        let joint = Arc::new(Joint::asked(transfer, finish, offset, piece));
        let helpers = joint.pieces().min(lanes::MOST);
        let refused =
            (0..helpers).filter(|_| self.lanes.submit(Job::Help(Arc::clone(&joint))).is_some()).count();
        if refused == helpers {
            joint.cancel(self.inner.closing());
        }
    }
}

/// Pieces such that every thread has one, if they are not too short or too long for that.
fn piece_of(len: usize) -> usize {
    let even = (len as u64).div_ceil(lanes::MOST as u64);
    let piece = align_up(even, ALIGNED).unwrap_or(even).clamp(SHORTEST_PIECE, LONGEST as u64);
    usize::try_from(piece).unwrap_or(LONGEST)
}

impl Inner {
    /// A defect of a format must not take the thread along, nor leave a read without its end.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        catch_unwind(AssertUnwindSafe(|| self.disk.read(buf, offset))).unwrap_or_else(|_| {
            let text =
                format!("a defect: reading {} bytes at {offset:#x} of {} failed", buf.len(), self.path);
            Err(Error::new(ErrorKind::Internal, text))
        })
    }

    fn work(&self, job: Job) {
        match job {
            Job::Whole(mut transfer, offset, finish) => {
                let result = match transfer.to_fill() {
                    Some(buf) => self.read(buf, offset),
                    None => Err(self.read_only()),
                };
                finish(transfer, result);
            }
            Job::Help(joint) => joint.help(&|buf, at| self.read(buf, at)),
            Job::Probe(answered) => {
                if self.site.length(&self.path).is_ok() {
                    answered();
                }
            }
        }
    }

    fn closing(&self) -> Error {
        Error::new(ErrorKind::Cancelled, format!("{} is being closed", self.path))
    }

    fn read_only(&self) -> Error {
        Error::new(ErrorKind::ReadOnly, format!("{} is read over HTTPS and cannot be written to", self.path))
    }
}

impl Blocks for ServedDisk {
    fn size(&self) -> u64 {
        self.inner.disk.capacity()
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match buf.len() < WORTH_SHARING {
            true => self.inner.read(buf, offset),
            false => self.read_in_pieces(buf, offset),
        }
    }

    fn write(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        Err(self.inner.read_only())
    }

    fn zero(&self, _range: Range<u64>) -> Result<bool> {
        Err(self.inner.read_only())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// The tables of deltas tell; of a flat file everything may hold data.
    fn allocation(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Reads)) -> Result<bool> {
        let mut at = range.start;
        self.inner.disk.allocated(range.clone(), &mut |part| {
            if at < part.start {
                sink(at..part.start, Reads::Zeros);
            }
            at = at.max(part.end);
            sink(part, Reads::Anything);
        })?;
        if at < range.end {
            sink(at..range.end, Reads::Zeros);
        }
        Ok(true)
    }

    fn start(&self, transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        if matches!(transfer, Transfer::Write(_)) {
            return Some((transfer, finish));
        }
        if transfer.len() > LONGEST {
            self.start_in_pieces(transfer, offset, finish);
            return None;
        }
        match self.lanes.submit(Job::Whole(transfer, offset, finish)) {
            Some(Job::Whole(transfer, _, finish)) => Some((transfer, finish)),
            _ => None,
        }
    }
}

impl Line for ServedDisk {
    fn mode(&self) -> Mode {
        Mode::Https
    }

    fn cut(&self) {
        self.inner.site.end();
        for job in self.lanes.end() {
            match job {
                Job::Whole(transfer, _, finish) => finish(transfer, Err(self.inner.closing())),
                Job::Help(joint) => joint.cancel(self.inner.closing()),
                Job::Probe(_) => {}
            }
        }
        if !self.lanes.join_until(Instant::now() + LAST_STEPS) {
            os::stay_loaded();
        }
    }

    fn probe(&self, answered: Box<dyn FnOnce() + Send>) {
        drop(self.lanes.submit(Job::Probe(answered)));
    }
}

impl Drop for ServedDisk {
    fn drop(&mut self) {
        self.cut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_neither_too_short_nor_too_long() {
        let kib = 1 << 10;
        for (len, piece) in
            [(512 * kib, 256 * kib), (4096 * kib, 512 * kib), (4097 * kib, 576 * kib), (64 << 20, LONGEST)]
        {
            assert_eq!(piece_of(len), piece, "{len}");
        }
    }
}
