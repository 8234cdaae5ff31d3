//! The handshake in messages of 264 bytes, in the one order that is known.

use std::io::IoSlice;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nfc::broken;
use crate::net::nfc::classic;
use crate::net::nfc::classic::Message;
use crate::net::stream::Patience;
use crate::net::stream::Stream;
use crate::sim::nfc::dialect::Greeting;
use crate::sim::nfc::intake::Intake;
use crate::sim::nfc::knobs::Knobs;

/// One handshake.
pub struct Handshake<'a> {
    /// Where the client's messages come from.
    pub intake: &'a mut Intake,
    /// Where answers go.
    pub stream: &'a dyn Stream,
    /// The data are inside of a TLS, where a host takes one message per record.
    pub secure: bool,
    /// How it is to be done.
    pub knobs: &'a Knobs,
}

impl Handshake<'_> {
    /// Shakes hands. What goes wrong is answered as hosts do, and is an error.
    pub fn shake(&mut self) -> Result<()> {
        let done = self.exchange();
        if done.is_err() {
            let _ = self.say(Message::Complete); // the client may be gone
        }
        done
    }

    fn exchange(&mut self) -> Result<()> {
        let settings = self.knobs.now();
        match (self.next()?, self.knobs.dialect.greeting) {
            (Message::Hello(_), Greeting::Full | Greeting::Either) => self.wants(Message::Parameters)?,
            (Message::Parameters, Greeting::WithoutHello | Greeting::Either) => {}
            (other, greeting) => {
                return Err(broken(format!("{other:?} as the first message ({greeting:?})")));
            }
        }
        let parameters = Message::ParametersReply { versions: 1 };
        if !settings.late_parameters {
            self.say(parameters)?;
        }
        match self.next()? {
            Message::Version { .. } => {}
            other => return Err(broken(format!("{other:?} instead of a version"))),
        }
        if settings.late_parameters {
            self.say(parameters)?;
        }
        let number = settings.version.unwrap_or(self.knobs.dialect.version);
        self.say(Message::Version { number, second: 1 })?;
        self.rest(number)
    }

    /// What follows the versions.
    fn rest(&mut self, version: u32) -> Result<()> {
        let Message::Names { client, operation } = self.next()? else {
            return Err(broken("no names after the versions"));
        };
        if version < classic::LEAST_VERSION {
            return Err(broken(format!("what follows version {version} is not known")));
        }
        let until = self.until();
        self.intake.expect((client + operation) as usize, until)?; // both are short
        match self.next()? {
            Message::Features(_) => {}
            other => return Err(broken(format!("{other:?} instead of the client's features"))),
        }
        self.wants(Message::Frames)?;
        self.say(Message::Frames)
    }

    fn wants(&mut self, expected: Message) -> Result<()> {
        let message = self.next()?;
        if message == expected { Ok(()) } else { Err(broken(format!("{message:?} instead of {expected:?}"))) }
    }

    fn next(&mut self) -> Result<Message> {
        if self.secure && !self.intake.waiting().is_empty() {
            return Err(broken("two messages of the handshake in one TLS record: hosts take the first only"));
        }
        let until = self.until();
        Message::parse(self.intake.expect(classic::LENGTH, until)?)
    }

    fn until(&self) -> Instant {
        Instant::now() + self.knobs.now().patience.min(Duration::from_secs(3600))
    }

    fn say(&mut self, message: Message) -> Result<()> {
        say(self.stream, &message.encode(), self.until())
    }
}

/// Sends all of these bytes.
pub fn say(stream: &dyn Stream, mut bytes: &[u8], until: Instant) -> Result<()> {
    while !bytes.is_empty() {
        match stream.send(&[IoSlice::new(bytes)], Patience::Until(until))? {
            Some(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            None => return Err(slow()),
        }
    }
    if stream.push(Patience::Until(until))? { Ok(()) } else { Err(slow()) }
}

fn slow() -> Error {
    Error::new(ErrorKind::TimedOut, "the client takes nothing")
}
