//! Calls on their way: HTTP around them, what comes back taken apart.

use std::time::Duration;
use std::time::Instant;

use roxmltree::Document;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::http::Answer;
use crate::net::http::Client;
use crate::net::http::Dial;
use crate::net::http::Hidden;
use crate::net::http::Method;
use crate::net::http::Request;
use crate::net::http::Target;
use crate::net::vim::call::Written;
use crate::net::vim::cookie;
use crate::net::vim::fault::Fault;
use crate::net::vim::fault::Refused;
use crate::net::vim::version;
use crate::net::vim::xml;
use crate::net::vim::xml::Node;
use crate::secret::Secret;

/// One server, without a session.
#[derive(Debug)]
pub struct Wire {
    http: Client,
    /// What must not be repeated.
    pub hidden: Hidden,
    /// The header `SOAPAction`.
    action: String,
}

const PATH: &str = "/sdk";

/// Kinds of content that an answer to a call may be.
const XML: &[&str] = &["text/xml", "application/xml", "application/soap+xml"];

impl Wire {
    /// Speaks the oldest version until another one is agreed on.
    pub fn new(dial: Box<dyn Dial>, connect: Duration, hidden: Hidden) -> Self {
        Self { http: Client::new(dial, connect), hidden, action: action(version::WITHOUT_LIST) }
    }

    /// What the server is called.
    pub fn host(&self) -> String {
        self.http.host()
    }

    /// Agrees with the server on a version and says which.
    pub fn negotiate(&mut self, until: Instant) -> Result<String> {
        let target = "/sdk/vimServiceVersions.xml";
        let request = Request { method: Method::Get, target, headers: &[], body: &[] };
        let answer = self.http.exchange(&request, Target::Collect(xml::LONGEST), until)?;
        let listed = match answer.head.status {
            200 => xml::parse(answer.body.bytes(), &self.hidden).ok(),
            _ => None,
        };
        let version =
            listed.as_ref().and_then(version::choose).unwrap_or_else(|| version::WITHOUT_LIST.to_owned());
        self.action = action(&version);
        Ok(version)
    }

    /// Makes a call and reads the answer. The second part is the cookie that came with it.
    pub fn call<T>(
        &self,
        call: &Written,
        cookie: Option<&Secret>,
        until: Instant,
        read: &mut dyn FnMut(Node<'_>) -> Result<T>,
    ) -> Result<(T, Option<Secret>), Refused> {
        let cookie_header = cookie.map(cookie::header);
        let mut headers: Vec<(&str, &[u8])> =
            vec![("Content-Type", b"text/xml; charset=utf-8"), ("SOAPAction", self.action.as_bytes())];
        if let Some(cookie) = &cookie_header {
            headers.push(("Cookie", cookie.expose()));
        }
        let request =
            Request { method: Method::Post, target: PATH, headers: &headers, body: call.body.bytes() };
        let answer = self.http.exchange(&request, Target::Collect(xml::LONGEST), until)?;
        let cookie = answer.head.all("Set-Cookie").find_map(cookie::received);
        if let Some(cookie) = &cookie {
            self.hidden.pass(cookie); // before anything of the answer is quoted
        }
        self.understand(call.method, &answer, read).map(|value| (value, cookie))
    }

    fn understand<T>(
        &self,
        method: &str,
        answer: &Answer,
        read: &mut dyn FnMut(Node<'_>) -> Result<T>,
    ) -> Result<T, Refused> {
        if !matches!(answer.head.status, 200 | 500) {
            return Err(self.no_service(answer).into());
        }
        if answer.head.text("Content-Type").is_some() && !answer.head.is_of(XML) {
            let kind = self.hidden.quote(answer.head.text("Content-Type").unwrap_or_default());
            let said = self.hidden.excerpt(answer.body.bytes());
            let what = format!("an answer that is {kind} and not XML: {said}");
            return Err(Error::new(ErrorKind::Protocol, what).into());
        }
        let said = || format!("it says {}", self.hidden.excerpt(answer.body.bytes()));
        let document = xml::parse(answer.body.bytes(), &self.hidden).context(said)?;
        let body = body_of(&document).context(said)?;
        if body.has_tag_name((xml::ENVELOPE, "Fault")) {
            return Err(Refused::Fault(Fault::of_envelope(body)));
        }
        let is_response = body.tag_name().namespace() == Some(xml::VIM)
            && body.tag_name().name().strip_suffix("Response") == Some(method);
        if answer.head.status != 200 || !is_response {
            return Err(xml::broken(&format!("it is neither a response to {method} nor a fault")).into());
        }
        Ok(read(body)?)
    }

    /// Why an answer with another status is none of the interface. Nothing at its path is no missing file: somebody else
    /// answers there, or a server that is not up yet.
    fn no_service(&self, answer: &Answer) -> Error {
        let error = answer.refusal(&self.hidden);
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        let who = match answer.head.text("Server") {
            Some(name) => format!("what answers there calls itself {} and", self.hidden.quote(name)),
            None => "what answers there".to_owned(),
        };
        let what = format!("{who} has no {PATH}: it is no vSphere server, or none that is up");
        error.with_kind(ErrorKind::ServerNotFound).context(what)
    }

    /// Closes connections that are idle.
    pub fn close(&self) {
        self.http.close();
    }
}

fn action(version: &str) -> String {
    format!("\"urn:vim25/{version}\"")
}

/// The one element in the body of an envelope.
fn body_of<'a>(document: &'a Document<'a>) -> Result<Node<'a>> {
    let root = document.root_element();
    if !root.has_tag_name((xml::ENVELOPE, "Envelope")) {
        return Err(xml::broken("it is no SOAP envelope"));
    }
    let mut bodies = root.children().filter(|n| n.has_tag_name((xml::ENVELOPE, "Body")));
    let (Some(body), None) = (bodies.next(), bodies.next()) else {
        return Err(xml::broken("an envelope without a body, or with two"));
    };
    let mut inside = body.children().filter(Node::is_element);
    match (inside.next(), inside.next()) {
        (Some(content), None) => Ok(content),
        _ => Err(xml::broken("the body of the envelope has not one content")),
    }
}
