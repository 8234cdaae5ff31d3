//! An NBD server inside the test, which may lie: it negotiates in order, then a closure says what goes over the wire.
//!
//! [`serve`] is the honest one, over bytes in memory, with simple, structured or extended replies. Everything that is sent
//! passes a gate that closes after a given number of bytes, so that a session can end at each of them.

use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tempfile::TempDir;
use vixDiskLib::net::socket::Address;

use super::scratch;

/// Requests.
pub mod verb {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const ZERO: u16 = 6;
    pub const STATUS: u16 = 7;
}

/// Types of chunks.
pub mod chunk {
    pub const NONE: u16 = 0;
    pub const DATA: u16 = 1;
    pub const HOLE: u16 = 2;
    pub const STATUS: u16 = 5;
    pub const STATUS_EXT: u16 = 6;
    pub const ERROR: u16 = 0x8001;
    pub const ERROR_OFFSET: u16 = 0x8002;
}

/// Flags of an export that can do everything: has-flags, flush, FUA, trim, zeroes, DF, multi-conn, fast-zero.
pub const EVERYTHING: u16 = 1 | 4 | 8 | 32 | 64 | 128 | 256 | 2048;

/// The same without the promise that several connections see the same.
pub const ONE_CONNECTION: u16 = EVERYTHING & !256;

/// The last chunk of a reply.
pub const DONE: u16 = 1;

/// The id it gives to `base:allocation`.
pub const CONTEXT: u32 = 0x4d;

/// What replies look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Simple,
    Structured,
    Extended,
}

/// All of them.
pub const STYLES: [Style; 3] = [Style::Simple, Style::Structured, Style::Extended];

/// What is negotiated.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub size: u64,
    pub flags: u16,
    pub style: Style,
    /// Smallest, preferred and largest.
    pub blocks: Option<(u32, u32, u32)>,
}

impl Offer {
    /// Everything, in this style, on one connection.
    pub fn new(size: u64, style: Style) -> Self {
        Self { size, flags: ONE_CONNECTION, style, blocks: None }
    }
}

/// What comes when the gate closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Close,
    Silence,
}

/// The first bytes of a connection that may leave, and what comes then.
pub type Gate = Option<(u64, After)>;

/// A running server on a Unix socket. On drop its connections are closed and its threads are over.
pub struct Peer {
    folder: TempDir,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ending: AtomicBool,
    seen: AtomicUsize,
    sent: AtomicUsize,
    negotiated: AtomicUsize,
    marks: Mutex<Vec<usize>>,
    streams: Mutex<Vec<UnixStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Runs one connection after its negotiation; an error ends the connection.
type Body = dyn Fn(usize, &mut Talk) -> std::io::Result<()> + Send + Sync;

impl Peer {
    /// Serves every connection by `body`, which gets its number, counted from 0.
    pub fn new(
        offer: Offer,
        body: impl Fn(usize, &mut Talk) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::behind(move |_| (offer, None), body)
    }

