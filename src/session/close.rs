//! The end of open disks. What is under way is finished and what was written is made stable first.
//!
//! A disk of a peer that has fallen silent must not hold its caller: while the end waits for the peer, the peer is asked for
//! signs of life, and when there are none the connection is cut: what was not confirmed makes the end an error. A peer that is
//! only slow, and still answers, gets its time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::engine::pool::is_completing;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::os;
use crate::session::open_disk::Files;
use crate::session::open_disk::OpenDisk;
use crate::session::open_disk::Peer;
use crate::session::open_disk::Site;
use crate::threads::Threads;
use crate::transport::Line;
use crate::transport::vsphere::sessions::Lease;

/// A peer that is silent for as long is taken for dead. With the cut itself, the end stays within two seconds.
const SILENCE: Duration = Duration::from_millis(1500);
/// How often a look is taken at the signs of life.
const LOOK: Duration = Duration::from_millis(100);

impl OpenDisk {
    /// Refuses with `Busy` where closing would wait for the caller itself, or for a long operation on the disk.
    pub fn check_closable(&self) -> Result<()> {
        if is_completing() && self.inflight.inside() > 0 {
            return Err(Error::new(ErrorKind::Busy, "closing inside a completion would wait for itself"));
        }
        if self.calls.is_paused() {
            return Err(self.busy());
        }
        Ok(())
    }

    /// Lets no call in any more.
    fn refuse_calls(&self) -> Result<()> {
        self.check_closable()?;
        if !self.calls.close() {
            return Err(Error::new(ErrorKind::InvalidHandle, format!("{} is closed", self.label())));
        }
        Ok(())
    }

    /// Lets no call in any more and waits for those inside and for requests.
    pub(super) fn stop_calls(&self) -> Result<()> {
        self.refuse_calls()?;
        self.calls.wait_until_empty();
        self.inflight.wait_until_empty();
        Ok(())
    }

    /// Completes what is in flight, makes written data durable and releases locks. Closing twice is `InvalidHandle`,
    /// closing inside a completion of this disk `Busy`. The disk is closed also when this fails.
    pub fn close(&self) -> Result<()> {
        self.refuse_calls()?;
        let result = match self.site() {
            Site::Local(files) => self.leave(files),
            Site::Remote(peer) => self.part(&peer.line),
        };
        self.library().log().debug(|| format!("VixDiskLib: closed {}", self.label()));
        result.context(|| format!("closing {}", self.label()))
    }

    /// The same for a local disk that lets no call in any more. It may stand on disks of peers.
    fn leave(&self, files: &Files) -> Result<()> {
        let under = std::mem::take(&mut *self.under.lock());
        let watches: Vec<Watch> = under.iter().map(|peer| Watch::new(&peer.line)).collect();
        for gate in [&self.calls, &self.inflight] {
            watches.iter().for_each(|watch| watch.wait(&mut |time| gate.wait_until_empty_for(time)));
            gate.wait_until_empty();
        }
        let result = self.end(files);
        under.iter().for_each(|peer| peer.line.cut());
        result
    }

    /// Ends it as a disk of its own, but not the connections that its content comes over: they are given to who goes on.
    pub(super) fn lend(&self) -> Result<Vec<Peer>> {
        self.refuse_calls()?;
        match self.site() {
            Site::Local(files) => {
                self.calls.wait_until_empty();
                self.inflight.wait_until_empty();
                self.end(files)?;
                Ok(std::mem::take(&mut self.under.lock()))
            }
            Site::Remote(peer) => {
                self.settle(&Watch::new(&peer.line)).inspect_err(|_| peer.line.cut())?;
                Ok(vec![peer.clone()])
            }
        }
    }

    /// What remains to be done for a local disk when nobody is inside any more.
    pub(super) fn end(&self, files: &Files) -> Result<()> {
        let result = self.disk().finish();
        files.folder.release();
        if let Some(lock) = files.lock.lock().take() {
            lock.release();
        }
        result
    }

    /// The same for a remote disk that lets no call in any more.
    fn part(&self, line: &Arc<dyn Line>) -> Result<()> {
        let watch = Watch::new(line);
        let result = self.settle(&watch);
        line.cut();
        match watch.was_cut() {
            true => result.context(|| format!("the peer was silent for {} ms", SILENCE.as_millis())),
            false => result,
        }
    }

    /// Waits for what is under way, and makes what was written stable.
    fn settle(&self, watch: &Watch) -> Result<()> {
        watch.wait(&mut |time| self.calls.wait_until_empty_for(time));
        watch.wait(&mut |time| self.inflight.wait_until_empty_for(time));
        match self.disk().is_changed() {
            true => self.finish_watched(watch),
            false => Ok(()),
        }
    }

