//! Where a body ends, and where its bytes go. No sockets.

use std::fmt;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::http::message::Head;
use crate::net::http::message::Method;
use crate::net::http::wiped::Wiped;

/// How the end of a body is known (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none, or it has so many bytes.
    Length(u64),
    /// It comes in pieces that say how long they are.
    Chunked,
    /// It ends with the connection.
    ToClose,
}

impl Framing {
    /// What the head of an answer to this says.
    pub fn of(head: &Head, method: Method) -> Result<Self> {
        let broken = |what: &str| Err(Error::new(ErrorKind::Protocol, what));
        if method == Method::Head || matches!(head.status, 100..=199 | 204 | 304) {
            return Ok(Framing::Length(0));
        }
        if !matches!(head.text("Content-Encoding"), None | Some("" | "identity")) {
            return broken("the body is encoded in a way that was not asked for");
        }
        let mut lengths = head.all("Content-Length");
        let length = match lengths.next() {
            Some(length) if lengths.all(|other| other.trim_ascii() == length.trim_ascii()) => Some(length),
            Some(_) => return broken("two headers Content-Length that differ"),
            None => None,
        };
        let coded = head.all("Transfer-Encoding").next().is_some();
        match (coded, length) {
            (true, Some(_)) => broken("both Content-Length and Transfer-Encoding"),
            (true, None) => {
                let one = head.all("Transfer-Encoding").count() == 1;
                match head.text("Transfer-Encoding") {
                    Some(coding) if one && coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
                    _ => broken("a Transfer-Encoding other than chunked"),
                }
            }
            (false, Some(length)) => match number(length.trim_ascii(), 10) {
                Some(length) => Ok(Framing::Length(length)),
                None => broken("a Content-Length that is no number"),
            },
            (false, None) => Ok(Framing::ToClose),
        }
    }
}

/// Digits and nothing else.
pub(super) fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let all = digits.iter().all(|b| char::from(*b).is_digit(radix));
    std::str::from_utf8(digits).ok().filter(|_| all).and_then(|text| u64::from_str_radix(text, radix).ok())
}

/// What the line in front of a chunk says: its length, 0 for the last one. Extensions do not matter.
pub fn chunk_length(line: &[u8]) -> Result<u64> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    number(digits, 16)
        .ok_or_else(|| Error::new(ErrorKind::Protocol, "a chunk whose length is no hexadecimal number"))
}

/// What is done with the body of an answer.
pub enum Target<'a> {
    /// It is collected; more bytes than that are an error.
    Collect(usize),
    /// It fills the buffer exactly if the head is a wanted one; of any other answer, the beginning is collected.
    Fill(&'a mut [u8], &'a dyn Fn(&Head) -> bool),
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Collect(most) => f.debug_tuple("Collect").field(most).finish(),
            Target::Fill(buf, _) => f.debug_tuple("Fill").field(&buf.len()).finish(),
        }
    }
}

/// As much as is collected of a body that nobody asked for. What is behind it is not waited for.
pub const BEGINNING: usize = 64 << 10;

/// Takes the bytes of one body.
#[derive(Debug)]
pub struct Sink<'a> {
    place: Place<'a>,
    /// What was collected.
    pub body: Wiped,
}

#[derive(Debug)]
enum Place<'a> {
    Collect { most: usize, is_cut: bool },
    Fill { rest: &'a mut [u8] },
}

/// So much is collected at a time, whatever a length claims.
const PORTION: usize = 64 << 10;

impl<'a> Sink<'a> {
    /// For an answer with this head. `Err`: it cannot be as it should.
    pub fn new(target: &'a mut Target<'_>, head: &Head, framing: Framing) -> Result<Self> {
        let place = match target {
            Target::Collect(most) => Place::Collect { most: *most, is_cut: false },
            Target::Fill(buf, wanted) if wanted(head) => Place::Fill { rest: buf },
            Target::Fill(..) => Place::Collect { most: BEGINNING, is_cut: true },
        };
        if let Framing::Length(length) = framing {
            match &place {
                Place::Collect { most, is_cut: false } if length > *most as u64 => {
                    return Err(too_long(&format!("{length}"), *most));
                }
                Place::Fill { rest } if length != rest.len() as u64 => {
                    let what = format!("a body of {length} bytes where {} were asked for", rest.len());
                    return Err(Error::new(ErrorKind::Protocol, what));
                }
                _ => {}
            }
        }
        Ok(Self { place, body: Wiped::default() })
    }

