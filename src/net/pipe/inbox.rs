//! The receiving end of a connection. Whoever holds it is the only one who receives.
//!
//! Heads and small payloads go through a staging buffer, large payloads straight to where they belong. A single call
//! receives the rest of a payload and what follows it; where the next reply can be foreseen, head and payload too.

use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::pipe::Protocol;
use crate::net::pipe::progress::Progress;
use crate::net::pipe::protocol;
use crate::net::stream::Patience;
use crate::net::stream::Ready;
use crate::net::stream::Stream;

/// Longest payload that is received in one call with a foreseen head.
pub const MOST_AHEAD: usize = 64 << 10;
/// When payloads are small, more than a head is received behind one.
const TAIL_OF_SMALL: usize = 32 << 10;
/// Holds a head, a foreseen payload that turned out to be something else, and what came behind.
const STAGING: usize = MOST_AHEAD + TAIL_OF_SMALL + 4096;

/// How long the one who receives waits: for the beginning of a reply while the server moves at all, for the rest of it
/// no longer than [`Progress`] allows for silence, however it comes.
struct Waiting {
    progress: Arc<Progress>,
    /// Something came since the last reply was complete.
    partial: bool,
    /// Since when the rest is waited for.
    begun: Option<Instant>,
    /// One small reply is due and nothing else.
    lone: bool,
    /// So many lone replies are slept for without looking first.
    sleeps: u32,
}

impl Waiting {
    fn until(&self, from: Instant) -> Instant {
        self.begun.map_or_else(|| self.progress.until(from), |begun| begun + self.progress.limit())
    }

    fn timeout(&self) -> Error {
        match self.begun {
            None => self.progress.timeout(),
            Some(_) => {
                let limit = self.progress.limit().as_secs_f64();
                Error::new(
                    ErrorKind::TimedOut,
                    format!("the rest of a reply has not come within {limit:.1} s"),
                )
            }
        }
    }
}

/// How long the reply to a lone short read is looked for before the thread sleeps. Falling asleep and waking up takes about
/// as long as a brisk server needs for it.
const LOOK: Duration = Duration::from_micros(30);
/// After looking in vain, so many replies are slept for.
const RARELY: u32 = 32;