    /// The same with an offer and a gate for each connection.
    pub fn behind(
        offer: impl Fn(usize) -> (Offer, Gate) + Send + Sync + 'static,
        body: impl Fn(usize, &mut Talk) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let folder = scratch::folder();
        let listener = UnixListener::bind(folder.path().join("s")).expect("a Unix socket");
        let shared = Arc::new(Shared {
            ending: AtomicBool::new(false),
            seen: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            negotiated: AtomicUsize::new(0),
            marks: Mutex::default(),
            streams: Mutex::default(),
            threads: Mutex::default(),
        });
        let (for_thread, body): (_, Arc<Body>) = (shared.clone(), Arc::new(body));
        let thread = std::thread::spawn(move || accept(&listener, &for_thread, &offer, &body));
        Self { folder, shared, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::Unix(self.folder.path().join("s"))
    }

    /// How many connections were made.
    pub fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// How many bytes it sent on all connections.
    pub fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// How many bytes it had sent when the last negotiation was over.
    pub fn negotiated(&self) -> usize {
        self.shared.negotiated.load(Ordering::SeqCst)
    }

    /// How many bytes it had sent whenever a head or a payload began: where to cut a session of one connection.
    pub fn marks(&self) -> Vec<usize> {
        self.shared.marks.lock().expect("the marks").clone()
    }

    /// Ends every connection there is; further ones are accepted.
    pub fn cut_all(&self) {
        self.shared.cut_all();
    }
}

impl Shared {
    fn cut_all(&self) {
        for stream in self.streams.lock().expect("the streams").iter() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(self.folder.path().join("s")); // wakes the one that accepts
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.cut_all();
        let threads = std::mem::take(&mut *self.shared.threads.lock().expect("the threads"));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn accept(
    listener: &UnixListener,
    shared: &Arc<Shared>,
    offer: &(impl Fn(usize) -> (Offer, Gate) + Send),
    body: &Arc<Body>,
) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.ending.load(Ordering::SeqCst) {
            return;
        }
        let number = shared.seen.fetch_add(1, Ordering::SeqCst);
        let (offer, gate) = offer(number);
        shared.streams.lock().expect("the streams").push(stream.try_clone().expect("another descriptor"));
        let mut talk = Talk { stream, offer, gate, shared: shared.clone() };
        let body = body.clone();
        let thread = std::thread::spawn(move || {
            let _end = Ending(talk.stream.try_clone().expect("another descriptor"));
            let _ = talk.negotiate().and_then(|()| {
                let sent = talk.shared.sent.load(Ordering::SeqCst);
                talk.shared.negotiated.store(sent, Ordering::SeqCst);
                body(number, &mut talk)
            });
        });
        shared.threads.lock().expect("the threads").push(thread);
    }
}

/// Ends a connection when its thread does, by a panic too: there are other descriptors of it.
struct Ending(UnixStream);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub flags: u16,
    pub verb: u16,
    pub cookie: u64,
    pub offset: u64,
    pub length: u64,
    /// Of a write.
    pub data: Vec<u8>,
}

/// A connection.
pub struct Talk {
    stream: UnixStream,
    offer: Offer,
    gate: Gate,
    shared: Arc<Shared>,
}

fn closed() -> std::io::Error {
    std::io::ErrorKind::BrokenPipe.into()
}

impl Talk {
    /// What was negotiated.
    pub fn offer(&self) -> Offer {
        self.offer
    }

    /// Ends every connection of the peer, this one too.
    pub fn cut_all(&self) {
        self.shared.cut_all();
    }

    /// Something begins `ahead` bytes behind what was sent.
    fn mark(&self, ahead: usize) {
        let sent = self.shared.sent.load(Ordering::SeqCst);
        self.shared.marks.lock().expect("the marks").push(sent + ahead);
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.mark(0);
        let (now, after) = match &mut self.gate {
            Some((left, after)) if *left < bytes.len() as u64 => {
                let now = usize::try_from(*left).expect("less than was given");
                *left = 0;
                (now, Some(*after))
            }
            Some((left, _)) => {
                *left -= bytes.len() as u64;
                (bytes.len(), None)
            }
            None => (bytes.len(), None),
        };
        self.stream.write_all(&bytes[..now])?;
        self.shared.sent.fetch_add(now, Ordering::SeqCst);
        match after {
            None => Ok(()),
            Some(After::Close) => Err(closed()),
            Some(After::Silence) => self.hold(),
        }
    }

    /// Says nothing more, and takes what comes until the client goes.
    pub fn hold(&mut self) -> std::io::Result<()> {
        let mut sink = [0; 4096];
        while self.stream.read(&mut sink)? > 0 {}
        Err(closed())
    }

