//! An ESXi host inside the test, which may lie: its door with TLS, or none; then what a closure says goes over the wire.
//!
//! [`serve`] is the honest one, over bytes in memory. Everything that is sent passes a gate that closes after a given
//! number of bytes, so that a session can end at each of them.

use std::io::Cursor;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use rustls::ServerConfig;
use rustls::ServerConnection;
use vixDiskLib::error::Result;
use vixDiskLib::net::nfc::Compression;
use vixDiskLib::net::nfc::aio;
use vixDiskLib::net::nfc::aio::Header;
use vixDiskLib::net::nfc::aio::Kind;
use vixDiskLib::net::nfc::authd::Banner;
use vixDiskLib::net::nfc::authd::Command;
use vixDiskLib::net::nfc::blocks;
use vixDiskLib::net::nfc::blocks::Query;
use vixDiskLib::net::nfc::classic;
use vixDiskLib::net::nfc::classic::Message;
use vixDiskLib::net::nfc::client::Buffers;
use vixDiskLib::net::nfc::client::Door;
use vixDiskLib::net::nfc::client::Failure;
use vixDiskLib::net::nfc::client::Passed;
use vixDiskLib::net::nfc::client::Wanted;
use vixDiskLib::net::nfc::ddb;
use vixDiskLib::net::nfc::io::Direction;
use vixDiskLib::net::nfc::io::Io;
use vixDiskLib::net::nfc::open;
use vixDiskLib::net::nfc::pack::Packer;
use vixDiskLib::net::nfc::pack::Unpacker;
use vixDiskLib::net::nfc::refusal::Refusal;
use vixDiskLib::net::socket::Address;
use vixDiskLib::net::socket::Socket;

/// What comes when the gate closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Close,
    Silence,
}

/// The first bytes of a connection that may leave, counted on the socket, and what comes then.
pub type Gate = Option<(u64, After)>;

/// The handle it gives to its file.
pub const HANDLE: u64 = 0x0000_5604_1234_5678;

/// The thread's work on one connection; an error ends the connection.
type Body = dyn Fn(usize, &mut Talk) -> std::io::Result<()> + Send + Sync;

/// A running host on a port of its own. On drop its connections are closed and its threads are over.
pub struct Host {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ending: AtomicBool,
    seen: AtomicUsize,
    sent: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Host {
    /// Serves every connection by `body`, which gets its number, counted from 0.
    pub fn new(body: impl Fn(usize, &mut Talk) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        Self::behind(|_| None, body)
    }

    /// The same with a gate for each connection.
    pub fn behind(
        gate: impl Fn(usize) -> Gate + Send + Sync + 'static,
        body: impl Fn(usize, &mut Talk) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let (for_thread, body): (_, Arc<Body>) = (shared.clone(), Arc::new(body));
        let thread = std::thread::spawn(move || accept(&listener, &for_thread, &gate, &body));
        Self { address, shared, thread: Some(thread) }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections were made.
    pub fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// How many bytes it sent on all connections.
    pub fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// A way to it where no ticket is wanted.
    pub fn open_door(&self) -> Arc<dyn Door> {
        Arc::new(OpenDoor(self.port()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the one that accepts
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in self.shared.streams.lock().expect("the streams").iter() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let threads = std::mem::take(&mut *self.shared.threads.lock().expect("the threads"));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    gate: &(impl Fn(usize) -> Gate + Send),
    body: &Arc<Body>,
) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.ending.load(Ordering::SeqCst) {
            return;
        }
        stream.set_nodelay(true).expect("no delay");
        let number = shared.seen.fetch_add(1, Ordering::SeqCst);
        let gate = gate(number);
        shared.streams.lock().expect("the streams").push(stream.try_clone().expect("another descriptor"));
        let mut talk = Talk { stream, gate, shared: shared.clone(), tls: None, buffer: 65536, op: None };
        let body = body.clone();
        let thread = std::thread::spawn(move || {
            let _ = body(number, &mut talk);
            let _ = talk.stream.shutdown(std::net::Shutdown::Both);
        });
        shared.threads.lock().expect("the threads").push(thread);
    }
}

/// Connects and nothing else.
#[derive(Debug)]
struct OpenDoor(u16);

impl Door for OpenDoor {
    fn pass(&self, until: Instant) -> Result<Passed, Failure> {
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: self.0 };
        let stream = Box::new(Socket::connect(&address, until)?);
        Ok(Passed { stream, host: "127.0.0.1".to_owned(), port: self.0, service: "vpxa-nfc".to_owned() })
    }
}

/// A disk at such a host.
pub fn wanted(write: bool, compression: Compression) -> Wanted {
    Wanted {
        path: "[ds] vm/vm.vmdk".to_owned(),
        write,
        compression,
        buffers: Buffers::default(),
        client_name: classic::CLIENT.to_owned(),
    }
}

/// A connection.
pub struct Talk {
    stream: TcpStream,
    gate: Gate,
    shared: Arc<Shared>,
    tls: Option<ServerConnection>,
    /// What the client's session asked for.
    pub buffer: u32,
    /// The number of the operation that comes next.
    op: Option<u32>,
}

/// A frame of the client, with what follows its payload.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: Kind,
    pub op: u32,
    pub payload: Vec<u8>,
    pub more: Vec<u8>,
}

impl Frame {
    /// The structure of reads and writes.
    pub fn io(&self) -> Io {
        Io::parse(&self.payload).expect("an I/O message")
    }
}

pub fn closed() -> std::io::Error {
    std::io::ErrorKind::BrokenPipe.into()
}

fn invalid(e: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::other(e.to_string())
}

impl Talk {
    /// Sends bytes as they are, inside of TLS if there is one.
    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.tls.is_none() {
            return self.push(bytes);
        }
        for part in bytes.chunks(32 << 10) {
            self.tls().writer().write_all(part)?; // it holds 64 KiB
            self.push_tls()?;
        }
        self.push_tls()
    }

