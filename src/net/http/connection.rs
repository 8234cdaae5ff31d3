//! One connection: one exchange at a time, all of it until one moment.

use std::fmt;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::http::body::Framing;
use crate::net::http::body::Sink;
use crate::net::http::body::Target;
use crate::net::http::body::chunk_length;
use crate::net::http::client::Answer;
use crate::net::http::message::Head;
use crate::net::http::message::Request;
use crate::net::http::message::end_of_head;
use crate::net::stream::Patience;
use crate::net::stream::Ready;
use crate::net::stream::Stream;

/// A connection between exchanges.
pub struct Connection {
    stream: Arc<dyn Stream>,
    /// What was received and is not used: from `begin` to `end`.
    inbox: Zeroizing<Vec<u8>>,
    begin: usize,
    end: usize,
    /// When the last exchange ended.
    pub idle_since: Instant,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Longest head of an answer, and longest rest of one after the last chunk.
const LONGEST_HEAD: usize = 64 << 10;

/// Longest line in front of a chunk.
const LONGEST_CHUNK_LINE: usize = 1 << 10;

/// Answers that say only that another one follows.
const MOST_INTERIM: usize = 16;

/// Why an exchange failed.
#[derive(Debug)]
pub struct Failed {
    /// The fault.
    pub error: Error,
    /// The connection was lost before the first byte of an answer.
    pub unanswered: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, unanswered: false }
    }
}

/// How the answer ended.
pub struct Exchanged {
    /// The answer.
    pub answer: Answer,
    /// The connection can be used again.
    pub keeps: bool,
}

impl Connection {
    /// Starts on a connected stream.
    pub fn new(stream: Box<dyn Stream>) -> Self {
        let inbox = Zeroizing::new(vec![0; LONGEST_HEAD]);
        Self { stream: Arc::from(stream), inbox, begin: 0, end: 0, idle_since: Instant::now() }
    }

    /// True when nothing speaks against another exchange: no bytes that nobody asked for, and no end of the stream.
    pub fn is_usable(&self) -> bool {
        let ready = self.stream.wait(Ready { recv: true, send: false }, Instant::now());
        self.begin == self.end && matches!(ready, Ok(ready) if !ready.recv)
    }

    /// What it runs over, for somebody who may want to end it in the middle of an exchange.
    pub fn stream(&self) -> &Arc<dyn Stream> {
        &self.stream
    }

    /// Ends it.
    pub fn shutdown(&self) {
        self.stream.shutdown();
    }

    /// Sends the request and takes the answer.
    pub fn exchange(
        &mut self,
        request: &Request<'_>,
        host: &str,
        target: &mut Target<'_>,
        until: Instant,
    ) -> Result<Exchanged, Failed> {
        let mut doing = Doing { connection: self, until, is_answered: false };
        match doing.exchange(request, host, target) {
            Ok(exchanged) => {
                self.idle_since = Instant::now();
                Ok(exchanged)
            }
            Err(error) => {
                let unanswered = error.kind() == ErrorKind::ConnectionLost && !doing.is_answered;
                Err(Failed { error, unanswered })
            }
        }
    }
}

/// An exchange under way.
struct Doing<'a> {
    connection: &'a mut Connection,
    until: Instant,
    is_answered: bool,
}

