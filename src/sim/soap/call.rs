//! One call: who calls what on which object, and what comes back.

use std::net::IpAddr;
use std::sync::Arc;

use crate::sim::session::Session;
use crate::sim::site::Site;
use crate::sim::soap::fault::Fault;
use crate::sim::value::Moref;
use crate::sim::value::Value;
use crate::sim::xml::Arg;

/// A call as it came.
#[derive(Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: &'a str,
    /// The object.
    pub this: Moref,
    /// The arguments.
    pub args: Arg<'a>,
    /// The caller's session, if it has one. A session is one that is logged in.
    pub session: Option<Arc<Session>>,
    /// Where the caller is.
    pub peer: IpAddr,
    /// What the caller says it is.
    pub agent: String,
    /// The version of the interface that the caller speaks, if it says so.
    pub version: Option<&'a str>,
}

/// What a call gives back.
#[derive(Debug, Default)]
pub struct Reply {
    /// The result; several are one element each.
    pub value: Option<Value>,
    /// The result says its own type.
    pub any: bool,
    /// A cookie for the caller.
    pub cookie: Option<String>,
}

/// How a call ends.
pub type Outcome = Result<Reply, Fault>;

/// A method of the table.
pub type Run = fn(&Arc<Site>, &Call<'_>) -> Outcome;

impl Reply {
    /// Nothing.
    pub fn none() -> Outcome {
        Ok(Reply::default())
    }

    /// A value.
    pub fn of(value: impl Into<Value>) -> Outcome {
        Ok(Reply { value: Some(value.into()), ..Reply::default() })
    }

    /// A value, or nothing.
    pub fn maybe(value: Option<impl Into<Value>>) -> Outcome {
        Ok(Reply { value: value.map(Into::into), ..Reply::default() })
    }
}

impl<'a> Call<'a> {
    /// The caller's session. Methods that need one are not reached without it.
    pub fn session(&self) -> Result<&Arc<Session>, Fault> {
        self.session.as_ref().ok_or_else(|| Fault::not_authenticated(&self.this))
    }

    /// True when the caller speaks this version of the interface or a later one. Who says nothing speaks an old one.
    pub fn knows(&self, major: u32) -> bool {
        let first = self.version.and_then(|version| version.split('.').next());
        first.and_then(|number| number.parse::<u32>().ok()).is_some_and(|number| number >= major)
    }

    /// A text that has to be there.
    pub fn text(&self, name: &'a str) -> Result<String, Fault> {
        self.args.text_of(name).ok_or_else(|| Fault::argument(name))
    }

    /// A reference that has to be there.
    pub fn moref(&self, name: &'a str) -> Result<Moref, Fault> {
        self.args.one(name).and_then(Arg::moref).ok_or_else(|| Fault::argument(name))
    }
}