    fn push_tls(&mut self) -> std::io::Result<()> {
        let mut records = Vec::new();
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut records)?;
            }
        }
        self.push(&records)
    }

    /// Sends bytes below any TLS.
    pub fn push(&mut self, bytes: &[u8]) -> std::io::Result<()> {
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

    /// The next bytes of the client.
    pub fn take(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut at = 0;
        while at < count {
            let Some(tls) = &mut self.tls else {
                self.stream.read_exact(&mut bytes)?;
                return Ok(bytes);
            };
            match tls.reader().read(&mut bytes[at..]) {
                Ok(0) => return Err(closed()),
                Ok(n) => at += n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => self.record()?,
                Err(e) => return Err(e),
            }
        }
        Ok(bytes)
    }

    /// One record of TLS and nothing behind it.
    pub fn record(&mut self) -> std::io::Result<()> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        self.stream.read_exact(&mut record)?;
        let mut whole = Cursor::new([&head[..], &record].concat());
        if let Some(tls) = &mut self.tls {
            tls.read_tls(&mut whole)?;
            tls.process_new_packets().map_err(invalid)?;
        }
        self.push_tls()
    }

    /// From here on in TLS.
    pub fn start_tls(&mut self, config: &Arc<ServerConfig>) -> std::io::Result<()> {
        self.tls = Some(ServerConnection::new(Arc::clone(config)).map_err(invalid)?);
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.record()?;
        }
        Ok(())
    }

    /// From here on without it.
    pub fn leave_tls(&mut self) {
        self.tls = None;
    }

    /// The TLS that is going on.
    pub fn tls(&mut self) -> &mut ServerConnection {
        self.tls.as_mut().expect("TLS")
    }

    /// A line of the client, inside of TLS.
    pub fn line(&mut self) -> std::io::Result<Vec<u8>> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.extend(self.take(1)?);
        }
        Ok(line)
    }

    /// The conversation at the door, as it should be. Returns the service that was asked for.
    pub fn door(
        &mut self,
        banner: Banner,
        config: &Arc<ServerConfig>,
        sha256: &str,
    ) -> std::io::Result<String> {
        let greeting = banner.reply().encode();
        self.raw(&greeting)?;
        self.start_tls(config)?;
        loop {
            let line = self.line()?;
            match Command::parse(&line).map_err(invalid)? {
                Command::Session(_) => {}
                Command::Banner => self.raw(&greeting)?,
                Command::Thumbprint => self.raw(format!("200 {sha256}\r\n").as_bytes())?,
                Command::Proxy(service) => {
                    let service = service.to_owned();
                    self.raw(format!("200 Connect {service}\r\n").as_bytes())?;
                    self.leave_tls();
                    return Ok(service);
                }
                Command::Other(_) => self.raw(b"501 Invalid arguments\r\n")?,
            }
        }
    }

    /// The next message before the frames.
    pub fn message(&mut self) -> std::io::Result<Message> {
        Message::parse(&self.take(classic::LENGTH)?).map_err(invalid)
    }

    /// Says one.
    pub fn say(&mut self, message: Message) -> std::io::Result<()> {
        self.raw(&message.encode())
    }

    /// The client's first three messages.
    pub fn hear_hello(&mut self) -> std::io::Result<()> {
        assert_eq!(self.message()?, Message::Hello(classic::PLAIN_TEXT));
        assert_eq!(self.message()?, Message::Parameters);
        assert_eq!(self.message()?, Message::Version { number: classic::VERSION, second: 1 });
        Ok(())
    }

    /// The handshake as it should be.
    pub fn handshake(&mut self) -> std::io::Result<()> {
        self.hear_hello()?;
        self.say(Message::ParametersReply { versions: 1 })?;
        self.say(Message::Version { number: 11, second: 0 })?;
        self.hear_names()?;
        self.say(Message::Frames)
    }

    /// The rest of the client's part.
    pub fn hear_names(&mut self) -> std::io::Result<()> {
        let Message::Names { client, operation } = self.message()? else { return Err(invalid("no names")) };
        assert_eq!(self.take(client as usize)?, classic::CLIENT.as_bytes());
        assert_eq!(self.take(operation as usize)?, classic::OPERATION.as_bytes());
        assert_eq!(self.message()?, Message::Features(classic::FEATURES));
        assert_eq!(self.message()?, Message::Frames);
        Ok(())
    }

    /// The next frame. One that no client may send is a panic, which the client sees as the end.
    pub fn frame(&mut self) -> std::io::Result<Frame> {
        let head = self.take(aio::HEADER)?;
        let Header { kind, size, op } = Header::parse(&head).map_err(invalid)?;
        let payload = self.take(size as usize)?;
        let more = match kind {
            Kind::OpenFile => open::OpenFile::parse(&payload).map_err(invalid)?.path as usize,
            Kind::DdbGet => ddb::Get::parse(&payload).map_err(invalid)?.key as usize,
            Kind::Io => match Io::parse(&payload).map_err(invalid)? {
                io if io.direction == Direction::Write => io.wire as usize,
                _ => 0,
            },
            _ => 0,
        };
        let more = self.take(more)?;
        let begun = kind == Kind::Io && self.op == Some(op); // another fragment of a write
        if !begun {
            assert_eq!(op, self.op.map_or(0, |last| last.wrapping_add(1)), "operations are counted");
            self.op = Some(op);
        }
        Ok(Frame { kind, op, payload, more })
    }

    /// Answers a frame as it should be answered.
    pub fn answer(&mut self, frame: &Frame, disk: &Disk) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        match frame.kind {
            Kind::OpenSession => {
                let asked = open::OpenSession::parse(&frame.payload).map_err(invalid)?;
                self.buffer = if asked.buffer == 0 { 65536 } else { asked.buffer };
                open::answer(Kind::OpenSession, frame.op, 16, 0, &mut bytes);
            }
            Kind::SocketOptions => {
                open::SocketOptions { send: 1 << 18, receive: 1 << 18, flag: 1 }.encode(frame.op, &mut bytes);
            }
            Kind::ResourcePool => open::resource_pool(1, frame.op, &mut bytes),
            Kind::OpenFile => opened(disk.size()).encode(frame.op, &mut bytes),
            Kind::DdbGet => {
                let key = String::from_utf8_lossy(&frame.more);
                let found = disk.keys.iter().find(|(name, _)| *name == key);
                ddb::answer(found.map_or("", |(_, value)| value), frame.op, &mut bytes);
            }
            Kind::Io => return self.answer_io(frame, disk),
            Kind::Blocks => {
                let query = Query::parse(&frame.payload).map_err(invalid)?;
                let mut bitmap = vec![0; blocks::bitmap_length(query.chunks).map_err(invalid)?];
                for range in &disk.allocated {
                    let first = (range.start.max(query.start) - query.start) / query.chunk;
                    let end = range.end.saturating_sub(query.start).div_ceil(query.chunk);
                    blocks::mark(&mut bitmap, first..end.min(query.chunks));
                }
                query.answer(&bitmap, frame.op, &mut bytes);
            }
            Kind::CloseFile => open::close_file(HANDLE, frame.op, &mut bytes),
            Kind::CloseSession => open::close_session(frame.op, &mut bytes),
            Kind::Refusal | Kind::Other(_) => return Err(closed()),
        }
        self.raw(&bytes)
    }

    fn answer_io(&mut self, frame: &Frame, disk: &Disk) -> std::io::Result<()> {
        let io = frame.io();
        assert_eq!(io.handle, HANDLE);
        let whole = io.offset as usize..(io.offset + u64::from(io.total)) as usize;
        assert!(whole.end as u64 <= disk.size(), "outside of the disk: {io:?}");
        if io.direction == Direction::Write {
            assert!(io.length <= self.buffer && io.wire <= self.buffer, "{io:?}");
            let from = whole.start + io.at as usize;
            let mut bytes = disk.bytes.lock().expect("the disk");
            let place = &mut bytes[from..from + io.length as usize];
            Unpacker::new().unpack(io.compression, &frame.more, place).map_err(invalid)?;
            return match io.at + io.length == io.total {
                true => self.raw(&io.answer(0).encode(frame.op)),
                false => Ok(()),
            };
        }
        let data = disk.bytes.lock().expect("the disk")[whole].to_vec();
        let mut parts: Vec<(usize, &[u8])> = data
            .chunks(self.buffer as usize)
            .enumerate()
            .map(|(i, part)| (i * self.buffer as usize, part))
            .collect();
        if disk.reversed {
            parts.reverse();
        }
        let mut packer = Packer::new(io.compression);
        for (at, part) in parts {
            self.fragment(frame, at, part, &mut packer)?;
        }
        Ok(())
    }

    fn fragment(
        &mut self,
        frame: &Frame,
        at: usize,
        data: &[u8],
        packer: &mut Packer,
    ) -> std::io::Result<()> {
        let fragment = frame.io().fragment(at as u32, data.len() as u32);
        let (head, data) = match packer.pack(data) {
            Some(packed) => (fragment.packed(frame.io().compression, packed.len() as u32), packed),
            None => (fragment, data),
        };
        let bytes = [&head.encode(frame.op)[..], data].concat();
        self.raw(&bytes)
    }

    /// Refuses a frame the way hosts do: the reason, then the answer itself.
    pub fn refuse(&mut self, frame: &Frame, code: u64, text: &str) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        Refusal { code, text: text.to_owned() }.encode(frame.op, &mut bytes);
        match frame.kind {
            Kind::Io => bytes.extend(frame.io().answer(1).encode(frame.op)),
            kind => open::answer(kind, frame.op, frame.payload.len(), 1, &mut bytes),
        }
        self.raw(&bytes)
    }

    /// Answers what a client asks before its first read.
    pub fn open(&mut self, disk: &Disk) -> std::io::Result<()> {
        self.handshake()?;
        for _ in 0..4 + ddb::KNOWN_KEYS.len() {
            let frame = self.frame()?;
            self.answer(&frame, disk)?;
        }
        Ok(())
    }
}

