//! From the door to an open file, and back: the handshake, a session of frames, a file in it; then the farewell.

use std::time::Duration;
use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nfc::aio::HEADER;
use crate::net::nfc::aio::Header;
use crate::net::nfc::aio::Kind;
use crate::net::nfc::broken;
use crate::net::nfc::classic;
use crate::net::nfc::classic::Message;
use crate::net::nfc::client::Buffers;
use crate::net::nfc::client::door::Failure;
use crate::net::nfc::ddb;
use crate::net::nfc::open;
use crate::net::nfc::open::OpenFile;
use crate::net::nfc::open::OpenSession;
use crate::net::nfc::open::SocketOptions;
use crate::net::nfc::refusal::Heard;
use crate::net::nfc::refusal::Refusal;
use crate::net::stream::Stream;
use crate::net::talk;

/// The share of a host's resources that is asked for, as other clients do.
const RESOURCE_POOL: u32 = 1;
/// What a disk is less than.
const MOST_CAPACITY: u64 = 1 << 62;
/// Sectors are at least and at most so long.
const SECTORS: std::ops::RangeInclusive<u32> = 512..=4096;

/// An open file in a session.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Names the file.
    pub handle: u64,
    /// Most data of a frame.
    pub buffer: u32,
    /// The number of the next operation.
    pub next: u32,
    /// Operations that were refused and whose answers have not come.
    pub refused: Vec<u32>,
}

/// What the answer to opening a file said, checked.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Bytes of the disk.
    pub capacity: u64,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// Cylinders, heads and sectors.
    pub geometry: (u32, u32, u32),
}

/// The handshake before the frames. Returns the version that is spoken.
pub fn shake_hands(stream: &dyn Stream, client: &str, until: Instant) -> Result<u32> {
    let version = Message::Version { number: classic::VERSION, second: 1 };
    for message in [Message::Hello(classic::PLAIN_TEXT), Message::Parameters, version] {
        say(stream, &message, until)?;
    }
    let (mut parameters, mut spoken) = (false, None);
    while !parameters || spoken.is_none() {
        match hear(stream, until)? {
            Message::ParametersReply { versions } if !parameters && versions != 0 => parameters = true,
            Message::ParametersReply { versions: 0 } => {
                let what = "the host knows only the older messages, of which no description is public";
                return Err(Error::new(ErrorKind::NotSupported, what));
            }
            Message::Version { number, .. } if spoken.is_none() => spoken = Some(classic::agree(number)?),
            other => return Err(out_of_place(&other)),
        }
    }
    say_names(stream, client, until)?;
    say(stream, &Message::Features(classic::FEATURES), until)?;
    say(stream, &Message::Frames, until)?;
    match hear(stream, until)? {
        Message::Frames => Ok(spoken.unwrap_or_default()),
        other => Err(out_of_place(&other)),
    }
}

fn say_names(stream: &dyn Stream, client: &str, until: Instant) -> Result<()> {
    let length = |name: &str| match u32::try_from(name.len()) {
        Ok(length) if length <= classic::MOST_NAME => Ok(length),
        _ => Err(Error::new(ErrorKind::InvalidArgument, "a client's name that is too long")),
    };
    let operation = classic::OPERATION;
    say(stream, &Message::Names { client: length(client)?, operation: length(operation)? }, until)?;
    talk::send(stream, client.as_bytes(), until)?;
    talk::send(stream, operation.as_bytes(), until)
}

/// A host reads one message per TLS record, so that each is sent by itself.
fn say(stream: &dyn Stream, message: &Message, until: Instant) -> Result<()> {
    talk::send(stream, &message.encode(), until).context(|| format!("saying {message:?}"))
}

fn hear(stream: &dyn Stream, until: Instant) -> Result<Message> {
    let mut bytes = [0; classic::LENGTH];
    talk::fill(stream, &mut bytes, until).context(|| "waiting for the host's part")?;
    Message::parse(&bytes)
}

