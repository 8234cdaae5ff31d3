//! Target for the HTTP client: the bytes of a server that is asked for a part of a file.
//!
//! The first byte says how they come (see [`Config`]), the second how long the part is; the rest are the answers, of all
//! connections alike. What fills the buffer must be the body of an answer that says it is exactly that part, by a second
//! reader.

use std::ops::Range;
use std::time::Duration;
use std::time::Instant;

use vixDiskLib::error::Result;
use vixDiskLib::net::http::Client;
use vixDiskLib::net::http::ContentRange;
use vixDiskLib::net::http::Dial;
use vixDiskLib::net::http::Head;
use vixDiskLib::net::http::Method;
use vixDiskLib::net::http::Request;
use vixDiskLib::net::http::Target;
use vixDiskLib::net::http::range;
use vixDiskLib::net::stream::Stream;

use super::peer::Scripted;
use super::peer::Then;

/// Where the part that is asked for begins.
const START: u64 = 1024;

/// How an input is used: the bits of its first byte.
#[derive(Clone, Copy, Debug)]
struct Config {
    /// Bit 0: a few bytes at a time.
    portions: bool,
    /// Bit 1: silence instead of the end of the stream.
    then: Then,
}

#[derive(Debug)]
struct Door {
    config: Config,
    says: Vec<u8>,
}

impl Dial for Door {
    fn dial(&self, _: Instant) -> Result<Box<dyn Stream>> {
        let portion = if self.config.portions { 5 } else { usize::MAX };
        Ok(Box::new(Scripted::new(&self.says, self.config.then).in_portions(portion)))
    }

    fn host(&self) -> String {
        "fuzzed".to_owned()
    }
}

/// Answers of a server.
pub fn http_range(data: &[u8]) {
    let Some((&[first, len], says)) = data.split_first_chunk() else { return };
    let then = if first & 2 != 0 { Then::Silence } else { Then::Close };
    let config = Config { portions: first & 1 != 0, then };
    let part = START..START + u64::from(len) + 1;
    let client = Client::new(Box::new(Door { config, says: says.to_vec() }), Duration::from_millis(20));
    let mut buf = vec![0; usize::from(len) + 1];
    let asked = range::asked_for(&part);
    let headers = [("Range", asked.as_bytes())];
    let request = Request { method: Method::Get, target: "/folder/a", headers: &headers, body: &[] };
    let good = |head: &Head| is_part(head, &part);
    let answer =
        client.exchange(&request, Target::Fill(&mut buf, &good), Instant::now() + Duration::from_millis(20));
    let Ok(answer) = answer else { return };
    assert_eq!(answer.is_filled, good(&answer.head));
    if answer.is_filled {
        assert_eq!(body(says, buf.len()), buf, "not the body of the answer");
    }
    assert!(answer.body.bytes().len() <= says.len());
}

fn is_part(head: &Head, part: &Range<u64>) -> bool {
    let said = ContentRange::of(head);
    head.status == 206 && matches!(said, Some(ContentRange::Part(got, _)) if got == *part)
}

/// The body behind the last head, by a reader of its own: so many bytes, or what chunks hold.
fn body(mut rest: &[u8], len: usize) -> Vec<u8> {
    loop {
        let (head, behind) = head(rest).expect("an answer has a head");
        if !head.windows(9).take(16).any(|bytes| bytes == b"HTTP/1.1 " || bytes == b"HTTP/1.0 ") {
            panic!("an answer begins with its version");
        }
        let informs = head.iter().position(|b| *b == b' ').is_some_and(|at| head[at + 1] == b'1');
        let coded = head.to_ascii_lowercase().windows(18).any(|bytes| bytes == b"transfer-encoding:");
        rest = behind;
        match (informs, coded) {
            (true, _) => {}
            (false, false) => return rest[..len].to_vec(),
            (false, true) => return chunks(rest),
        }
    }
}

/// The bytes up to the first empty line, and those behind it.
fn head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let ends = |at: usize| match &bytes[at..] {
        [b'\n', b'\r', b'\n', ..] => Some(at + 3),
        [b'\n', b'\n', ..] => Some(at + 2),
        _ => None,
    };
    let end = (0..bytes.len()).find_map(ends)?;
    Some(bytes.split_at(end))
}

fn chunks(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = rest.iter().position(|b| *b == b'\n').expect("a line in front of a chunk");
        let line = String::from_utf8_lossy(&rest[..end]);
        let digits = line.split(';').next().unwrap().trim();
        let length = usize::from_str_radix(digits, 16).expect("a length");
        rest = &rest[end + 1..];
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
        let end = rest.iter().position(|b| *b == b'\n').expect("an end of a chunk");
        rest = &rest[end + 1..];
    }
}

/// What fuzzing starts from.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let answer = |config: u8, head: &str, body: &[u8]| {
        [&[config, 9], format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body].concat()
    };
    let part = "206 Partial Content\r\nContent-Range: bytes 1024-1033/4096";
    vec![
        ("part", answer(0, &format!("{part}\r\nContent-Length: 10"), b"0123456789")),
        (
            "unknown-total",
            answer(1, &format!("{}\r\nContent-Length: 10", part.replace("4096", "*")), b"0123456789"),
        ),
        ("to-close", answer(0, part, b"0123456789")),
        (
            "chunked",
            answer(
                3,
                &format!("{part}\r\nTransfer-Encoding: chunked"),
                b"4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\n\r\n",
            ),
        ),
        (
            "interim",
            [
                &[0, 9][..],
                b"HTTP/1.1 100 Continue\r\n\r\n",
                &answer(0, &format!("{part}\r\nContent-Length: 10"), b"0123456789")[2..],
            ]
            .concat(),
        ),
        ("whole", answer(0, "200 OK\r\nContent-Length: 20", b"01234567890123456789")),
        (
            "outside",
            answer(2, "416 Range Not Satisfiable\r\nContent-Range: bytes */77\r\nContent-Length: 0", b""),
        ),
        ("not-found", answer(0, "404 Not Found\r\nContent-Length: 4\r\nConnection: close", b"none")),
        ("cut", answer(0, &format!("{part}\r\nContent-Length: 10"), b"01234")),
    ]
}
