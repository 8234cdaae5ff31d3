//! Envelopes: a request's text to a call, an outcome to a response's text.

use std::net::IpAddr;
use std::sync::Arc;

use roxmltree::Document;
use roxmltree::Node;
use roxmltree::ParsingOptions;

use crate::sim::http::request::Request;
use crate::sim::http::response::Response;
use crate::sim::injected;
use crate::sim::injected::Instead;
use crate::sim::session::Session;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::fault::Fault;
use crate::sim::soap::methods;
use crate::sim::value::Moref;
use crate::sim::xml::Arg;

/// More elements and texts than that are no request.
const MOST_NODES: u32 = 100_000;

/// Answers a request for `/sdk`.
pub fn answer(site: &Arc<Site>, request: &Request, peer: IpAddr) -> Response {
    let session = request.cookie("vmware_soap_session").and_then(|cookie| site.sessions.find(&cookie));
    let (method, outcome) = match std::str::from_utf8(&request.body) {
        Ok(text) => run(site, request, text, session, peer),
        Err(_) => (String::new(), Done::Outcome(Err(Fault::request("The request is not in UTF-8")))),
    };
    match outcome {
        Done::Outcome(outcome) => {
            match &outcome {
                Ok(_) => site.log.debug(|| format!("vixsim: {peer} {method}")),
                Err(fault) => site.log.info(|| format!("vixsim: {peer} {method}: fault {}", fault.name())),
            }
            print(&method, outcome)
        }
        Done::Half(outcome) => print(&method, outcome).half(),
        Done::Response(response) => response,
    }
}

/// How a call ended, or what a rule made of it.
enum Done {
    Outcome(Outcome),
    Half(Outcome),
    Response(Response),
}

fn run(
    site: &Arc<Site>,
    request: &Request,
    text: &str,
    session: Option<Arc<Session>>,
    peer: IpAddr,
) -> (String, Done) {
    let wrong = |why: String| (String::new(), Done::Outcome(Err(Fault::request(why))));
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = match Document::parse_with_options(text, options) {
        Ok(document) => document,
        Err(e) => return wrong(format!("The request is no XML: {e}")),
    };
    let root = document.root_element();
    let body = child(root, "Body").filter(|_| root.tag_name().name() == "Envelope");
    let Some(element) = body.and_then(|body| body.first_element_child()) else {
        return wrong("The request has no envelope with a method".to_owned());
    };
    let args = Arg(element);
    let method = args.name().to_owned();
    if let Some(fault) = wrong_version(site, request) {
        return (method, Done::Outcome(Err(fault)));
    }
    let Some(this) = args.one("_this").and_then(Arg::moref) else {
        return (method, Done::Outcome(Err(Fault::request("The request names no object (_this)"))));
    };
    let agent = request.header("user-agent").unwrap_or_default().to_owned();
    let version = spoken(request).map(|(_, version)| version);
    let call = Call { method: args.name(), this, args, session, peer, agent, version };
    let done = match injected::at(site, &format!("soap.{method}")) {
        Some(Instead::Answer(response)) => Done::Response(response),
        Some(Instead::Fault(fault)) => Done::Outcome(Err(fault)),
        Some(Instead::Half) => Done::Half(methods::run(site, &call)),
        None => Done::Outcome(methods::run(site, &call)),
    };
    (method, done)
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.is_element() && child.tag_name().name() == name)
}

/// The namespace and version that a client speaks.
fn spoken(request: &Request) -> Option<(&str, &str)> {
    request.header("soapaction")?.trim().trim_matches('"').strip_prefix("urn:")?.split_once('/')
}

/// A client that asks for a version that this release does not have is refused (`vsphere.md` 2).
fn wrong_version(site: &Site, request: &Request) -> Option<Fault> {
    let (namespace, version) = spoken(request)?;
    let known =
        namespace != "vim25" || site.personality.versions().iter().any(|known| is_spelled(known, version));
    (!known).then(|| Fault::request(format!("Unsupported version URI \"urn:vim25/{version}\"")))
}

/// Versions of four numbers go by their first two as well: govmomi says `7.0` to servers of any release from that one on (K).
fn is_spelled(known: &str, given: &str) -> bool {
    let two = given.split('.').count() == 2;
    known == given || (two && known.strip_prefix(given).is_some_and(|rest| rest.starts_with(".0")))
}

const START: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <soapenv:Envelope xmlns:soapenc=\"http://schemas.xmlsoap.org/soap/encoding/\" \
    xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
    xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n<soapenv:Body>\n";
const END: &str = "\n</soapenv:Body>\n</soapenv:Envelope>";

/// The text of a response, or of a fault.
fn print(method: &str, outcome: Outcome) -> Response {
    let mut text = String::from(START);
    match outcome {
        Ok(reply) => {
            text.push_str(&format!("<{method}Response xmlns=\"urn:vim25\">"));
            match &reply.value {
                Some(value) if reply.any => value.write_any(&mut text, "returnval"),
                Some(value) => value.write(&mut text, "returnval"),
                None => {}
            }
            text.push_str(&format!("</{method}Response>"));
            text.push_str(END);
            let response = Response::xml(200, text);
            match reply.cookie {
                Some(cookie) => response.with("Set-Cookie", &set_cookie(&cookie)),
                None => response,
            }
        }
        Err(fault) => {
            print_fault(&mut text, &fault);
            text.push_str(END);
            Response::xml(500, text)
        }
    }
}

/// A session's cookie as real servers set it, in double quotes (O, `vsphere.md` 2).
pub fn set_cookie(cookie: &str) -> String {
    format!("vmware_soap_session=\"{cookie}\"; Path=/; HttpOnly; Secure;")
}

fn print_fault(text: &mut String, fault: &Fault) {
    let string = crate::sim::xml::escape(&fault.text);
    text.push_str(&format!(
        "<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>{string}</faultstring><detail>"
    ));
    let mut detail = String::new();
    crate::sim::value::Value::Data(fault.data.clone()).write(&mut detail, &format!("{}Fault", fault.name()));
    // The element is in the namespace of the interface.
    text.push_str(&detail.replacen(" xsi:type", " xmlns=\"urn:vim25\" xsi:type", 1));
    text.push_str("</detail></soapenv:Fault>");
}

/// `vimServiceVersions.xml` and its like.
pub fn versions(namespace: &str, versions: &[&str]) -> String {
    let (newest, prior) =
        versions.split_first().map_or(("", [].as_slice()), |(newest, prior)| (*newest, prior));
    let prior: String = prior.iter().map(|version| format!("   <version>{version}</version>\n")).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\n<namespaces version=\"1.0\">\n <namespace>\n  <name>{namespace}</name>\n\
         \u{20} <version>{newest}</version>\n  <priorVersions>\n{prior}  </priorVersions>\n </namespace>\n</namespaces>\n"
    )
}

/// Names of faults from rules of the fault language become names of elements: only letters and digits may.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// A reference that a client sent, for messages.
pub fn show(moref: &Moref) -> String {
    format!("{}:{}", moref.kind, moref.id)
}