impl Doing<'_> {
    fn exchange(&mut self, request: &Request<'_>, host: &str, target: &mut Target<'_>) -> Result<Exchanged> {
        let head = request.head(host)?;
        self.send(head.bytes(), request.body)?;
        let head = self.final_head()?;
        let framing = Framing::of(&head, request.method)?;
        let mut sink = Sink::new(target, &head, framing)?;
        let is_whole = self.body(framing, &mut sink)?;
        let (is_filled, body) = sink.finish()?;
        let persists = if head.is_11 {
            !head.lists("Connection", "close")
        } else {
            head.lists("Connection", "keep-alive")
        };
        let keeps = is_whole && persists && framing != Framing::ToClose;
        Ok(Exchanged { answer: Answer { head, body, is_filled }, keeps })
    }

    fn send(&mut self, head: &[u8], body: &[u8]) -> Result<()> {
        let (mut head, mut body) = (head, body);
        let patience = Patience::Until(self.until);
        while !head.is_empty() || !body.is_empty() {
            self.in_time()?;
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let Some(sent) = self.connection.stream.send(&parts, patience)? else {
                return Err(late("the server takes nothing more"));
            };
            let of_head = sent.min(head.len());
            head = head.get(of_head..).unwrap_or_default();
            body = body.get(sent.saturating_sub(of_head)..).unwrap_or_default();
        }
        match self.connection.stream.push(patience)? {
            true => Ok(()),
            false => Err(late("the server takes nothing more")),
        }
    }

    /// The head of the answer, interim ones passed over.
    fn final_head(&mut self) -> Result<Head> {
        for _ in 0..MOST_INTERIM {
            let head = self.head()?;
            match head.status {
                101 => return Err(broken("the server changes to a protocol that was not asked for")),
                100..=199 => {}
                _ => return Ok(head),
            }
        }
        Err(broken("the server announces an answer again and again"))
    }

    fn head(&mut self) -> Result<Head> {
        let mut looked_at = 0;
        loop {
            let known = self.connection.waiting();
            if let Some(end) = end_of_head(known, looked_at) {
                let head = Head::parse(known.get(..end).unwrap_or_default())?;
                self.connection.use_up(end);
                return Ok(head);
            }
            looked_at = known.len();
            if looked_at >= LONGEST_HEAD {
                return Err(broken("the head of the answer does not end"));
            }
            if !self.fill()? {
                return Err(lost("the server closed the connection instead of answering"));
            }
        }
    }

    /// Takes the body. False when some of it was not wanted and is still to come.
    fn body(&mut self, framing: Framing, sink: &mut Sink<'_>) -> Result<bool> {
        match framing {
            Framing::Length(length) => self.counted(length, sink),
            Framing::Chunked => self.chunks(sink),
            Framing::ToClose => self.until_close(sink),
        }
    }

    fn counted(&mut self, length: u64, sink: &mut Sink<'_>) -> Result<bool> {
        let mut left = length;
        while left > 0 {
            let Some(room) = sink.room(left)? else { return Ok(false) };
            let (size, count) = (room.len(), self.receive(room)?);
            sink.took(count, size);
            if count == 0 {
                return Err(lost("the server closed the connection in the middle of a body"));
            }
            left = left.saturating_sub(count as u64);
        }
        Ok(true)
    }

    fn chunks(&mut self, sink: &mut Sink<'_>) -> Result<bool> {
        loop {
            let length = chunk_length(&self.line(LONGEST_CHUNK_LINE)?)?;
            if length == 0 {
                return self.trailer().map(|()| true);
            }
            if !self.counted(length, sink)? {
                return Ok(false);
            }
            if !self.line(LONGEST_CHUNK_LINE)?.is_empty() {
                return Err(broken("a chunk that is longer than it says"));
            }
        }
    }

    /// Headers behind the last chunk: nobody here needs them.
    fn trailer(&mut self) -> Result<()> {
        let mut left = LONGEST_HEAD;
        loop {
            let line = self.line(left)?;
            if line.is_empty() {
                return Ok(());
            }
            left = left.saturating_sub(line.len()).saturating_sub(2);
        }
    }

    fn until_close(&mut self, sink: &mut Sink<'_>) -> Result<bool> {
        loop {
            // The stream may end exactly where there is no more room, which a byte more would tell.
            if self.connection.waiting().is_empty() && !self.fill()? {
                return Ok(true);
            }
            let known = self.connection.waiting().len() as u64;
            let Some(room) = sink.room(known)? else { return Ok(false) };
            let (size, count) = (room.len(), self.receive(room)?);
            sink.took(count, size);
        }
    }

    /// The next line without its end.
    fn line(&mut self, longest: usize) -> Result<Vec<u8>> {
        loop {
            let known = self.connection.waiting();
            if let Some(end) = known.iter().take(longest).position(|b| *b == b'\n') {
                let line = known.get(..end).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.connection.use_up(end.saturating_add(1));
                return Ok(line);
            }
            if known.len() >= longest {
                return Err(broken("a line of a body in chunks does not end"));
            }
            if !self.fill()? {
                return Err(lost("the server closed the connection in the middle of a body"));
            }
        }
    }

    /// Puts the next bytes into the room, which is not empty; 0 is the end of the stream.
    fn receive(&mut self, room: &mut [u8]) -> Result<usize> {
        let known = self.connection.waiting();
        if !known.is_empty() {
            let count = known.len().min(room.len());
            for (to, from) in room.iter_mut().zip(known) {
                *to = *from;
            }
            self.connection.use_up(count);
            return Ok(count);
        }
        self.in_time()?;
        let received =
            self.connection.stream.recv(&mut [IoSliceMut::new(room)], Patience::Until(self.until))?;
        received.ok_or_else(|| late("the server says nothing more"))
    }

    /// Fetches more into the inbox; false at the end of the stream.
    fn fill(&mut self) -> Result<bool> {
        self.in_time()?;
        let until = self.until;
        let connection = &mut *self.connection;
        if connection.end == connection.inbox.len() {
            connection.inbox.copy_within(connection.begin..connection.end, 0);
            connection.end = connection.end.saturating_sub(connection.begin);
            connection.begin = 0;
        }
        let room = connection.inbox.get_mut(connection.end..).unwrap_or_default();
        if room.is_empty() {
            return Err(broken("more bytes than any head or line has"));
        }
        match connection.stream.recv(&mut [IoSliceMut::new(room)], Patience::Until(until))? {
            None => Err(late("the server says nothing more")),
            Some(0) => Ok(false),
            Some(count) => {
                self.is_answered = true;
                connection.end = connection.end.saturating_add(count);
                Ok(true)
            }
        }
    }

    /// A server that sends a byte now and then gets no more time than a silent one.
    fn in_time(&self) -> Result<()> {
        if Instant::now() < self.until { Ok(()) } else { Err(late("the answer takes too long")) }
    }
}

impl Connection {
    /// What was received and is not used.
    fn waiting(&self) -> &[u8] {
        self.inbox.get(self.begin..self.end).unwrap_or_default()
    }

    fn use_up(&mut self, count: usize) {
        self.begin = self.begin.saturating_add(count).min(self.end);
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
    }
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, what)
}

fn lost(what: &str) -> Error {
    Error::new(ErrorKind::ConnectionLost, what)
}

fn late(what: &str) -> Error {
    Error::new(ErrorKind::TimedOut, what)
}
