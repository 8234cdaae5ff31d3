//! Past authd, the doorkeeper of a host: its TLS, the ticket, the service; then the bare socket, or another TLS over it.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::logging::Log;
use crate::net::nfc::authd;
use crate::net::nfc::authd::Banner;
use crate::net::nfc::authd::Command;
use crate::net::nfc::authd::Reply;
use crate::net::nfc::broken;
use crate::net::nfc::client::Dial;
use crate::net::nfc::client::route::Failure;
use crate::net::nfc::client::route::refused;
use crate::net::nfc::ticket::HostIdentity;
use crate::net::nfc::ticket::Ticket;
use crate::net::socket::Socket;
use crate::net::stream::Patience;
use crate::net::stream::Ready;
use crate::net::stream::Stream;
use crate::net::talk;
use crate::net::tls::Accepted;
use crate::net::tls::Tls;
use crate::net::tls::TlsSettings;

/// A socket that is lent to a TLS and taken back.
#[derive(Clone, Debug)]
struct Bare(Arc<Socket>);

impl Stream for Bare {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        self.0.send(parts, patience)
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        self.0.recv(parts, patience)
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        self.0.wait(wanted, until)
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }

    fn label(&self) -> String {
        self.0.label()
    }
}

/// What was learned about the host inside of the first TLS.
struct Known {
    certificate: Vec<u8>,
    /// SHA-256, as the host says it.
    thumbprint: Option<String>,
}

/// Gets from a connected socket to the service that a ticket is for.
pub fn pass(
    socket: Socket,
    ticket: &Ticket,
    host: &str,
    service: &str,
    dial: &Dial,
    log: &Log,
    until: Instant,
) -> Result<Box<dyn Stream>, Failure> {
    let bare = Bare(Arc::new(socket));
    let label = bare.label();
    let greeting = line(&bare, until).context(|| format!("the first line of {label}"))?;
    let banner = Banner::of(&greeting);
    if !greeting.is_good() {
        return Err(broken(format!("{label} greets with {} {}", greeting.code, greeting.text)).into());
    }
    supported(banner, dial.ssl, &label)?;
    let known = show_ticket(&bare, banner, ticket, host, service, dial, log, until)?;
    if !dial.ssl {
        return Ok(Box::new(bare));
    }
    let tls = second_tls(&known, ticket, dial, log)?;
    Ok(tls.wrap(Box::new(bare), host, until).context(|| "the TLS of the data")?)
}

/// The host can do what is wanted.
fn supported(banner: Banner, ssl: bool, label: &str) -> Result<()> {
    let missing = match banner {
        Banner { tls: false, .. } => "does not ask for TLS, as hosts have done since version 5",
        Banner { secure_data: false, .. } if ssl => "has no TLS for data",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::NotSupported, format!("{label} {missing}")))
}

/// The conversation inside of the first TLS, which is left without a word.
#[expect(clippy::too_many_arguments, reason = "what a conversation is about")]
fn show_ticket(
    bare: &Bare,
    banner: Banner,
    ticket: &Ticket,
    host: &str,
    service: &str,
    dial: &Dial,
    log: &Log,
    until: Instant,
) -> Result<Known, Failure> {
    let tls = match identity(ticket) {
        Some(identity) => Tls::pinned(&dial.tls, vec![identity], log.clone())?,
        None => Tls::new(&dial.tls, log.clone())?,
    };
    let episode = tls.wrap_for_a_while(Box::new(bare.clone()), host, until)?;
    let stream = episode.stream();
    let id = ticket.id.expose_text().ok_or_else(|| broken("a ticket that is no text"))?;
    say(stream, Command::Session(id), until)?; // not answered
    let greeting = ask(stream, Command::Banner, until)?;
    if !greeting.is_good() {
        return Err(refused(format!("{} answers a ticket with {}", bare.label(), said(&greeting))));
    }
    let thumbprint = match banner.sha256 {
        true => Some(ask(stream, Command::Thumbprint, until)?).filter(Reply::is_good),
        false => None,
    };
    let answer = ask(stream, Command::Proxy(service), until)?;
    if !answer.is_good() {
        let label = bare.label();
        return Err(refused(format!("{label} answers the wish for {service} with {}", said(&answer))));
    }
    let certificate = episode.certificate().to_vec();
    episode.leave()?;
    Ok(Known { certificate, thumbprint: thumbprint.map(|reply| reply.text) })
}

/// The data's own TLS: its certificate has to be one that is known by then.
fn second_tls(known: &Known, ticket: &Ticket, dial: &Dial, log: &Log) -> Result<Tls> {
    if dial.any_second_certificate {
        let settings = TlsSettings { thumbprint: None, verify: false, ..dial.tls.clone() };
        return Tls::new(&settings, log.clone());
    }
    let mut accepted = vec![Accepted::Certificate(known.certificate.clone())];
    accepted.extend(known.thumbprint.clone().map(Accepted::Thumbprint));
    accepted.extend(identity(ticket));
    Tls::pinned(&dial.tls, accepted, log.clone())
}

fn identity(ticket: &Ticket) -> Option<Accepted> {
    Some(match ticket.identity.clone()? {
        HostIdentity::Thumbprint(text) => Accepted::Thumbprint(text),
        HostIdentity::Certificate(der) => Accepted::Certificate(der),
    })
}

fn said(reply: &Reply) -> String {
    format!("{} {}", reply.code, reply.text)
}

fn say(stream: &dyn Stream, command: Command<'_>, until: Instant) -> Result<()> {
    talk::send(stream, &command.encode()?, until).context(|| format!("saying {command:?}"))
}

fn ask(stream: &dyn Stream, command: Command<'_>, until: Instant) -> Result<Reply> {
    say(stream, command, until)?;
    line(stream, until).context(|| format!("waiting for the answer to {command:?}"))
}

/// Receives a line and nothing of what follows it.
fn line(stream: &dyn Stream, until: Instant) -> Result<Reply> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        let mut byte = [0];
        talk::fill(stream, &mut byte, until)?;
        bytes.extend_from_slice(&byte);
        if (byte == *b"\n" || bytes.len() >= authd::MOST_LINE) && authd::line_length(&bytes)?.is_some() {
            return Reply::parse(&bytes);
        }
    }
}
