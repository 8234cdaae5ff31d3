//! A small NFC client made of the codec alone: it waits for each answer, and shows everything that comes.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::net::nfc::Compression;
use vixDiskLib::net::nfc::aio::Header;
use vixDiskLib::net::nfc::aio::Kind;
use vixDiskLib::net::nfc::authd;
use vixDiskLib::net::nfc::authd::Command;
use vixDiskLib::net::nfc::authd::Reply;
use vixDiskLib::net::nfc::blocks;
use vixDiskLib::net::nfc::blocks::Query;
use vixDiskLib::net::nfc::classic;
use vixDiskLib::net::nfc::classic::Message;
use vixDiskLib::net::nfc::ddb;
use vixDiskLib::net::nfc::io::Fragments;
use vixDiskLib::net::nfc::io::Io;
use vixDiskLib::net::nfc::open;
use vixDiskLib::net::nfc::open::OpenFile;
use vixDiskLib::net::nfc::open::OpenSession;
use vixDiskLib::net::nfc::open::Opened;
use vixDiskLib::net::nfc::pack::Packer;
use vixDiskLib::net::nfc::pack::Unpacker;
use vixDiskLib::net::nfc::refusal::Heard;
use vixDiskLib::net::nfc::refusal::Refusal;
use vixDiskLib::net::nfc::ticket::HostIdentity;
use vixDiskLib::net::nfc::ticket::Ticket;
use vixDiskLib::net::socket::Address;
use vixDiskLib::net::socket::Socket;
use vixDiskLib::net::stream::Patience;
use vixDiskLib::net::stream::Stream;
use vixDiskLib::net::tls::Tls;
use vixDiskLib::net::tls::TlsSettings;

/// No answer takes longer in these tests.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A connection, which may be lent to TLS.
#[derive(Clone, Debug)]
pub struct Wire(pub Arc<dyn Stream>);

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
        Wire(Arc::new(Socket::connect(&address, soon()).unwrap()))
    }

    pub fn tls(&self, thumbprint: &str) -> Result<Wire> {
        let settings = TlsSettings { thumbprint: Some(thumbprint.to_owned()), ..TlsSettings::default() };
        let tls = Tls::new(&settings, Log::none()).unwrap();
        tls.wrap(Box::new(self.0.clone()), "localhost", soon()).map(|stream| Wire(Arc::from(stream)))
    }

    pub fn say(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let sent = self.0.send(&[IoSlice::new(bytes)], Patience::Until(soon()))?.ok_or_else(late)?;
            bytes = &bytes[sent..];
        }
        if self.0.push(Patience::Until(soon()))? { Ok(()) } else { Err(late()) }
    }

    /// Exactly so many bytes.
    pub fn hear(&self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            let room = &mut [IoSliceMut::new(&mut bytes[filled..])];
            match self.0.recv(room, Patience::Until(soon()))?.ok_or_else(late)? {
                0 => {
                    return Err(Error::new(
                        ErrorKind::ConnectionLost,
                        format!("ended after {filled} of {count}"),
                    ));
                }
                got => filled += got,
            }
        }
        Ok(bytes)
    }

    pub fn line(&self) -> Result<Reply> {
        let mut line = Vec::new();
        while authd::line_length(&line)?.is_none() {
            line.extend(self.hear(1)?);
        }
        Reply::parse(&line)
    }

    pub fn command(&self, command: Command<'_>) -> Result<()> {
        self.say(&command.encode()?)
    }

    /// Everything up to the end.
    pub fn rest(&self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(byte) = self.hear(1) {
            all.extend(byte);
        }
        all
    }
}

fn late() -> Error {
    Error::new(ErrorKind::TimedOut, "no answer")
}

/// A fragment that came: of which range, its place in it, and how it was packed.
pub type Arrival = (usize, u32, Compression);

/// How a session is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub secure: bool,
    pub write: bool,
    pub buffer: u32,
}

impl Default for Wish {
    fn default() -> Self {
        Self { secure: false, write: false, buffer: 65536 }
    }
}

/// Through authd, up to the first byte of NFC.
pub fn enter(ticket: &Ticket, secure: bool) -> Result<Wire> {
    let (inner, thumbprint) = knock(ticket)?;
    let tls = inner.tls(&thumbprint)?;
    let id = ticket.id.expose_text().unwrap();
    tls.command(Command::Session(id))?;
    tls.command(Command::Banner)?;
    assert!(tls.line()?.is_good());
    tls.command(Command::Thumbprint)?;
    tls.line()?;
    tls.command(Command::Proxy(&authd::service(&ticket.service, secure)))?;
    let reply = tls.line()?;
    if !reply.is_good() {
        return Err(Error::new(ErrorKind::Unauthorised, format!("{} {}", reply.code, reply.text)));
    }
    if secure { inner.tls(&thumbprint) } else { Ok(inner) }
}