    /// Room for some of the next bytes, of which there are at most `left`; `None` when no more are wanted.
    pub fn room(&mut self, left: u64) -> Result<Option<&mut [u8]>> {
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        match &mut self.place {
            Place::Collect { most, is_cut } => match most.saturating_sub(self.body.bytes().len()) {
                0 if *is_cut => Ok(None),
                0 => Err(too_long("more", *most)),
                free => Ok(Some(self.body.extend(free.min(left).min(PORTION)))),
            },
            Place::Fill { rest: [] } => {
                Err(Error::new(ErrorKind::Protocol, "the body has more bytes than were asked for"))
            }
            Place::Fill { rest } => {
                let end = rest.len().min(left);
                Ok(rest.get_mut(..end))
            }
        }
    }

    /// So many bytes of the room of this size were used.
    pub fn took(&mut self, count: usize, room: usize) {
        match &mut self.place {
            Place::Collect { .. } => {
                let unused = room.saturating_sub(count);
                self.body.truncate(self.body.bytes().len().saturating_sub(unused));
            }
            Place::Fill { rest } => {
                *rest = std::mem::take(rest).get_mut(count..).unwrap_or_default();
            }
        }
    }

    /// The body ended. True when it went to the buffer.
    pub fn finish(self) -> Result<(bool, Wiped)> {
        match self.place {
            Place::Collect { .. } => Ok((false, self.body)),
            Place::Fill { rest: [] } => Ok((true, self.body)),
            Place::Fill { rest } => {
                let what = format!("the body ended {} bytes before what was asked for", rest.len());
                Err(Error::new(ErrorKind::Protocol, what))
            }
        }
    }
}

fn too_long(length: &str, most: usize) -> Error {
    Error::new(ErrorKind::Protocol, format!("a body of {length} bytes where at most {most} are taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(headers: &str) -> Result<Framing> {
        let head = Head::parse(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes()).unwrap();
        Framing::of(&head, Method::Get)
    }

    #[test]
    fn the_end_of_a_body_is_known_from_the_head() {
        assert_eq!(framing("Content-Length: 12\r\n").unwrap(), Framing::Length(12));
        assert_eq!(framing("Content-Length: 12\r\nContent-Length: 12\r\n").unwrap(), Framing::Length(12));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n").unwrap(), Framing::Chunked);
        assert_eq!(framing("").unwrap(), Framing::ToClose);
        let head = Head::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
        assert_eq!(Framing::of(&head, Method::Head).unwrap(), Framing::Length(0));
        let head = Head::parse(b"HTTP/1.1 204 No\r\n\r\n").unwrap();
        assert_eq!(Framing::of(&head, Method::Get).unwrap(), Framing::Length(0));
    }

    #[test]
    fn heads_that_contradict_themselves_are_refused() {
        for headers in [
            "Content-Length: 12\r\nContent-Length: 13\r\n",
            "Content-Length: +12\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 1 2\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Content-Encoding: gzip\r\n",
        ] {
            assert_eq!(framing(headers).unwrap_err().kind(), ErrorKind::Protocol, "{headers}");
        }
    }

    #[test]
    fn lengths_of_chunks_are_hexadecimal() {
        assert_eq!(chunk_length(b"0").unwrap(), 0);
        assert_eq!(chunk_length(b"1aF ; x=\"y\"\r").unwrap(), 0x1af);
        for line in [&b""[..], b";", b"0x10", b"-1", b"+1", b"10000000000000000", b"1 1", b"g"] {
            assert_eq!(chunk_length(line).unwrap_err().kind(), ErrorKind::Protocol, "{line:?}");
        }
    }
}
