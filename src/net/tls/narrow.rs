//! A connection that has no room: what was encrypted for it waits, and nothing is taken on top of it.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::io::Read;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::tests::Authority;
use super::tests::SHORT;
use super::tests::config;
use super::tests::patient;
use super::tests::pattern;
use super::tests::recv_exact;
use super::tests::with_tls;
use super::tests::wrap;
use super::*;
use crate::net::stream::Patience;
use crate::net::stream::Ready;

/// A connection that takes no more than so many bytes, whatever room the system finds.
#[derive(Debug)]
struct Narrow {
    inner: Box<dyn Stream>,
    room: Mutex<usize>,
}

impl Narrow {
    fn widen(&self, room: usize) {
        *self.room.lock() = room;
    }
}

/// Whether everything left, and how much more is taken.
fn pushed_and_sent(stream: &dyn Stream, bytes: &[u8], patience: Patience) -> (bool, Option<usize>) {
    (stream.push(patience).unwrap(), stream.send(&[IoSlice::new(bytes)], patience).unwrap())
}

impl Stream for Narrow {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        let mut room = self.room.lock();
        let Some(part) = parts.iter().find(|part| !part.is_empty()) else { return Ok(Some(0)) };
        let fits = part.len().min(*room);
        if fits == 0 {
            return Ok(None);
        }
        let sent = self.inner.send(&[IoSlice::new(&part[..fits])], patience)?;
        *room -= sent.unwrap_or(0);
        Ok(sent)
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        self.inner.recv(parts, patience)
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        match *self.room.lock() {
            // Time passes without room.
            0 if wanted.send => Ok(Ready::default()),
            _ => self.inner.wait(wanted, until),
        }
    }

    fn shutdown(&self) {
        self.inner.shutdown();
    }

    fn label(&self) -> String {
        self.inner.label()
    }
}

#[test]
fn what_the_peer_does_not_take_is_held_back_and_pushed_later() {
    let authority = Authority::new();
    let (socket, served) = with_tls(config(&authority.server(), &rustls::version::TLS13), |served| {
        served.write_all(b"x")?;
        let mut all = Vec::new();
        served.read_to_end(&mut all)?;
        Ok(all)
    });
    let narrow = Arc::new(Narrow { inner: socket, room: Mutex::new(usize::MAX) });
    let stream = wrap(&authority.settings(), Box::new(narrow.clone()), "localhost").unwrap();
    recv_exact(&*stream, 1);
    let bytes = pattern(1 << 20);
    narrow.widen(100_000);
    let taken = stream.send(&[IoSlice::new(&bytes)], Patience::None).unwrap().unwrap();
    assert!(taken < bytes.len(), "a call seals a part of what it is given");
    // Room for less than what was sealed: the rest is held back, and nothing more is taken on top of it.
    for patience in [Patience::None, Patience::Until(Instant::now() + SHORT)] {
        assert_eq!(pushed_and_sent(&*stream, &bytes[taken..], patience), (false, None));
    }
    narrow.widen(1000);
    assert_eq!(pushed_and_sent(&*stream, &bytes[taken..], Patience::None), (false, None));
    narrow.widen(usize::MAX);
    assert!(stream.push(patient()).unwrap());
    let more = stream.send(&[IoSlice::new(&bytes[taken..])], patient()).unwrap().unwrap();
    assert!(stream.push(patient()).unwrap());
    stream.shutdown();
    assert!(served.join().unwrap().unwrap() == bytes[..taken + more]);
}