/// The connection after its banner, and the thumbprint of the host.
pub fn knock(ticket: &Ticket) -> Result<(Wire, String)> {
    let address: SocketAddr = format!("{}:{}", ticket.host.as_deref().unwrap(), ticket.port).parse().unwrap();
    let Some(HostIdentity::Thumbprint(thumbprint)) = ticket.identity.clone() else { panic!("no thumbprint") };
    let inner = Wire::connect(address);
    let banner = inner.line()?;
    assert_eq!(banner.code, 220);
    Ok((inner, thumbprint))
}

/// Messages up to the frames; the version that the host answers.
pub fn greet(wire: &Wire) -> Result<u32> {
    wire.say(&Message::Hello(classic::PLAIN_TEXT).encode())?;
    wire.say(&Message::Parameters.encode())?;
    wire.say(&Message::Version { number: classic::VERSION, second: 0 }.encode())?;
    let mut version = None;
    for _ in 0..2 {
        match Message::parse(&wire.hear(classic::LENGTH)?)? {
            Message::ParametersReply { versions: 1 } => {}
            Message::Version { number, .. } => version = Some(number),
            Message::Complete => return Err(Error::new(ErrorKind::NotSupported, "refused")),
            other => panic!("{other:?}"),
        }
    }
    wire.say(&Message::Names { client: 4, operation: 7 }.encode())?;
    wire.say(b"vddknbdmode")?;
    wire.say(&Message::Features(classic::FEATURES).encode())?;
    wire.say(&Message::Frames.encode())?;
    match Message::parse(&wire.hear(classic::LENGTH)?)? {
        Message::Frames => Ok(version.unwrap()),
        other => Err(Error::new(ErrorKind::NotSupported, format!("{other:?}"))),
    }
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub header: Header,
    pub payload: Vec<u8>,
    pub more: Vec<u8>,
}

/// A session with an open file.
pub struct Client {
    pub wire: Wire,
    pub opened: Opened,
    pub buffer: u32,
    next: u32,
    unpacker: Unpacker,
}

impl Client {
    /// Everything up to an open file.
    pub fn open(ticket: &Ticket, path: &str, wish: Wish) -> Result<Client> {
        let mut client = Client::session(ticket, wish)?;
        client.opened = client.open_file(path, wish.write)??;
        Ok(client)
    }

    /// Everything up to a session without a file.
    pub fn session(ticket: &Ticket, wish: Wish) -> Result<Client> {
        let wire = enter(ticket, wish.secure)?;
        greet(&wire)?;
        let opened = Opened {
            status: 1,
            handle: 0,
            file_type: 0,
            flags: 0,
            capacity: 0,
            sector_size: 0,
            geometry: (0, 0, 0),
        };
        let mut client = Client { wire, opened, buffer: wish.buffer, next: 0, unpacker: Unpacker::new() };
        client.open_session(wish.buffer)??;
        let mut bytes = Vec::new();
        open::SocketOptions::default().encode(client.op(), &mut bytes);
        open::resource_pool(1, client.op(), &mut bytes);
        client.wire.say(&bytes)?;
        for kind in [Kind::SocketOptions, Kind::ResourcePool] {
            assert_eq!(client.frame()?.header.kind, kind);
        }
        Ok(client)
    }