    fn bytes<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn negotiate(&mut self) -> std::io::Result<()> {
        self.raw(b"NBDMAGICIHAVEOPT\0\x03")?;
        self.bytes::<4>()?;
        loop {
            let head: [u8; 16] = self.bytes()?;
            let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
            let (option, length) = (number(8), number(12));
            let mut payload = vec![0; length.min(1 << 16) as usize];
            self.stream.read_exact(&mut payload)?;
            let style = self.offer.style;
            match option {
                11 if style == Style::Extended => self.reply(11, 1, &[])?,
                8 if style == Style::Structured => self.reply(8, 1, &[])?,
                10 if style != Style::Simple => {
                    let name = [&CONTEXT.to_be_bytes()[..], b"base:allocation"].concat();
                    self.reply(10, 4, &name)?;
                    self.reply(10, 1, &[])?;
                }
                7 => {
                    let export =
                        [&[0, 0][..], &self.offer.size.to_be_bytes(), &self.offer.flags.to_be_bytes()];
                    self.reply(7, 3, &export.concat())?;
                    if let Some((minimum, preferred, maximum)) = self.offer.blocks {
                        let sizes = [minimum, preferred, maximum].map(u32::to_be_bytes).concat();
                        self.reply(7, 3, &[&[0, 3][..], &sizes].concat())?;
                    }
                    return self.reply(7, 1, &[]);
                }
                2 => return Err(closed()),
                _ => self.reply(option, 0x8000_0001, &[])?,
            }
        }
    }

    fn reply(&mut self, option: u32, kind: u32, payload: &[u8]) -> std::io::Result<()> {
        let mut bytes = 0x0003_e889_0455_65a9u64.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(u32::try_from(payload.len()).expect("short").to_be_bytes());
        bytes.extend(payload);
        self.raw(&bytes)
    }

