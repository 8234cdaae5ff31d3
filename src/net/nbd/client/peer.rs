//! A server in memory: a pipe of bounded size, and words to script what it says.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::BlockSizes;
use crate::net::nbd::Export;
use crate::net::nbd::Replies;
use crate::net::nbd::client::Dialler;
use crate::net::stream::Patience;
use crate::net::stream::Ready;
use crate::net::stream::Stream;

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    bytes: VecDeque<u8>,
    /// Bytes that may still be taken before the connection is cut.
    budget: Option<usize>,
}

#[derive(Debug)]
struct Wire {
    state: Mutex<([Lane; 2], bool)>,
    changed: Condvar,
    room: usize,
}

/// One end of a pipe.
#[derive(Debug)]
pub struct End {
    wire: Arc<Wire>,
    /// The lane it sends on.
    out: usize,
}

/// Both ends. Each direction holds `room` bytes; the connection is cut after `budget` bytes that the server sent.
pub fn pipe(room: usize, budget: Option<usize>) -> (End, End) {
    let mut lanes = [Lane::default(), Lane::default()];
    lanes[1].budget = budget;
    let wire = Arc::new(Wire { state: Mutex::new((lanes, false)), changed: Condvar::new(), room });
    (End { wire: Arc::clone(&wire), out: 0 }, End { wire, out: 1 })
}

impl End {
    fn wait_for<T>(
        &self,
        patience: Patience,
        mut look: impl FnMut(&mut [Lane; 2], bool) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.wire.state.lock();
        loop {
            let (lanes, cut) = &mut *state;
            if let Some(found) = look(lanes, *cut) {
                if lanes.iter().any(|lane| lane.budget == Some(0)) {
                    *cut = true;
                }
                self.wire.changed.notify_all();
                return Some(found);
            }
            match patience {
                Patience::None => return None,
                Patience::Until(until) => {
                    if self.wire.changed.wait_until(&mut state, until).timed_out() {
                        return None;
                    }
                }
            }
        }
    }
}

impl Stream for End {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        let room = self.wire.room;
        let sent = self.wait_for(patience, |lanes, cut| {
            let lane = &mut lanes[self.out];
            let free = room.saturating_sub(lane.bytes.len()).min(lane.budget.unwrap_or(usize::MAX));
            match (cut, free) {
                (true, _) => Some(Err(Error::new(ErrorKind::ConnectionLost, "the pipe was cut"))),
                (false, 0) => None,
                (false, free) => {
                    let before = lane.bytes.len();
                    lane.bytes.extend(parts.iter().flat_map(|part| part.iter()).take(free));
                    let sent = lane.bytes.len() - before;
                    lane.budget = lane.budget.map(|left| left - sent);
                    Some(Ok(sent))
                }
            }
        });
        sent.transpose()
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        let came = self.wait_for(patience, |lanes, cut| {
            let lane = &mut lanes[1 - self.out];
            if lane.bytes.is_empty() {
                return cut.then_some(0);
            }
            let mut came = 0;
            for byte in parts.iter_mut().flat_map(|part| part.iter_mut()) {
                let Some(next) = lane.bytes.pop_front() else { break };
                *byte = next;
                came += 1;
            }
            Some(came)
        });
        Ok(came)
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        let room = self.wire.room;
        let ready = self.wait_for(Patience::Until(until), |lanes, cut| {
            let recv = wanted.recv && (cut || !lanes[1 - self.out].bytes.is_empty());
            let send = wanted.send && (cut || lanes[self.out].bytes.len() < room);
            (recv || send).then_some(Ready { recv, send })
        });
        Ok(ready.unwrap_or_default())
    }

    fn shutdown(&self) {
        self.wire.state.lock().1 = true;
        self.wire.changed.notify_all();
    }

    fn label(&self) -> String {
        String::from("a pipe")
    }
}

/// A request as the server sees it.
#[derive(Debug)]
pub struct Asked {
    pub flags: u16,
    pub verb: u16,
    pub cookie: u64,
    pub offset: u64,
    pub len: u64,
    pub data: Vec<u8>,
}

/// The server's end. Every word ends the script when the client is gone.
pub struct Peer {
    end: End,
    pub replies: Replies,
}

/// The client is gone.
#[derive(Debug)]
pub struct Gone;