    pub fn op(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    pub fn open_session(&mut self, buffer: u32) -> Result<Result<(), Error>> {
        let (op, mut bytes) = (self.op(), Vec::new());
        OpenSession { buffer, count: 4 }.encode(op, &mut bytes);
        self.wire.say(&bytes)?;
        self.answer(op).map(|answer| answer.map(drop).map_err(|refusal| refusal.error()))
    }

    pub fn open_file(&mut self, path: &str, write: bool) -> Result<Result<Opened, Error>> {
        let (op, mut bytes) = (self.op(), Vec::new());
        OpenFile::encode(path, write, op, &mut bytes)?;
        self.wire.say(&bytes)?;
        let answer = self.answer(op)?;
        Ok(answer.map_err(|refusal| refusal.error()).and_then(|frame| Opened::parse(&frame.payload)))
    }

    /// The next frame with all that belongs to it.
    pub fn frame(&mut self) -> Result<Frame> {
        let header = Header::parse(&self.wire.hear(16)?)?;
        let payload = self.wire.hear(header.size as usize)?;
        let more = match header.kind {
            Kind::Refusal => Heard::parse(&payload)?.follows as usize,
            Kind::Io => Io::parse(&payload).map(|io| match io.direction {
                vixDiskLib::net::nfc::io::Direction::Read => io.wire as usize,
                vixDiskLib::net::nfc::io::Direction::Write => 0,
            })?,
            Kind::DdbGet => ddb::value_length(&payload)? as usize,
            Kind::Blocks => blocks::bitmap_length(Query::parse(&payload)?.chunks)?,
            _ => 0,
        };
        Ok(Frame { header, payload, more: self.wire.hear(more)? })
    }

    /// The answer to an operation, or why it is refused: the refusal and the answer with a status after it.
    pub fn answer(&mut self, op: u32) -> Result<Result<Frame, Refusal>> {
        let frame = self.frame()?;
        assert_eq!(frame.header.op, op);
        if frame.header.kind != Kind::Refusal {
            return Ok(Ok(frame));
        }
        let refusal = Heard::parse(&frame.payload)?.with(&frame.more);
        let after = self.frame()?;
        assert_eq!((after.header.op, open::status(&after.payload)), (op, refusal.code));
        assert!(after.more.is_empty());
        Ok(Err(refusal))
    }

    /// Asks for ranges at once and puts their fragments together. Also the order in which they came.
    pub fn reads(
        &mut self,
        ranges: &[(u64, u32)],
        compression: Compression,
    ) -> Result<(Vec<Vec<u8>>, Vec<Arrival>)> {
        let mut bytes = Vec::new();
        let mut books = HashMap::new();
        let mut got: Vec<Vec<u8>> = Vec::new();
        for (i, (offset, length)) in ranges.iter().enumerate() {
            let io = Io::read(self.opened.handle, compression, *offset, *length);
            let op = self.op();
            bytes.extend(io.encode(op));
            books.insert(op, (i, Fragments::of_read(&io, self.buffer)));
            got.push(vec![0xee; *length as usize]);
        }
        self.wire.say(&bytes)?;
        let mut order = Vec::new();
        while !books.is_empty() {
            let frame = self.frame()?;
            if frame.header.kind == Kind::Refusal {
                return Err(Heard::parse(&frame.payload)?.with(&frame.more).error());
            }
            let io = Io::parse(&frame.payload)?;
            let (i, fragments) = books.get_mut(&frame.header.op).expect("an operation that was asked for");
            let place = fragments.take(&io)?;
            let room = &mut got[*i][place.start as usize..place.end as usize];
            self.unpacker.unpack(io.compression, &frame.more, room)?;
            order.push((*i, place.start, io.compression));
            if fragments.is_complete() {
                books.remove(&frame.header.op);
            }
        }
        Ok((got, order))
    }

    pub fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.reads(&[(offset, length)], Compression::None).map(|(mut got, _)| got.remove(0))
    }

    /// Writes, and waits for the answer.
    pub fn write(&mut self, offset: u64, data: &[u8], compression: Compression) -> Result<Result<(), Error>> {
        let op = self.op();
        let mut packer = Packer::new(compression);
        let mut bytes = Vec::new();
        for (i, part) in data.chunks(self.buffer as usize).enumerate() {
            let at = i as u32 * self.buffer;
            let io = Io::write(self.opened.handle, offset, data.len() as u32, at, part.len() as u32);
            match packer.pack(part) {
                Some(packed) => {
                    bytes.extend(io.packed(compression, packed.len() as u32).encode(op));
                    bytes.extend(packed);
                }
                None => {
                    bytes.extend(io.encode(op));
                    bytes.extend(part);
                }
            }
        }
        self.wire.say(&bytes)?;
        Ok(self.answer(op)?.map(drop).map_err(|refusal| refusal.error()))
    }

    pub fn key(&mut self, key: &str) -> Result<Option<String>> {
        let (op, mut bytes) = (self.op(), Vec::new());
        ddb::Get::encode(self.opened.handle, key, op, &mut bytes)?;
        self.wire.say(&bytes)?;
        ddb::value(&self.answer(op)?.map_err(|refusal| refusal.error())?.more)
    }

    /// Rows of allocated chunks.
    pub fn blocks(&mut self, chunk: u64, start: u64, chunks: u64) -> Result<Result<Vec<(u64, u64)>, Error>> {
        let (op, mut bytes) = (self.op(), Vec::new());
        Query { handle: self.opened.handle, chunk, start, chunks }.encode(op, &mut bytes);
        self.wire.say(&bytes)?;
        Ok(self.answer(op)?.map_err(|refusal| refusal.error()).map(|frame| {
            let mut rows = Vec::new();
            blocks::runs(&frame.more, chunks, |run| rows.push((run.start, run.end)));
            rows
        }))
    }

    /// Says goodbye as it should be done.
    pub fn close(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let (file, session) = (self.op(), self.op());
        open::close_file(self.opened.handle, file, &mut bytes);
        open::close_session(session, &mut bytes);
        self.wire.say(&bytes)?;
        for kind in [Kind::CloseFile, Kind::CloseSession] {
            assert_eq!(self.frame()?.header.kind, kind);
        }
        self.wire.say(&Message::Complete.encode())?;
        Ok(self.wire.rest())
    }
}