/// The receiving end.
pub struct Inbox<P: Protocol> {
    stream: Option<Arc<dyn Stream>>,
    /// What was negotiated.
    pub agreed: P::Agreed,
    /// What the protocol works with.
    pub unpacker: P::Unpacker,
    /// Payloads in flight are small, so that several replies may be received at once.
    greedy: bool,
    waiting: Waiting,
    staging: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<P: Protocol> Inbox<P> {
    /// Of a connection that is not up.
    pub fn new(progress: Arc<Progress>) -> Inbox<P> {
        Inbox {
            stream: None,
            agreed: P::Agreed::default(),
            unpacker: P::Unpacker::default(),
            greedy: false,
            waiting: Waiting { progress, partial: false, begun: None, lone: false, sleeps: RARELY },
            staging: vec![0; STAGING].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    /// The connection is up.
    pub fn connect(&mut self, stream: Arc<dyn Stream>, agreed: P::Agreed) {
        self.disconnect();
        self.stream = Some(stream);
        self.agreed = agreed;
        self.unpacker = P::Unpacker::default();
    }

    /// The connection is gone.
    pub fn disconnect(&mut self) {
        self.stream = None;
        (self.start, self.end) = (0, 0);
        self.reply_ended();
    }

    /// How replies are received: several at once if they are small, and a lone one is looked for before it is slept for.
    pub fn expect_small(&mut self, small: bool, lone: bool) {
        self.greedy = small;
        self.waiting.lone = small && lone;
    }

    /// A reply is complete, the next one has its own time.
    pub fn reply_ended(&mut self) {
        self.waiting.partial = self.start < self.end;
        self.waiting.begun = None;
    }

    /// Nobody receives for a while, and that is not held against the server.
    pub fn rest(&mut self) {
        self.waiting.begun = None;
    }

    /// Bytes that were received and not looked at.
    pub fn staged(&self) -> &[u8] {
        self.staging.get(self.start..self.end).unwrap_or_default()
    }

    /// The first `count` staged bytes were looked at.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Waits until `count` bytes are staged, at most [`STAGING`].
    pub fn stage(&mut self, count: usize) -> Result<()> {
        self.stage_some(count, count)
    }

    /// The same, and takes more if it comes with them, up to `useful` bytes or, when payloads are small, what there is.
    pub fn stage_some(&mut self, count: usize, useful: usize) -> Result<()> {
        if self.start + useful > STAGING {
            self.staging.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < count {
            let stop = if self.greedy { STAGING } else { self.start + useful };
            let Some(free) = self.staging.get_mut(self.end..stop) else {
                return Err(Error::new(ErrorKind::Internal, format!("{count} bytes cannot be staged")));
            };
            self.end += receive(self.stream.as_ref(), &mut self.waiting, &mut [IoSliceMut::new(free)])?;
        }
        Ok(())
    }

    /// With nothing staged: receives a head of `head` bytes into the staging buffer, and what follows it into `ahead`.
    /// Says how much of `ahead` was filled.
    pub fn receive_ahead(&mut self, head: usize, ahead: &mut [u8]) -> Result<usize> {
        let room = head + TAIL_OF_SMALL;
        let Some((first, behind)) = self.staging.get_mut(..room).and_then(|s| s.split_at_mut_checked(head))
        else {
            return Err(Error::new(ErrorKind::Internal, format!("a head of {head} bytes")));
        };
        let mut parts = [IoSliceMut::new(first), IoSliceMut::new(ahead), IoSliceMut::new(behind)];
        let came = receive(self.stream.as_ref(), &mut self.waiting, &mut parts)?;
        let filled = came.saturating_sub(head).min(ahead.len());
        (self.start, self.end) = (0, came - filled);
        Ok(filled)
    }

    /// What was received ahead is not what was foreseen: puts it where it stood in the stream, `head` bytes behind the
    /// beginning of what is staged.
    pub fn put_back(&mut self, head: usize, ahead: &[u8]) -> Result<()> {
        let (from, len) = (self.start + head, ahead.len());
        if ahead.is_empty() {
            return Ok(());
        }
        if from > self.end || self.end + len > STAGING {
            return Err(Error::new(ErrorKind::Internal, format!("{len} bytes cannot be put back")));
        }
        self.staging.copy_within(from..self.end, from + len);
        if let Some(place) = self.staging.get_mut(from..from + len) {
            place.copy_from_slice(ahead);
        }
        self.end += len;
        Ok(())
    }

    /// Fills `into` with what comes next.
    pub fn payload(&mut self, into: &mut [u8]) -> Result<()> {
        let staged = self.staged();
        let (here, mut rest) = into.split_at_mut(staged.len().min(into.len()));
        here.copy_from_slice(staged.get(..here.len()).unwrap_or_default());
        self.consume(here.len());
        while !rest.is_empty() {
            let tail = if self.greedy { TAIL_OF_SMALL } else { P::TAIL };
            let missing = rest.len();
            let tail = self.staging.get_mut(..tail).unwrap_or_default();
            let mut parts = [IoSliceMut::new(rest), IoSliceMut::new(tail)];
            let came = receive(self.stream.as_ref(), &mut self.waiting, &mut parts)?;
            (self.start, self.end) = (0, came.saturating_sub(missing));
            rest = rest.split_at_mut(came.min(missing)).1;
        }
        Ok(())
    }

    /// Waits until something can be received or sent.
    pub fn wait_for_both(&self) -> Result<Ready> {
        let stream = self.stream.as_ref().ok_or_else(not_connected)?;
        let from = Instant::now();
        loop {
            let until = self.waiting.progress.until(from);
            let ready = stream.wait(Ready { recv: true, send: true }, until)?;
            if ready != Ready::default() {
                return Ok(ready);
            }
            if Instant::now() >= self.waiting.progress.until(from) {
                return Err(self.waiting.progress.timeout());
            }
        }
    }
}

/// Looks for a while whether something comes, and lets others run between two looks. It does so where that was of use.
fn look(stream: &Arc<dyn Stream>, sleeps: &mut u32, parts: &mut [IoSliceMut<'_>]) -> Result<Option<usize>> {
    if *sleeps > 0 {
        *sleeps -= 1;
        return Ok(None);
    }
    let until = Instant::now() + LOOK;
    while Instant::now() < until {
        // The end of the stream is for whoever waits in earnest.
        if let Some(came) = stream.recv(parts, Patience::None)?.filter(|came| *came > 0) {
            return Ok(Some(came));
        }
        std::thread::yield_now();
    }
    *sleeps = RARELY;
    Ok(None)
}

/// Receives at least one byte.
fn receive(
    stream: Option<&Arc<dyn Stream>>,
    waiting: &mut Waiting,
    parts: &mut [IoSliceMut<'_>],
) -> Result<usize> {
    let stream = stream.ok_or_else(not_connected)?;
    let from = Instant::now();
    if waiting.partial {
        waiting.begun.get_or_insert(from);
    } else if waiting.lone
        && let Some(came) = look(stream, &mut waiting.sleeps, parts)?
    {
        waiting.partial = true;
        return Ok(came);
    }
    loop {
        let until = waiting.until(from);
        match stream.recv(parts, Patience::Until(until))? {
            Some(0) => {
                let message = format!("{} ended the connection", stream.label());
                return Err(Error::new(ErrorKind::ConnectionLost, message));
            }
            Some(came) if came <= parts.iter().map(|part| part.len()).sum() => {
                waiting.partial = true;
                return Ok(came);
            }
            Some(came) => return Err(protocol(format!("a stream delivered {came} bytes, more than fit"))),
            None if Instant::now() >= waiting.until(from) => return Err(waiting.timeout()),
            None => {}
        }
    }
}

fn not_connected() -> Error {
    Error::new(ErrorKind::ConnectionLost, "the connection is gone")
}