    /// The next request. One that no client may send is a panic, which the client sees as the end.
    pub fn request(&mut self) -> std::io::Result<Request> {
        let magic = u32::from_be_bytes(self.bytes()?);
        let extended = self.offer.style == Style::Extended;
        assert_eq!(magic, if extended { 0x21e4_1c71 } else { 0x2560_9513 }, "a request's magic");
        let flags = u16::from_be_bytes(self.bytes()?);
        let verb = u16::from_be_bytes(self.bytes()?);
        let cookie = u64::from_be_bytes(self.bytes()?);
        let offset = u64::from_be_bytes(self.bytes()?);
        let length = if extended {
            u64::from_be_bytes(self.bytes()?)
        } else {
            u32::from_be_bytes(self.bytes()?).into()
        };
        let mut request = Request { flags, verb, cookie, offset, length, data: Vec::new() };
        self.check_blocks(&request);
        if verb == verb::WRITE {
            assert_eq!(flags & 32 != 0, extended, "a payload is announced exactly with extended headers");
            request.data = vec![0; usize::try_from(length).expect("a small write")];
            self.stream.read_exact(&mut request.data)?;
        }
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| end <= self.offer.size), "outside the export: {request:?}");
        Ok(request)
    }

    /// Block sizes that were announced are kept to; the largest one is for what has a payload.
    fn check_blocks(&self, request: &Request) {
        let Some((minimum, _, maximum)) = self.offer.blocks else { return };
        let of_blocks = |bytes: u64| bytes.is_multiple_of(u64::from(minimum));
        assert!(of_blocks(request.offset) && of_blocks(request.length), "parts of blocks: {request:?}");
        let moves = matches!(request.verb, verb::READ | verb::WRITE);
        assert!(!moves || request.length <= u64::from(maximum), "more than {maximum} bytes: {request:?}");
    }

    /// A whole simple reply.
    pub fn simple(&mut self, cookie: u64, error: u32, data: &[u8]) -> std::io::Result<()> {
        let mut bytes = 0x6744_6698u32.to_be_bytes().to_vec();
        bytes.extend(error.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        self.mark(bytes.len());
        bytes.extend(data);
        self.raw(&bytes)
    }

    /// The head of a chunk in the style of the connection.
    pub fn head(&mut self, request: &Request, flags: u16, kind: u16, length: u64) -> std::io::Result<()> {
        let extended = self.offer.style == Style::Extended;
        let magic: u32 = if extended { 0x6e8a_278c } else { 0x668e_33ef };
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(request.cookie.to_be_bytes());
        if extended {
            bytes.extend(request.offset.to_be_bytes());
            bytes.extend(length.to_be_bytes());
        } else {
            bytes.extend(u32::try_from(length).expect("a short chunk").to_be_bytes());
        }
        self.raw(&bytes)
    }

    /// A whole chunk in the style of the connection.
    pub fn chunk(&mut self, request: &Request, flags: u16, kind: u16, payload: &[u8]) -> std::io::Result<()> {
        self.head(request, flags, kind, payload.len() as u64)?;
        if payload.is_empty() { Ok(()) } else { self.raw(payload) }
    }

    /// A chunk of data at an offset.
    pub fn data(&mut self, request: &Request, flags: u16, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.chunk(request, flags, chunk::DATA, &[&offset.to_be_bytes()[..], data].concat())
    }

    /// A hole.
    pub fn hole(&mut self, request: &Request, flags: u16, offset: u64, length: u32) -> std::io::Result<()> {
        let payload = [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat();
        self.chunk(request, flags, chunk::HOLE, &payload)
    }

    /// Done, whatever the style.
    pub fn done(&mut self, request: &Request) -> std::io::Result<()> {
        match self.offer.style {
            Style::Simple => self.simple(request.cookie, 0, &[]),
            _ => self.chunk(request, DONE, chunk::NONE, &[]),
        }
    }

    /// An error, whatever the style.
    pub fn fail(&mut self, request: &Request, error: u32, text: &str) -> std::io::Result<()> {
        if self.offer.style == Style::Simple {
            return self.simple(request.cookie, error, &[]);
        }
        let length = u16::try_from(text.len()).expect("a short text");
        let payload = [&error.to_be_bytes()[..], &length.to_be_bytes(), text.as_bytes()].concat();
        self.chunk(request, DONE, chunk::ERROR, &payload)
    }

    /// Extents of `base:allocation`: lengths and flags.
    pub fn status(&mut self, request: &Request, extents: &[(u64, u32)]) -> std::io::Result<()> {
        let mut payload = CONTEXT.to_be_bytes().to_vec();
        let extended = self.offer.style == Style::Extended;
        if extended {
            payload.extend(u32::try_from(extents.len()).expect("few extents").to_be_bytes());
        }
        for (length, flags) in extents {
            if extended {
                payload.extend(length.to_be_bytes());
                payload.extend(u64::from(*flags).to_be_bytes());
            } else {
                payload.extend(u32::try_from(*length).expect("a short extent").to_be_bytes());
                payload.extend(flags.to_be_bytes());
            }
        }
        self.chunk(request, DONE, if extended { chunk::STATUS_EXT } else { chunk::STATUS }, &payload)
    }
}

/// Answers a request as it should be answered, the data in two chunks where that is possible.
pub fn answer(talk: &mut Talk, request: &Request, content: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let range = request.offset as usize..(request.offset + request.length) as usize;
    match request.verb {
        verb::READ => {
            let data = content.lock().expect("the content")[range].to_vec();
            if talk.offer.style == Style::Simple {
                return talk.simple(request.cookie, 0, &data);
            }
            let (first, second) = data.split_at(data.len() / 2);
            let middle = request.offset + first.len() as u64;
            // Out of order, and a hole where there is nothing but zeros.
            if second.iter().all(|byte| *byte == 0) && !second.is_empty() {
                talk.hole(request, 0, middle, second.len() as u32)?;
            } else {
                talk.data(request, 0, middle, second)?;
            }
            if first.is_empty() {
                return talk.done(request);
            }
            return talk.data(request, DONE, request.offset, first);
        }
        verb::WRITE => content.lock().expect("the content")[range].copy_from_slice(&request.data),
        verb::ZERO | verb::TRIM => content.lock().expect("the content")[range].fill(0),
        verb::STATUS => return talk.status(request, &[(request.length, 0)]),
        verb::FLUSH => {}
        verb::DISC => return Err(closed()),
        _ => return talk.fail(request, 22, "no such request"),
    }
    talk.done(request)
}

/// Answers every request as it should be answered.
pub fn serve(talk: &mut Talk, content: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    loop {
        let request = talk.request()?;
        answer(talk, &request, content)?;
    }
}
