//! The encrypted stream: a half that receives and a half that sends.
//!
//! Each half has its lock, held by the one thread that receives or sends, also while it waits for the peer; neither takes
//! the other's. What they share is the keys' successor and a flag that says that the peer wants our next records under
//! new keys.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;
use rustls::AlertDescription;
use rustls::ConnectionTrafficSecrets;
use rustls::ContentType;
use rustls::ExtractedSecrets;
use rustls::SupportedCipherSuite;
use rustls::crypto::cipher::OutboundChunks;
use rustls::kernel::KernelConnection;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::stream::Patience;
use crate::net::stream::Ready;
use crate::net::stream::Stream;
use crate::net::tls::handshake;
use crate::net::tls::inbox::Inbox;
use crate::net::tls::record;
use crate::net::tls::record::Opened;
use crate::net::tls::record::Opener;
use crate::net::tls::record::Sealer;
use crate::net::tls::target::Target;

/// Most plain bytes that are encrypted ahead of what the socket takes.
const AHEAD: usize = 128 << 10;

/// Records other than data that a peer may send in a row.
const IDLE_RECORDS: u32 = 64;

/// Longest message of the handshake protocol after the handshake; session tickets are the longest.
const LONGEST_MESSAGE: usize = 64 << 10;

/// A stream inside of another.
pub struct TlsStream {
    inner: Box<dyn Stream>,
    suite: SupportedCipherSuite,
    receiver: Mutex<Receiver>,
    sender: Mutex<Sender>,
    /// Makes the next keys. Held only for that.
    keys: Mutex<Box<dyn NextKeys>>,
    /// The peer wants our next records under new keys.
    keys_wanted: AtomicBool,
}

/// Makes the keys that follow others; of a client's or a server's end.
trait NextKeys: Send {
    fn to_receive(&mut self) -> Result<(u64, ConnectionTrafficSecrets)>;

    fn to_send(&mut self) -> Result<(u64, ConnectionTrafficSecrets)>;
}

impl<D: Send> NextKeys for KernelConnection<D> {
    fn to_receive(&mut self) -> Result<(u64, ConnectionTrafficSecrets)> {
        self.update_rx_secret().map_err(|e| no_keys(&e))
    }

    fn to_send(&mut self) -> Result<(u64, ConnectionTrafficSecrets)> {
        self.update_tx_secret().map_err(|e| no_keys(&e))
    }
}

struct Receiver {
    inbox: Inbox,
    opener: Opener,
    /// A message of the handshake protocol that is not complete.
    message: Vec<u8>,
    /// Records without data since the last one with.
    idle: u32,
    /// The peer said that it will send no more.
    ended: bool,
    /// Why nothing can be received any more.
    fault: Option<(ErrorKind, String)>,
}

struct Sender {
    sealer: Sealer,
    /// Records that have not left, the first of them from `begin` on.
    records: VecDeque<Vec<u8>>,
    begin: usize,
    said_farewell: bool,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl TlsStream {
    /// Goes on after the handshake, with what the state machine became.
    pub fn new<D: Send + 'static>(
        keys: Result<(ExtractedSecrets, KernelConnection<D>), rustls::Error>,
        inner: Box<dyn Stream>,
        inbox: Inbox,
    ) -> Result<Self> {
        let (secrets, keys) = keys
            .map_err(|e| Error::new(ErrorKind::Internal, format!("the keys of the TLS connection: {e}")))?;
        let suite = keys.negotiated_cipher_suite();
        let opener = Opener::new(suite, secrets.rx)?;
        let sealer = Sealer::new(suite, secrets.tx)?;
        let receiver = Receiver { inbox, opener, message: Vec::new(), idle: 0, ended: false, fault: None };
        let sender = Sender { sealer, records: VecDeque::new(), begin: 0, said_farewell: false };
        Ok(Self {
            inner,
            suite,
            receiver: Mutex::new(receiver),
            sender: Mutex::new(sender),
            keys: Mutex::new(Box::new(keys)),
            keys_wanted: AtomicBool::new(false),
        })
    }

    /// Bytes that were fetched and not taken, encrypted or not.
    pub fn left_over(&self) -> usize {
        let mut receiver = self.receiver.lock();
        receiver.inbox.plain().len() + receiver.inbox.filled().len() + receiver.message.len()
    }

    /// Opens records into `target` as long as there are whole ones and room.
    fn open_records(&self, receiver: &mut Receiver, target: &mut Target<'_, '_>) -> Result<()> {
        loop {
            let taken = target.put(receiver.inbox.plain());
            receiver.inbox.take(taken);
            if !target.has_room() || receiver.ended {
                return Ok(());
            }
            let opened = receiver.inbox.open(&mut receiver.opener);
            match opened.inspect_err(|_| self.say_farewell(FATAL, BAD_RECORD_MAC))? {
                None => return Ok(()),
                Some(opened) => {
                    self.on_record(receiver, opened).inspect_err(|_| self.say_farewell(FATAL, UNEXPECTED))?;
                }
            }
        }
    }

