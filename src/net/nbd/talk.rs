//! The conversation below the negotiation: options go out, replies come in, all of it until one moment.

use std::io::IoSlice;
use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::Result;
use crate::net::nbd::options::Opt;
use crate::net::nbd::options::Refusal;
use crate::net::nbd::options::Rep;
use crate::net::nbd::options::ReplyHead;
use crate::net::nbd::options::protocol;
use crate::net::stream::Patience;
use crate::net::stream::Stream;
use crate::net::talk;

/// A connection before its first request. It receives exactly the bytes it is asked for.
#[derive(Debug)]
pub struct Talk {
    /// The connection.
    pub stream: Box<dyn Stream>,
    /// When the whole negotiation has to be over.
    pub until: Instant,
}

impl Talk {
    /// Sends an option.
    pub fn option(&mut self, opt: Opt, payload: &[u8]) -> Result<()> {
        self.send(&opt.request(payload)?).context(|| opt.name())
    }

    /// The next reply to the option, with its payload.
    pub fn reply(&mut self, opt: Opt) -> Result<(Rep, Vec<u8>)> {
        let waiting = || format!("waiting for the answer to {}", opt.name());
        let head = ReplyHead::parse(&self.recv().context(waiting)?, opt)?;
        let length = usize::try_from(head.length).map_err(|_| protocol("a reply of 4 GiB"))?;
        let mut payload = vec![0; length]; // at most LONGEST_REPLY
        self.fill(&mut payload).context(waiting)?;
        Ok((head.rep, payload))
    }

    /// The next bytes.
    pub fn recv<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        talk::fill(&*self.stream, bytes, self.until)
    }

    /// Sends all of it.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        talk::send(&*self.stream, bytes, self.until)
    }

    /// Says good-bye without waiting for an answer.
    pub fn leave(&mut self) {
        if let Ok(bytes) = Opt::Abort.request(&[]) {
            let _ = self.stream.send(&[IoSlice::new(&bytes)], Patience::None);
            let _ = self.stream.push(Patience::None);
        }
    }
}

/// A reply that does not belong here.
pub fn out_of_place(opt: Opt, rep: Rep, said: &[u8]) -> Error {
    protocol(format!("a reply {rep:?} with {} bytes has no place after {}", said.len(), opt.name()))
}

/// A refusal with the server's words.
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// What the server said about it.
    pub said: Vec<u8>,
}

impl Refused {
    /// As an error.
    pub fn error(&self, opt: Opt) -> Error {
        self.why.error(opt, &self.said)
    }

    /// Whether whatever is asked next will be refused for the same reason.
    pub fn is_final(&self) -> bool {
        matches!(self.why, Refusal::TlsRequired | Refusal::Shutdown)
    }
}
