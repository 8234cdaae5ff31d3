//! The bytes of requests and responses on one connection.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;

use crate::sim::http::request::Request;
use crate::sim::http::response::Body;
use crate::sim::http::response::Response;

/// A request line and headers are not read past that.
const MOST_HEAD: usize = 64 * 1024;
const MOST_HEADERS: usize = 100;
/// A body is not read past that.
const MOST_BODY: usize = 8 << 20;
/// How long the rest of a request may take, and a piece of a response.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may be silent between requests.
const IDLE: Duration = Duration::from_secs(600);
/// How long a peer is listened to that was refused.
const GOODBYE: Duration = Duration::from_secs(2);
const PIECE: usize = 256 * 1024;

/// One connection.
pub struct Wire {
    stream: StreamOwned<ServerConnection, TcpStream>,
    /// Bytes that were received and not used yet.
    rest: Vec<u8>,
}

/// Why there is no request.
#[derive(Debug)]
pub enum Ended {
    /// The peer is gone, or the connection broke.
    Gone,
    /// What came is no request: this goes back before the connection ends.
    Refused(Response),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Ended::Gone
    }
}

impl Wire {
    /// A connection on which the client begins with TLS.
    pub fn new(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Wire { stream: StreamOwned::new(tls, stream), rest: Vec::new() })
    }

    /// Reads the next request.
    pub fn read(&mut self) -> Result<Request, Ended> {
        let mut until = Instant::now() + if self.rest.is_empty() { IDLE } else { PATIENCE };
        let mut begun = !self.rest.is_empty();
        let (mut request, head) = loop {
            if let Some(parsed) = parse(&self.rest)? {
                break parsed;
            }
            if self.rest.len() > MOST_HEAD {
                return Err(Ended::Refused(Response::text(431, "The head of the request is too long\n")));
            }
            self.fill(until)?;
            if !std::mem::replace(&mut begun, true) {
                until = Instant::now() + PATIENCE;
            }
        };
        self.rest.drain(..head);
        if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            self.stream.flush()?;
        }
        request.body = self.body(&request, Instant::now() + PATIENCE)?;
        Ok(request)
    }

    fn body(&mut self, request: &Request, until: Instant) -> Result<Vec<u8>, Ended> {
        if let Some(coding) = request.header("transfer-encoding") {
            if !coding.eq_ignore_ascii_case("chunked") {
                return Err(bad("This transfer encoding is not understood\n"));
            }
            return self.chunks(until);
        }
        match request.header("content-length").map(|value| value.trim().parse::<usize>()) {
            None => Ok(Vec::new()),
            Some(Ok(len)) if len <= MOST_BODY => self.take(len, until),
            Some(Ok(_)) => Err(too_long()),
            Some(Err(_)) => Err(bad("The length is no number\n")),
        }
    }

    fn chunks(&mut self, until: Instant) -> Result<Vec<u8>, Ended> {
        let mut body = Vec::new();
        loop {
            let len = loop {
                match httparse::parse_chunk_size(&self.rest) {
                    Ok(httparse::Status::Complete((head, len))) => {
                        self.rest.drain(..head);
                        break usize::try_from(len).unwrap_or(usize::MAX);
                    }
                    Ok(httparse::Status::Partial) if self.rest.len() < MOST_HEAD => self.fill(until)?,
                    _ => return Err(bad("The chunks are broken\n")),
                }
            };
            if len > MOST_BODY - body.len() {
                return Err(too_long());
            }
            let chunk = self.take(len, until)?;
            if self.take(2, until)? != b"\r\n" {
                return Err(bad("A chunk does not end where it should\n"));
            }
            if len == 0 {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    /// Exactly `len` bytes.
    fn take(&mut self, len: usize, until: Instant) -> Result<Vec<u8>, Ended> {
        while self.rest.len() < len {
            self.fill(until)?;
        }
        let rest = self.rest.split_off(len);
        Ok(std::mem::replace(&mut self.rest, rest))
    }

    /// Receives something.
    fn fill(&mut self, until: Instant) -> Result<(), Ended> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Ended::Gone);
        }
        self.stream.sock.set_read_timeout(Some(left))?;
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece)? {
            0 => Err(Ended::Gone),
            len => {
                self.rest.extend_from_slice(piece.get(..len).unwrap_or_default());
                Ok(())
            }
        }
    }

    /// Sends a response.
    pub fn write(&mut self, response: &Response, keep: bool) -> io::Result<()> {
        self.stream.write_all(response.head(keep).as_bytes())?;
        if !response.head_only {
            let most = response.cut.unwrap_or(u64::MAX).min(response.len());
            match &response.body {
                Body::Bytes(bytes) => {
                    let most = usize::try_from(most).unwrap_or(bytes.len());
                    self.stream.write_all(bytes.get(..most).unwrap_or(bytes))?;
                }
                Body::File(file, range) => {
                    let mut piece = vec![0; PIECE];
                    let (mut at, end) = (range.start, range.start + most);
                    while at < end {
                        let len = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                        let piece = piece.get_mut(..len).unwrap_or_default();
                        file.read_exact_at(piece, at)?;
                        self.stream.write_all(piece)?;
                        at += len as u64;
                    }
                }
            }
            if most < response.len() {
                return Err(io::ErrorKind::ConnectionAborted.into()); // a cut that was asked for
            }
        }
        self.stream.flush()
    }

    /// Says goodbye.
    pub fn end(&mut self) {
        self.stream.conn.send_close_notify();
        let _ = self.stream.flush(); // the peer may be gone already
    }

    /// Says goodbye to a peer that is still sending: what it sends is received for a while, or the system would take the
    /// answer back that it has not read yet.
    pub fn end_in_spite(&mut self) {
        self.end();
        let socket = &mut self.stream.sock;
        let _ = socket.shutdown(Shutdown::Write);
        let until = Instant::now() + GOODBYE;
        let mut piece = vec![0; PIECE];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
                return;
            }
            if !matches!(socket.read(&mut piece), Ok(len) if len > 0) {
                return;
            }
        }
    }
}

