//! Heads of requests and answers. No sockets.

use std::fmt;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::http::wiped::Wiped;
use crate::secret::Secret;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Reads without the body.
    Head,
    /// Calls.
    Post,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
        }
    }
}

/// What is asked for. `Host`, `Content-Length` and `User-Agent` are not among the headers: they follow from the rest.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What is done.
    pub method: Method,
    /// Path and query, encoded.
    pub target: &'a str,
    /// Names and values.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// What is sent with it.
    pub body: &'a [u8],
}

/// Headers and body may have secrets.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.name(), self.target)
    }
}

/// How this library calls itself.
const AGENT: &str = concat!("User-Agent: ", env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"), "\r\n");

impl Request<'_> {
    /// The bytes in front of the body.
    pub fn head(&self, host: &str) -> Result<Wiped> {
        if !self.target.starts_with('/') || !self.target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::new(ErrorKind::Internal, "the target of a request is not encoded"));
        }
        let mut head = Wiped::with_capacity(1024);
        for part in [self.method.name(), " ", self.target, " HTTP/1.1\r\nHost: ", host, "\r\n", AGENT] {
            head.push(part.as_bytes());
        }
        for (name, value) in self.headers {
            // A line that ends early could begin another.
            if value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
                let what = format!("the header {name} has a character that cannot be sent");
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                head.push(part);
            }
        }
        if self.method == Method::Post {
            head.push(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        head.push(b"\r\n");
        Ok(head)
    }
}

/// The head of an answer.
pub struct Head {
    /// 200 and so on.
    pub status: u16,
    /// The words behind it.
    pub reason: String,
    /// HTTP/1.1 and not 1.0.
    pub(super) is_11: bool,
    headers: Vec<(String, Secret)>,
}

/// Headers may have secrets.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("status", &self.status).finish_non_exhaustive()
    }
}

/// More headers than that are not taken.
const MOST_HEADERS: usize = 100;

impl Head {
    /// Understands the bytes of a head, the empty line included.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let broken = |why: &str| Error::new(ErrorKind::Protocol, format!("not an answer of HTTP/1: {why}"));
        match response.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(broken("it ends before its end")),
            Err(e) => return Err(broken(&e.to_string())),
        }
        let (Some(status), Some(version)) = (response.code, response.version) else {
            return Err(broken("no status"));
        };
        if !(100..600).contains(&status) {
            return Err(broken(&format!("status {status}")));
        }
        let headers = response.headers.iter().map(|h| (h.name.to_owned(), Secret::new(h.value.to_vec())));
        Ok(Self {
            status,
            reason: response.reason.unwrap_or_default().to_owned(),
            is_11: version == 1,
            headers: headers.collect(),
        })
    }

    /// The values of a header, in their order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.expose())
    }

    /// The first value of a header, if it is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        value.expose_text().map(str::trim)
    }

    /// True when one of the header's values has this word in its list.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        let is_word = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes());
        self.all(name).any(|value| value.split(|b| *b == b',').any(is_word))
    }

    /// True for a kind of content, whatever its parameters.
    pub fn is_of(&self, kinds: &[&str]) -> bool {
        let kind = self.text("Content-Type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
        kinds.iter().any(|known| kind.eq_ignore_ascii_case(known))
    }
}

/// Where the head ends, looking from `from` on; `None` when it is not complete.
pub fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    // The shortest end is "\n\n", the longest reaches three bytes back.
    let mut at = from.saturating_sub(3);
    while let Some(line) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\n')) {
        let behind = at.saturating_add(line).saturating_add(1);
        match bytes.get(behind..).unwrap_or_default() {
            [b'\n', ..] => return Some(behind.saturating_add(1)),
            [b'\r', b'\n', ..] => return Some(behind.saturating_add(2)),
            _ => at = behind,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(headers: &'a [(&'a str, &'a [u8])], body: &'a [u8]) -> Request<'a> {
        Request { method: Method::Post, target: "/sdk", headers, body }
    }

    #[test]
    fn a_request_has_its_headers_and_length() {
        let head = request(&[("Cookie", b"a=\"b\"")], b"12345").head("h:8443").unwrap();
        let text = std::str::from_utf8(head.bytes()).unwrap();
        assert!(text.starts_with("POST /sdk HTTP/1.1\r\nHost: h:8443\r\nUser-Agent: "), "{text}");
        assert!(text.ends_with("\r\nCookie: a=\"b\"\r\nContent-Length: 5\r\n\r\n"), "{text}");
        assert!(!format!("{:?}", request(&[("Cookie", b"canary")], b"canary")).contains("canary"));
    }

    #[test]
    fn a_value_that_would_begin_another_line_is_refused() {
        for value in [&b"a\r\nX: y"[..], b"a\nb", b"a\0b"] {
            let e = request(&[("Cookie", value)], b"").head("h").unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        }
        let spoilt = Request { target: "/a b", ..request(&[], b"") };
        assert_eq!(spoilt.head("h").unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_head_is_read_with_its_headers() {
        let head = Head::parse(
            b"HTTP/1.1 500 Internal Server Error\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: x, Close\r\n\
              Content-Type: Text/XML; charset=utf-8\r\n\r\n",
        )
        .unwrap();
        assert_eq!((head.status, head.reason.as_str(), head.is_11), (500, "Internal Server Error", true));
        assert_eq!(head.all("Set-Cookie").collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert!(head.lists("connection", "close") && !head.lists("connection", "keep-alive"));
        assert!(head.is_of(&["text/xml"]) && !head.is_of(&["text/html"]));
        assert!(!format!("{head:?}").contains("a=1"));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1));
        for bytes in [
            &b"SSH-2.0-OpenSSH\r\n\r\n"[..],
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 999 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\na b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n",
            many.as_bytes(),
        ] {
            assert_eq!(Head::parse(bytes).unwrap_err().kind(), ErrorKind::Protocol);
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_cut() {
        let whole = b"HTTP/1.1 200 OK\r\na: b\r\n\r\nbody\n\n";
        let end = whole.len() - 6;
        for known in 0..whole.len() {
            let expected = (known >= end).then_some(end);
            assert_eq!(end_of_head(&whole[..known], 0), expected);
            assert_eq!(
                end_of_head(&whole[..known], known.saturating_sub(1).min(end - 1)),
                expected,
                "{known}"
            );
        }
        assert_eq!(end_of_head(b"a\n\nb", 0), Some(3));
    }
}