    /// Makes what was written stable, on a thread of its own so that this one can watch the peer.
    fn finish_watched(&self, watch: &Watch) -> Result<()> {
        let threads = Threads::new(os::with_signals_blocked);
        let (done, finished) = mpsc::channel();
        let disk = self.shared_disk().clone();
        threads.spawn("vix-close", move || drop(done.send(disk.finish())))?;
        let mut result = Err(Error::new(ErrorKind::Internal, "a defect: the end of writing was not told"));
        watch.wait(&mut |time| match finished.recv_timeout(time) {
            Ok(finished) => {
                result = finished;
                true
            }
            Err(mpsc::RecvTimeoutError::Timeout) => false,
            Err(mpsc::RecvTimeoutError::Disconnected) => true,
        });
        threads.join_all();
        result
    }
}

impl Drop for OpenDisk {
    /// A disk that nobody closed: what was acknowledged still reaches the file.
    fn drop(&mut self) {
        if !self.calls.close() {
            return;
        }
        let result = match self.site() {
            Site::Local(_) => {
                self.inflight.wait_until_empty();
                let result = self.disk().finish();
                self.under.lock().drain(..).for_each(|peer| peer.line.cut());
                result
            }
            Site::Remote(peer) => self.part(&peer.line),
        };
        if let Err(e) = result {
            self.library().log().warning(|| format!("{} was not closed: {e}", self.label()));
        }
    }
}

/// Closes disks; those of peers side by side, so that silent ones do not add up. The first error is returned, every disk is
/// closed. Disks that are closed already are passed over.
pub(super) fn close_all(disks: &[Arc<OpenDisk>]) -> Result<()> {
    let (remote, local): (Vec<_>, Vec<_>) =
        disks.iter().partition(|disk| matches!(disk.site(), Site::Remote(_)));
    let threads = Threads::new(os::with_signals_blocked);
    let (done, results) = mpsc::channel();
    let mut first = Ok(());
    for disk in remote.iter().skip(1) {
        let (done, side) = (done.clone(), Arc::clone(disk));
        if threads.spawn("vix-close", move || drop(done.send(close_open(&side)))).is_err() {
            first = first.and(close_open(disk));
        }
    }
    drop(done);
    for disk in remote.first().into_iter().chain(&local) {
        first = first.and(close_open(disk));
    }
    for result in results {
        first = first.and(result);
    }
    threads.join_all();
    first
}

/// Ends shares of sessions side by side, by `until`.
pub(super) fn end_all(leases: Vec<Lease>, until: Instant) {
    let threads = Threads::new(os::with_signals_blocked);
    let mut leases = leases.into_iter();
    let first = leases.next();
    for lease in leases {
        let slot = Arc::new(Mutex::new(Some(lease)));
        let theirs = Arc::clone(&slot);
        let end = |slot: &Mutex<Option<Lease>>, until| {
            if let Some(lease) = slot.lock().take() {
                lease.end_by(until);
            }
        };
        if threads.spawn("vix-close", move || end(&theirs, until)).is_err() {
            end(&slot, until);
        }
    }
    if let Some(lease) = first {
        lease.end_by(until);
    }
    threads.join_all();
}

fn close_open(disk: &OpenDisk) -> Result<()> {
    match disk.close() {
        Err(e) if e.kind() == ErrorKind::InvalidHandle => Ok(()), // closed by its owner before
        closed => closed,
    }
}

/// Watches over a peer while something waits for it.
struct Watch {
    line: Arc<dyn Line>,
    signs: Arc<Signs>,
    cut: AtomicBool,
}

/// What is known of the peer. Times are milliseconds since `start`.
struct Signs {
    start: Instant,
    last: AtomicU64,
    /// A question is out.
    asked: AtomicBool,
}

impl Signs {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Watch {
    fn new(line: &Arc<dyn Line>) -> Self {
        let signs = Signs { start: Instant::now(), last: AtomicU64::new(0), asked: AtomicBool::new(false) };
        Self { line: line.clone(), signs: Arc::new(signs), cut: AtomicBool::new(false) }
    }

    /// Waits until `done`, which waits at most as long as it is told and says whether it is so. When the peer falls silent
    /// the line is cut, which ends what it is waited for.
    fn wait(&self, done: &mut dyn FnMut(Duration) -> bool) {
        while !done(LOOK) {
            if !self.was_cut() {
                self.look();
            }
        }
    }

    fn look(&self) {
        let silent_for = self.signs.now().saturating_sub(self.signs.last.load(Ordering::Acquire));
        if u128::from(silent_for) >= SILENCE.as_millis() {
            self.cut.store(true, Ordering::Release);
            self.line.cut();
        } else if !self.signs.asked.swap(true, Ordering::AcqRel) {
            let signs = self.signs.clone();
            self.line.probe(Box::new(move || {
                signs.last.store(signs.now(), Ordering::Release);
                signs.asked.store(false, Ordering::Release);
            }));
        }
    }

    fn was_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}
