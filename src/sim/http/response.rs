//! A response.

use std::fs::File;
use std::ops::Range;

/// A response.
#[derive(Debug)]
pub struct Response {
    /// 200 and so on.
    pub status: u16,
    /// Names and values, without those about the length and the connection.
    pub headers: Vec<(String, String)>,
    /// What comes with it.
    pub body: Body,
    /// Only the head is sent, with the length that the body would have.
    pub head_only: bool,
    /// The connection ends after it.
    pub close: bool,
    /// The connection is cut after so many bytes of the body.
    pub cut: Option<u64>,
    /// Nothing is sent at all: the connection ends.
    pub gone: bool,
}

/// What comes with a response.
#[derive(Debug)]
pub enum Body {
    /// Bytes.
    Bytes(Vec<u8>),
    /// A part of a file, which is sent as it is read.
    File(File, Range<u64>),
}

impl Response {
    /// A text.
    pub fn text(status: u16, text: impl Into<String>) -> Response {
        Response::bytes(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// XML.
    pub fn xml(status: u16, text: impl Into<String>) -> Response {
        Response::bytes(status, "text/xml; charset=utf-8", text.into().into_bytes())
    }

    /// Bytes of a type.
    pub fn bytes(status: u16, kind: &str, bytes: Vec<u8>) -> Response {
        Response::of(status, kind, Body::Bytes(bytes))
    }

    /// Any body.
    pub fn of(status: u16, kind: &str, body: Body) -> Response {
        let headers = vec![("Content-Type".to_owned(), kind.to_owned())];
        Response { status, headers, body, head_only: false, close: false, cut: None, gone: false }
    }

    /// No answer: the connection ends.
    pub fn gone() -> Response {
        Response { gone: true, ..Response::text(503, "") }
    }

    /// The same with one more header; line ends in it become blanks.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Response {
        self.headers.push((name.to_owned(), value.replace(['\r', '\n'], " ")));
        self
    }

    /// The same, of which only half of the body is sent before the connection ends.
    #[must_use]
    pub fn half(self) -> Response {
        Response { cut: Some(self.len() / 2), ..self }
    }

    /// The length of the body.
    pub fn len(&self) -> u64 {
        match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File(_, range) => range.end.saturating_sub(range.start),
        }
    }

    /// True for an empty body.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first lines, up to the empty one.
    pub fn head(&self, keep: bool) -> String {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let connection = if keep { "keep-alive" } else { "close" };
        head.push_str(&format!("Content-Length: {}\r\nConnection: {connection}\r\n\r\n", self.len()));
        head
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    }
}