/// What opening a disk of this size is answered with.
pub fn opened(capacity: u64) -> open::Opened {
    open::Opened {
        status: 0,
        handle: HANDLE,
        file_type: open::DISK,
        flags: open::READ_ONLY,
        capacity,
        sector_size: 0,
        geometry: (3, 255, 63),
    }
}

/// What an honest host has.
pub struct Disk {
    pub bytes: Mutex<Vec<u8>>,
    pub keys: Vec<(&'static str, &'static str)>,
    pub allocated: Vec<std::ops::Range<u64>>,
    /// Fragments come in reversed order.
    pub reversed: bool,
}

impl Disk {
    /// A disk with these bytes, all of them allocated.
    pub fn new(bytes: Vec<u8>) -> Disk {
        let all = 0..bytes.len() as u64;
        let keys = vec![("adapterType", "lsilogic"), ("uuid", "60 00 C2 9a"), ("geometry.biosHeads", "255")];
        Disk { bytes: Mutex::new(bytes), keys, allocated: vec![all], reversed: false }
    }

    pub fn size(&self) -> u64 {
        self.bytes.lock().expect("the disk").len() as u64
    }
}

/// Serves a connection as it should be, from the handshake to the farewell.
pub fn serve(talk: &mut Talk, disk: &Disk) -> std::io::Result<()> {
    talk.handshake()?;
    serve_frames(talk, disk)
}

/// The same from the first frame on.
pub fn serve_frames(talk: &mut Talk, disk: &Disk) -> std::io::Result<()> {
    loop {
        let frame = talk.frame()?;
        talk.answer(&frame, disk)?;
        if frame.kind == Kind::CloseSession {
            assert_eq!(talk.message()?, Message::Complete);
            return Ok(());
        }
    }
}