fn out_of_place(message: &Message) -> Error {
    match message {
        Message::Complete => {
            let what = "the host ends the handshake: it does not know the asynchronous kind of session";
            Error::new(ErrorKind::NotSupported, what)
        }
        other => broken(format!("{other:?} has no place here")),
    }
}

/// Frames that are asked and answered one by one.
struct Frames<'s> {
    stream: &'s dyn Stream,
    until: Instant,
    /// Refused, and the answer has not come.
    refused: Vec<u32>,
}

impl Frames<'_> {
    fn next(&self) -> Result<(Header, Vec<u8>)> {
        let mut head = [0; HEADER];
        talk::fill(self.stream, &mut head, self.until)?;
        let header = Header::parse(&head)?;
        let mut payload = vec![0; header.size as usize]; // checked with the header
        talk::fill(self.stream, &mut payload, self.until)?;
        Ok((header, payload))
    }

    fn refusal(&mut self, op: u32, payload: &[u8]) -> Result<Refusal> {
        let heard = Heard::parse(payload)?;
        let mut text = vec![0; heard.follows as usize]; // checked too
        talk::fill(self.stream, &mut text, self.until)?;
        self.refused.push(op);
        Ok(heard.with(&text))
    }

    /// The answer to an operation of a kind whose answers are only payload.
    fn answer(&mut self, kind: Kind, op: u32) -> Result<Result<Vec<u8>, Refusal>> {
        loop {
            let (header, payload) = self.next()?;
            match header.kind {
                Kind::Refusal if header.op == op => return Ok(Err(self.refusal(op, &payload)?)),
                found if found == kind && header.op == op => return Ok(Ok(payload)),
                _ if self.answers_refused(header.op) => {}
                other => {
                    let what = format!("{other:?} of operation {}, expected {kind:?} of {op}", header.op);
                    return Err(broken(what));
                }
            }
        }
    }

    fn ask(&mut self, kind: Kind, op: u32, bytes: &[u8]) -> Result<Result<Vec<u8>, Refusal>> {
        let asked = talk::send(self.stream, bytes, self.until).and_then(|()| self.answer(kind, op));
        asked.context(|| format!("{kind:?}"))
    }

    fn answers_refused(&mut self, op: u32) -> bool {
        let found = self.refused.iter().position(|refused| *refused == op);
        found.map(|at| self.refused.swap_remove(at)).is_some()
    }
}

/// A status without a refusal before it.
fn bare_status(payload: &[u8]) -> Result<(), Refusal> {
    match open::status(payload) {
        0 => Ok(()),
        code => Err(Refusal { code, text: String::new() }),
    }
}

/// Opens a session, and a file in it.
pub fn open(
    stream: &dyn Stream,
    path: &str,
    write: bool,
    buffers: Buffers,
    until: Instant,
) -> Result<(Session, Found), Failure> {
    let mut frames = Frames { stream, until, refused: Vec::new() };
    let mut bytes = Vec::new();
    OpenSession { buffer: buffers.bytes, count: buffers.count }.encode(0, &mut bytes);
    let session = frames.ask(Kind::OpenSession, 0, &bytes)?.and_then(|payload| bare_status(&payload));
    session.map_err(|refusal| Failure::Buffers(refusal.error().context("opening a session")))?;
    bytes.clear();
    SocketOptions::default().encode(1, &mut bytes);
    let _ = frames.ask(Kind::SocketOptions, 1, &bytes)?; // only wishes: a host that refuses them may go on
    bytes.clear();
    open::resource_pool(RESOURCE_POOL, 2, &mut bytes);
    let _ = frames.ask(Kind::ResourcePool, 2, &bytes)?;
    bytes.clear();
    OpenFile::encode(path, write, 3, &mut bytes)?;
    let opened = frames.ask(Kind::OpenFile, 3, &bytes)?;
    let opened = opened.and_then(|payload| bare_status(&payload).map(|()| payload));
    let payload = opened.map_err(|refusal| refusal.error().context("opening the disk"))?;
    let opened = open::Opened::parse(&payload)?;
    let found = checked(&opened)?;
    let refused = frames.refused;
    Ok((Session { handle: opened.handle, buffer: buffers.bytes, next: 4, refused }, found))
}

