//! authd: who knocks says which ticket they have, and is let through to the NFC server.

use std::sync::Arc;
use std::time::Instant;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nfc::authd::Banner;
use crate::net::nfc::authd::Command;
use crate::net::nfc::authd::Reply;
use crate::net::stream::Stream;
use crate::sim::fault::Action;
use crate::sim::nfc::Grant;
use crate::sim::nfc::gate::Gate;
use crate::sim::nfc::greeting::say;
use crate::sim::nfc::intake::Intake;
use crate::sim::nfc::line::Line;
use crate::sim::nfc::server::Shared;
use crate::sim::nfc::server::on_purpose;

/// Commands that a client may send before it is let through.
const MOST_COMMANDS: usize = 32;

/// A client that was let through.
pub struct Entered {
    /// What its ticket permits.
    pub grant: Grant,
    /// Where its data come and go.
    pub stream: Arc<dyn Stream>,
    /// What keeps the records of its TLS apart, if it has one.
    pub gate: Option<Gate>,
}

/// The services that clients ask for, and what the answer calls them.
const SERVICES: &[(&str, bool)] =
    &[("vpxa-nfc", false), ("vpxa-nfcssl", true), ("nfc", false), ("nfcssl", true)];

/// Talks to a client until it is let through. `Ok(None)`: it left, or was refused.
pub fn enter(shared: &Shared, line: &Line) -> Result<Option<Entered>> {
    if !passes(shared, line, "authd.connect")? {
        return Ok(None);
    }
    let banner = banner(shared);
    say(line, &banner.reply().encode(), until(shared))?;
    let gate = Gate::new(line.clone());
    let tls = shared.tls.wrap(Box::new(gate), until(shared))?;
    let door = Door { shared, line, banner, stream: Arc::from(tls) };
    let Some((grant, secure)) = door.talk()? else { return Ok(None) };
    drop(door); // without a farewell: what follows is not part of that TLS
    if !secure {
        return Ok(Some(Entered { grant, stream: Arc::new(line.clone()), gate: None }));
    }
    if !passes(shared, line, "authd.tls")? {
        return Ok(None);
    }
    let gate = Gate::new(line.clone());
    let tls = shared.tls.wrap(Box::new(gate.clone()), until(shared))?;
    Ok(Some(Entered { grant, stream: Arc::from(tls), gate: Some(gate) }))
}

fn until(shared: &Shared) -> Instant {
    Instant::now() + shared.knobs.now().patience
}

/// What the banner says.
fn banner(shared: &Shared) -> Banner {
    let (settings, dialect) = (shared.knobs.now(), shared.knobs.dialect);
    Banner {
        tls: true,
        secure_data: settings.secure_data.unwrap_or(dialect.secure_data),
        sha256: settings.sha256.unwrap_or(dialect.sha256),
    }
}

/// Asks the rules about a place where there are no frames. False: refused.
fn passes(shared: &Shared, line: &Line, point: &str) -> Result<bool> {
    let hit = shared.knobs.faults.at(point, None);
    shared.pause(hit.delay);
    match hit.action {
        None => Ok(true),
        Some(Action::Refuse) => Ok(false),
        Some(Action::Silence) => {
            shared.hold(line);
            Err(on_purpose("silence"))
        }
        Some(Action::Shutdown) => {
            shared.maintain();
            Err(on_purpose("shut down"))
        }
        Some(_) => Err(on_purpose("cut")), // whatever else a rule says has no meaning here
    }
}

/// The conversation inside of the first TLS.
struct Door<'a> {
    shared: &'a Shared,
    line: &'a Line,
    banner: Banner,
    stream: Arc<dyn Stream>,
}

impl Door<'_> {
    /// What the ticket permits, and whether the data go through a TLS of their own.
    fn talk(&self) -> Result<Option<(Grant, bool)>> {
        let mut intake = Intake::new(Arc::clone(&self.stream));
        let mut ticket = Zeroizing::new(String::new());
        for _ in 0..MOST_COMMANDS {
            let Some(line) = intake.line(until(self.shared))? else { return Ok(None) };
            match Command::parse(line)? {
                Command::Session(id) => {
                    *ticket = id.to_owned();
                    if !passes(self.shared, self.line, "authd.session")? {
                        return Ok(None); // there is no answer that could say so
                    }
                }
                Command::Banner => self.reply(&self.banner.reply())?,
                Command::Thumbprint => self.reply(&self.thumbprint())?,
                Command::Proxy(service) => {
                    let service = SERVICES.iter().find(|(name, _)| *name == service);
                    match self.proxy(service, &ticket)? {
                        Some(_) if !intake.waiting().is_empty() => {
                            let what = "the client went on before it was let through";
                            return Err(Error::new(ErrorKind::Protocol, what));
                        }
                        Some(done) => return Ok(Some(done)),
                        None => {}
                    }
                }
                Command::Other(line) => self.reply(&other(line))?,
            }
        }
        Err(Error::new(ErrorKind::Protocol, format!("more than {MOST_COMMANDS} commands")))
    }

    fn thumbprint(&self) -> Reply {
        match self.banner.sha256 {
            true => reply(200, &self.shared.thumbprint),
            false => reply(530, "Please login with USER and PASS"), // as 6.5 and 6.7
        }
    }

    /// Lets a client through, or says why not.
    fn proxy(&self, service: Option<&(&str, bool)>, ticket: &str) -> Result<Option<(Grant, bool)>> {
        let refused = || self.reply(&reply(530, "Login incorrect")).map(|()| None);
        if !passes(self.shared, self.line, "authd.proxy")? {
            return refused();
        }
        let Some(&(_, secure)) = service.filter(|(_, secure)| !secure || self.banner.secure_data) else {
            return self.reply(&reply(501, "Invalid arguments")).map(|()| None);
        };
        let Some(grant) = self.shared.redeem(ticket, self.line) else { return refused() };
        self.reply(&reply(200, if secure { "Connect ha-nfcssl" } else { "Connect ha-nfc" }))?;
        Ok(Some((grant, secure)))
    }

    fn reply(&self, reply: &Reply) -> Result<()> {
        say(&*self.stream, &reply.encode(), until(self.shared))
    }
}

fn reply(code: u16, text: &str) -> Reply {
    Reply { code, text: text.to_owned() }
}

/// Commands that real hosts were seen to refuse, and all others.
fn other(line: &str) -> Reply {
    match line.split(' ').next() {
        Some("THUMBPRINT_SHA2") => reply(501, "Invalid arguments"),
        Some("USER" | "PASS" | "XPAS") => reply(530, "Login incorrect"),
        _ => reply(530, "Please login with USER and PASS"),
    }
}
