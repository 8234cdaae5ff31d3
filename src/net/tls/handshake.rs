//! The handshake: rustls' state machine, fed from a stream until it has keys.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::time::Instant;

use rustls::AlertDescription;
use rustls::client::ClientConnectionData;
use rustls::client::UnbufferedClientConnection;
use rustls::server::ServerConnectionData;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls::unbuffered::EncodeError;
use rustls::unbuffered::EncodeTlsData;
use rustls::unbuffered::UnbufferedStatus;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::stream::Patience;
use crate::net::stream::Stream;
use crate::net::tls::inbox::Inbox;
use crate::net::tls::record;
use crate::net::tls::refusal;

/// More than this is not sent in a handshake; a long chain of our own certificates is the most of it.
const MOST_TO_SEND: usize = 1 << 20;

/// One end of a connection: the state machines of both differ in type only.
pub trait End {
    /// What rustls keeps for this end.
    type Data: 'static;

    /// Shows it what came.
    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// It has something to say.
    fn wants_write(&self) -> bool;
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn wants_write(&self) -> bool {
        (**self).wants_write()
    }
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn wants_write(&self) -> bool {
        (**self).wants_write()
    }
}

/// What to do after a step of the state machine.
enum Next {
    Step,
    Receive,
    Done,
}

/// Shakes hands. What came after the handshake stays in the inbox, still encrypted.
///
/// The state machine is shown one record more at a time, and only when it asks. So it never sees what follows the
/// handshake, which is for the two halves of the stream.
pub fn shake<E: End>(tls: &mut E, stream: &dyn Stream, inbox: &mut Inbox, until: Instant) -> Result<()> {
    let mut out = Vec::new();
    let mut shown = 0;
    loop {
        let bytes = inbox.filled().get_mut(..shown).unwrap_or_default();
        let UnbufferedStatus { discard, state } = tls.process(bytes);
        let next = state.map(|state| step(state, stream, &mut out, until));
        inbox.consume(discard);
        shown = shown.saturating_sub(discard);
        match next {
            Ok(next) => match next? {
                Next::Step => {}
                Next::Receive => shown += show(stream, inbox, shown, until)?,
                Next::Done if shown == 0 => return Ok(()),
                Next::Done => {
                    let what = "a record with more in it than the end of the handshake";
                    return Err(Error::new(ErrorKind::Protocol, what));
                }
            },
            Err(e) => {
                let bytes = inbox.filled().get_mut(..shown).unwrap_or_default();
                // The peer may be gone; our own error says more than that.
                let _ = last_words(tls, bytes).and_then(|out| send(stream, &out, until));
                return Err(failure(&e));
            }
        }
    }
}

/// Waits for the record that follows the shown ones; its length.
fn show(stream: &dyn Stream, inbox: &mut Inbox, shown: usize, until: Instant) -> Result<usize> {
    loop {
        match record::length(inbox.filled().get(shown..).unwrap_or_default())? {
            Some(length) => return Ok(length),
            None => receive(stream, inbox, until)?,
        }
    }
}

fn step<D>(
    state: ConnectionState<'_, '_, D>,
    stream: &dyn Stream,
    out: &mut Vec<u8>,
    until: Instant,
) -> Result<Next> {
    match state {
        ConnectionState::EncodeTlsData(state) => encode(state, out).map(|()| Next::Step),
        ConnectionState::TransmitTlsData(state) => {
            send(stream, out, until)?;
            out.clear();
            state.done();
            Ok(Next::Step)
        }
        ConnectionState::BlockedHandshake => Ok(Next::Receive),
        ConnectionState::WriteTraffic(_) => Ok(Next::Done),
        ConnectionState::PeerClosed | ConnectionState::Closed => {
            Err(Error::new(ErrorKind::ConnectionLost, "the peer ended the connection in the handshake"))
        }
        state => Err(Error::new(ErrorKind::Protocol, format!("data in the handshake ({state:?})"))),
    }
}

fn encode<D>(mut state: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<()> {
    let begin = out.len();
    let mut room = record::LONGEST;
    loop {
        if begin + room > MOST_TO_SEND {
            return Err(Error::new(ErrorKind::Internal, "a handshake without end"));
        }
        out.resize(begin + room, 0);
        match state.encode(&mut out[begin..]) {
            Ok(written) => {
                out.truncate(begin + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(e)) => room = e.required_size.max(room + 1),
            Err(e) => return Err(Error::new(ErrorKind::Internal, format!("encoding the handshake: {e}"))),
        }
    }
}

/// What the state machine has left to say when it fails: why. It must be shown what it saw; it remembers places in there.
fn last_words<E: End>(tls: &mut E, shown: &mut [u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    // Asked for more than that, it would go on from where it failed.
    while tls.wants_write() {
        match tls.process(shown).state {
            Ok(ConnectionState::EncodeTlsData(state)) => encode(state, &mut out)?,
            _ => break,
        }
    }
    Ok(out)
}

fn send(stream: &dyn Stream, mut bytes: &[u8], until: Instant) -> Result<()> {
    while !bytes.is_empty() {
        match stream.send(&[IoSlice::new(bytes)], Patience::Until(until))? {
            Some(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            None => return Err(late("take our part of the handshake")),
        }
    }
    if stream.push(Patience::Until(until))? { Ok(()) } else { Err(late("take our part of the handshake")) }
}

fn receive(stream: &dyn Stream, inbox: &mut Inbox, until: Instant) -> Result<()> {
    let room = inbox.room()?;
    match stream.recv(&mut [IoSliceMut::new(room)], Patience::Until(until))? {
        None => Err(late("answer in the handshake")),
        Some(0) => Err(Error::new(ErrorKind::ConnectionLost, "the connection ended in the handshake")),
        Some(n) => {
            inbox.arrived(n);
            // A peer that sends single bytes keeps `recv` from ever being late.
            if Instant::now() >= until { Err(late("end the handshake")) } else { Ok(()) }
        }
    }
}

fn late(what: &str) -> Error {
    Error::new(ErrorKind::TimedOut, format!("the peer did not {what} in time"))
}

/// What rustls says, as a kind that callers can act on.
pub fn failure(e: &rustls::Error) -> Error {
    match e {
        rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature) => Error::new(
            ErrorKind::CertificateRefused,
            "the server did not prove that it has the key of its certificate",
        ),
        rustls::Error::InvalidCertificate(why) => {
            let what = format!("the server's certificate is refused: {}", refusal::words(why));
            Error::new(ErrorKind::CertificateRefused, what)
        }
        rustls::Error::NoCertificatesPresented => {
            Error::new(ErrorKind::CertificateRefused, "the server has no certificate")
        }
        rustls::Error::AlertReceived(alert) => alerted(*alert),
        e => Error::new(ErrorKind::Protocol, format!("TLS handshake: {e}")),
    }
}

/// What the server ended the connection with.
pub fn alerted(alert: AlertDescription) -> Error {
    match alert {
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => {
            let what = format!("the server refuses our certificate, or that there is none ({alert:?})");
            Error::new(ErrorKind::Unauthorised, what)
        }
        AlertDescription::UnknownPSKIdentity => Error::new(
            ErrorKind::NotSupported,
            "the server wants a pre-shared key (PSK), which is not supported",
        ),
        alert => Error::new(ErrorKind::Protocol, format!("the server ended TLS with alert {alert:?}")),
    }
}