fn bad(why: &str) -> Ended {
    Ended::Refused(Response::text(400, why))
}

fn too_long() -> Ended {
    Ended::Refused(Response::text(413, "The request is too long\n"))
}

/// The head of a request and its length; `None` while it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Ended> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Ended::Refused(Response::text(431, "The request has too many headers\n")));
        }
        Err(_) => return Err(bad("That is no request of HTTP/1.1\n")),
    };
    let target = parsed.path.unwrap_or_default();
    // A target may be a whole address.
    let target =
        target.split_once("://").map_or(target, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
        keep: parsed.version == Some(1),
    };
    let closes =
        request.header("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"));
    Ok(Some((Request { keep: request.keep && !closes, ..request }, head)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_taken_apart() {
        let text = b"POST /sdk?a=b HTTP/1.1\r\nHost: x\r\nSOAPAction: \"urn:vim25/6.5\"\r\n\r\nrest";
        let (request, len) = parse(text).unwrap().unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.query.as_str()),
            ("POST", "/sdk", "a=b")
        );
        assert_eq!((request.header("soapaction"), request.keep), (Some("\"urn:vim25/6.5\""), true));
        assert_eq!(text.get(len..), Some(&b"rest"[..]));
        let (absolute, _) = parse(b"GET https://h:1/p/q?r HTTP/1.0\r\n\r\n").unwrap().unwrap();
        assert_eq!((absolute.path.as_str(), absolute.query.as_str(), absolute.keep), ("/p/q", "r", false));
    }

    #[test]
    fn no_beginning_of_a_request_is_taken_for_one() {
        let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 0..text.len() {
            assert!(matches!(parse(&text[..end]), Ok(None)), "{end}");
        }
        for odd in [
            &b"\x16\x03\x01"[..],
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\na b: c\r\n\r\n",
        ] {
            assert!(matches!(parse(odd), Err(Ended::Refused(_))), "{odd:?}");
        }
    }
}