    fn on_record(&self, receiver: &mut Receiver, opened: Opened) -> Result<()> {
        receiver.idle = match &opened {
            Opened::Data(place) if !place.is_empty() => 0,
            _ => receiver.idle + 1,
        };
        if receiver.idle > IDLE_RECORDS {
            return Err(Error::new(ErrorKind::Protocol, format!("{IDLE_RECORDS} TLS records without data")));
        }
        let split = !receiver.message.is_empty();
        match opened {
            Opened::Handshake(part) => {
                receiver.message.extend_from_slice(&part);
                self.on_messages(receiver)
            }
            _ if split => Err(Error::new(ErrorKind::Protocol, "a record inside of a handshake message")),
            Opened::Data(_) => Ok(()),
            Opened::Alert(level, description) => self.on_alert(receiver, level, description),
        }
    }

    fn on_alert(&self, receiver: &mut Receiver, level: u8, description: u8) -> Result<()> {
        let warns = if self.is_13() { description == USER_CANCELED } else { level == WARNING };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => {
                receiver.ended = true;
                Ok(())
            }
            _ if warns => Ok(()),
            fatal => Err(handshake::alerted(fatal)),
        }
    }

    /// Messages of the handshake protocol after the handshake.
    fn on_messages(&self, receiver: &mut Receiver) -> Result<()> {
        while let Some((&[kind, a, b, c], body)) = receiver.message.split_first_chunk::<4>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > LONGEST_MESSAGE {
                let what = format!("a TLS message of type {kind} and {length} bytes");
                return Err(Error::new(ErrorKind::Protocol, what));
            }
            let Some((body, rest)) = body.split_at_checked(length) else { return Ok(()) };
            match (self.is_13(), kind, body) {
                (true, KEY_UPDATE, &[wanted @ (0 | 1)]) if rest.is_empty() => {
                    let keys = self.keys.lock().to_receive()?;
                    receiver.opener = Opener::new(self.suite, keys)?;
                    if wanted == 1 {
                        self.keys_wanted.store(true, Ordering::Release);
                    }
                }
                // Tickets are for sessions that are resumed; ours are not.
                (true, NEW_SESSION_TICKET, _) => {}
                // A client may ignore the wish for another handshake (RFC 5246 section 7.4.1.1).
                (false, HELLO_REQUEST, &[]) => {}
                _ => {
                    let what = format!("a TLS message of type {kind} and {length} bytes after the handshake");
                    return Err(Error::new(ErrorKind::Protocol, what));
                }
            }
            receiver.message.drain(..4 + length);
        }
        Ok(())
    }

    fn is_13(&self) -> bool {
        matches!(self.suite, SupportedCipherSuite::Tls13(_))
    }

    /// Fetches more; 0 is the end of the inner stream.
    fn fetch(&self, receiver: &mut Receiver, patience: Patience) -> Result<Option<usize>> {
        let room = receiver.inbox.room()?;
        let got = self.inner.recv(&mut [IoSliceMut::new(room)], patience)?;
        receiver.inbox.arrived(got.unwrap_or(0));
        Ok(got)
    }

    fn receive(
        &self,
        receiver: &mut Receiver,
        target: &mut Target<'_, '_>,
        patience: Patience,
    ) -> Result<Option<usize>> {
        loop {
            self.open_records(receiver, target)?;
            if target.filled > 0 || receiver.ended {
                return Ok(Some(target.filled));
            }
            match self.fetch(receiver, patience)? {
                None => return Ok(None),
                Some(0) => {
                    let what = "the connection ended without a farewell, so something may be missing";
                    return Err(Error::new(ErrorKind::ConnectionLost, what));
                }
                Some(_) if is_over(patience) => {
                    // One more look at what came, and no more fetching: small pieces must not keep us here.
                    self.open_records(receiver, target)?;
                    let some = target.filled > 0 || receiver.ended;
                    return Ok(some.then_some(target.filled));
                }
                Some(_) => {}
            }
        }
    }

    /// Encrypts some of the parts.
    fn seal(&self, sender: &mut Sender, parts: &[IoSlice<'_>]) -> Result<usize> {
        let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).filter(|part| !part.is_empty()).collect();
        let plain = OutboundChunks::new(&parts);
        let (mut rest, _) = plain.split_at(plain.len().min(AHEAD));
        let taken = rest.len();
        while !rest.is_empty() {
            self.renew_keys(sender)?;
            let (piece, behind) = rest.split_at(record::PLAIN.min(rest.len()));
            let sealed = sender.sealer.seal(ContentType::ApplicationData, piece)?;
            sender.records.push_back(sealed);
            rest = behind;
        }
        Ok(taken)
    }

    /// Goes over to new keys where the peer wants that, or where the old ones made as many records as they may.
    fn renew_keys(&self, sender: &mut Sender) -> Result<()> {
        if !self.keys_wanted.load(Ordering::Acquire) && !sender.sealer.is_worn() || !self.is_13() {
            return Ok(());
        }
        self.keys_wanted.store(false, Ordering::Release);
        let announced = OutboundChunks::Single(&[KEY_UPDATE, 0, 0, 1, 0]);
        let sealed = sender.sealer.seal(ContentType::Handshake, announced)?;
        sender.records.push_back(sealed);
        let keys = self.keys.lock().to_send()?;
        sender.sealer = Sealer::new(self.suite, keys)?;
        Ok(())
    }

    /// Sends what was encrypted. `false`: something is left.
    fn flush(&self, sender: &mut Sender, patience: Patience) -> Result<bool> {
        while !sender.records.is_empty() {
            let first = sender.begin;
            let parts: Vec<IoSlice<'_>> = sender
                .records
                .iter()
                .enumerate()
                .map(|(i, record)| {
                    IoSlice::new(record.get(if i == 0 { first } else { 0 }..).unwrap_or_default())
                })
                .collect();
            match self.inner.send(&parts, patience)? {
                None => return Ok(false),
                Some(sent) => sender.has_left(sent),
            }
        }
        self.inner.push(patience)
    }

    /// Tells the peer that no more will come, if that is possible without waiting.
    fn say_farewell(&self, level: u8, description: u8) {
        let Some(mut sender) = self.sender.try_lock() else { return };
        if sender.said_farewell {
            return;
        }
        sender.said_farewell = true;
        let message = OutboundChunks::Single(&[level, description]);
        if let Ok(sealed) = sender.sealer.seal(ContentType::Alert, message) {
            sender.records.push_back(sealed);
            let _ = self.flush(&mut sender, Patience::None); // the connection ends in any case
        }
    }
}