/// What a host says about a disk may be nonsense.
fn checked(opened: &open::Opened) -> Result<Found> {
    let open::Opened { handle, capacity, geometry, .. } = *opened;
    let sector_size = if opened.sector_size == 0 { 512 } else { opened.sector_size };
    let sane = SECTORS.contains(&sector_size) && sector_size.is_power_of_two();
    if handle == 0 || capacity > MOST_CAPACITY || !sane || !capacity.is_multiple_of(u64::from(sector_size)) {
        return Err(broken(format!(
            "the disk is opened as handle {handle:#x} with {capacity} bytes in sectors of {sector_size}"
        )));
    }
    Ok(Found { capacity, sector_size, geometry })
}

/// Those of these values of the disk's data base that exist, all asked for at once.
pub fn keys(
    stream: &dyn Stream,
    session: &mut Session,
    names: &[&str],
    until: Instant,
) -> Result<Vec<(String, String)>> {
    let first = session.next;
    let mut bytes = Vec::new();
    for (op, key) in (first..).zip(names) {
        ddb::Get::encode(session.handle, key, op, &mut bytes)?;
        session.next = op.wrapping_add(1);
    }
    talk::send(stream, &bytes, until)?;
    let mut frames = Frames { stream, until, refused: std::mem::take(&mut session.refused) };
    let mut values: Vec<Option<Option<String>>> = vec![None; names.len()];
    while values.contains(&None) {
        let (header, payload) = frames.next()?;
        let place = header.op.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        let place = place.and_then(|at| values.get_mut(at)).filter(|value| value.is_none());
        match (header.kind, place) {
            (Kind::DdbGet, Some(place)) => *place = Some(value(&frames, &payload)?),
            (Kind::Refusal, Some(place)) => {
                frames.refusal(header.op, &payload)?;
                *place = Some(None);
            }
            (Kind::DdbGet, None) if frames.answers_refused(header.op) => {
                value(&frames, &payload)?;
            }
            (_, None) if header.op < first && frames.answers_refused(header.op) => {}
            (kind, _) => {
                return Err(broken(format!("{kind:?} of operation {} in answer to keys", header.op)));
            }
        }
    }
    session.refused = frames.refused;
    let known = names.iter().zip(values);
    Ok(known.filter_map(|(key, value)| Some(((*key).to_owned(), value??))).collect())
}

fn value(frames: &Frames<'_>, payload: &[u8]) -> Result<Option<String>> {
    let mut bytes = vec![0; ddb::value_length(payload)? as usize]; // checked there
    talk::fill(frames.stream, &mut bytes, frames.until)?;
    ddb::value(&bytes)
}

/// A host that answers slowly is not waited for longer than this at the end.
const LAST_ANSWERS: Duration = Duration::from_millis(1000);

/// Closes the file and the session as far as the host answers in time.
pub fn farewell(session: &Session, stream: &dyn Stream, until: Instant) -> Result<()> {
    let until = until.min(Instant::now() + LAST_ANSWERS);
    let mut frames = Frames { stream, until, refused: session.refused.clone() };
    let (file, end) = (session.next, session.next.wrapping_add(1));
    let mut bytes = Vec::new();
    open::close_file(session.handle, file, &mut bytes);
    let _ = frames.ask(Kind::CloseFile, file, &bytes)?; // refused or not, the session can be closed
    bytes.clear();
    open::close_session(end, &mut bytes);
    let _ = frames.ask(Kind::CloseSession, end, &bytes)?;
    say(stream, &Message::Complete, until)
}