impl Peer {
    pub fn take(&self, count: usize) -> Result<Vec<u8>, Gone> {
        let mut bytes = vec![0; count];
        let mut came = 0;
        while came < count {
            let far = Instant::now() + std::time::Duration::from_secs(30);
            match self.end.recv(&mut [IoSliceMut::new(&mut bytes[came..])], Patience::Until(far)) {
                Ok(Some(n)) if n > 0 => came += n,
                _ => return Err(Gone),
            }
        }
        Ok(bytes)
    }

    pub fn say(&self, bytes: &[u8]) -> Result<(), Gone> {
        let mut sent = 0;
        while sent < bytes.len() {
            let far = Instant::now() + std::time::Duration::from_secs(30);
            match self.end.send(&[IoSlice::new(&bytes[sent..])], Patience::Until(far)) {
                Ok(Some(n)) => sent += n,
                _ => return Err(Gone),
            }
        }
        Ok(())
    }

    pub fn asked(&self) -> Result<Asked, Gone> {
        let extended = self.replies == Replies::Extended;
        let head = self.take(if extended { 32 } else { 28 })?;
        let number =
            |at: usize, len: usize| head[at..at + len].iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
        let (flags, verb) = (number(4, 2) as u16, number(6, 2) as u16);
        let len = if extended { number(24, 8) } else { number(24, 4) };
        assert_eq!(number(0, 4), if extended { 0x21e4_1c71 } else { 0x2560_9513 });
        let data = if verb == 1 { self.take(len as usize)? } else { Vec::new() };
        Ok(Asked { flags, verb, cookie: number(8, 8), offset: number(16, 8), len, data })
    }

    pub fn simple(&self, cookie: u64, errno: u32, data: &[u8]) -> Result<(), Gone> {
        let mut bytes = 0x6744_6698_u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&errno.to_be_bytes());
        bytes.extend_from_slice(&cookie.to_be_bytes());
        bytes.extend_from_slice(data);
        self.say(&bytes)
    }

    pub fn chunk(&self, flags: u16, kind: u16, cookie: u64, payload: &[u8]) -> Result<(), Gone> {
        let extended = self.replies == Replies::Extended;
        let magic = if extended { 0x6e8a_278c_u32 } else { 0x668e_33ef };
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&cookie.to_be_bytes());
        if extended {
            bytes.extend_from_slice(&0_u64.to_be_bytes());
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        } else {
            bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        }
        bytes.extend_from_slice(payload);
        self.say(&bytes)
    }

    pub fn data(&self, flags: u16, cookie: u64, offset: u64, data: &[u8]) -> Result<(), Gone> {
        let mut payload = offset.to_be_bytes().to_vec();
        payload.extend_from_slice(data);
        self.chunk(flags, 1, cookie, &payload)
    }

    pub fn hole(&self, flags: u16, cookie: u64, offset: u64, len: u32) -> Result<(), Gone> {
        let mut payload = offset.to_be_bytes().to_vec();
        payload.extend_from_slice(&len.to_be_bytes());
        self.chunk(flags, 2, cookie, &payload)
    }

    /// Waits until the client is gone.
    pub fn silence(&self) {
        while self.take(1).is_ok() {}
    }
}

/// What a server does on one connection.
pub type Script = Box<dyn FnOnce(&Peer) -> Result<(), Gone> + Send>;

/// Servers that come one after the other; later connections are refused.
pub struct Servers {
    pub scripts: Mutex<VecDeque<(Script, Option<usize>)>>,
    pub export: Mutex<Export>,
    pub room: usize,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Servers")
    }
}

impl Dialler for Arc<Servers> {
    fn dial(&self, _until: Instant) -> Result<(Box<dyn Stream>, Export)> {
        let Some((script, budget)) = self.scripts.lock().pop_front() else {
            return Err(Error::new(ErrorKind::ConnectionRefused, "nobody listens"));
        };
        let export = self.export.lock().clone();
        let (ours, theirs) = pipe(self.room, budget);
        let peer = Peer { end: theirs, replies: export.replies };
        std::thread::spawn(move || {
            let _ = script(&peer); // Gone: the client left
            peer.end.shutdown();
        });
        Ok((Box::new(ours), export))
    }

    fn label(&self) -> String {
        String::from("test export")
    }
}

/// An export of 1 MiB with every ability.
pub fn export(replies: Replies) -> Export {
    Export {
        size: 1 << 20,
        flags: 0x8ed, // all but read-only, rotational, multi-connection, resize and cache
        blocks: BlockSizes { minimum: 1, preferred: 4096, maximum: 32 << 20 },
        replies,
        allocation: (replies != Replies::Simple).then_some(1),
    }
}