impl Sender {
    fn has_left(&mut self, mut sent: usize) {
        while let Some(first) = self.records.front() {
            let left = first.len().saturating_sub(self.begin);
            if sent < left {
                self.begin += sent;
                return;
            }
            sent -= left;
            self.begin = 0;
            self.records.pop_front();
        }
    }
}

fn no_keys(e: &rustls::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("the next keys of the TLS connection: {e}"))
}

fn is_over(patience: Patience) -> bool {
    match patience {
        Patience::None => true,
        Patience::Until(until) => Instant::now() >= until,
    }
}

// Of RFC 8446 section 4 and 6, and RFC 5246.
const HELLO_REQUEST: u8 = 0;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const UNEXPECTED: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const USER_CANCELED: u8 = 90;

impl Stream for TlsStream {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        let mut sender = self.sender.lock();
        if sender.said_farewell {
            return Err(Error::new(ErrorKind::ConnectionLost, format!("{}: it was ended", self.label())));
        }
        if !self.flush(&mut sender, patience)? {
            return Ok(None);
        }
        let taken = self.seal(&mut sender, parts).context(|| self.label())?;
        self.flush(&mut sender, patience)?; // what does not leave in time is for `push`
        Ok(Some(taken))
    }

    fn push(&self, patience: Patience) -> Result<bool> {
        self.flush(&mut self.sender.lock(), patience)
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        let mut target = Target::new(parts);
        if !target.has_room() {
            return Err(Error::new(ErrorKind::Internal, "receiving needs room for at least one byte"));
        }
        let mut receiver = self.receiver.lock();
        if receiver.fault.is_none() {
            match self.receive(&mut receiver, &mut target, patience) {
                Err(e) => receiver.fault = Some((e.kind(), e.to_string())),
                received => return received,
            }
        }
        match &receiver.fault {
            // What came before the fault is good; the fault is for the next call.
            Some(_) if target.filled > 0 => Ok(Some(target.filled)),
            Some((kind, what)) => Err(Error::new(*kind, what.clone()).context(self.label())),
            None => Err(Error::new(ErrorKind::Internal, "a fault was forgotten")),
        }
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        // Who else holds the receiving half is about to look for itself.
        if wanted.recv && self.receiver.try_lock().is_some_and(|mut receiver| receiver.is_ready()) {
            let others = self.inner.wait(Ready { recv: false, ..wanted }, Instant::now())?;
            return Ok(Ready { recv: true, ..others });
        }
        self.inner.wait(wanted, until)
    }

    fn shutdown(&self) {
        self.say_farewell(WARNING, CLOSE_NOTIFY);
        self.inner.shutdown();
    }

    fn label(&self) -> String {
        format!("{} with TLS", self.inner.label())
    }
}

impl Receiver {
    /// Something can be had without asking the inner stream.
    fn is_ready(&mut self) -> bool {
        self.ended || self.fault.is_some() || !self.inbox.plain().is_empty() || self.inbox.has_record()
    }
}
