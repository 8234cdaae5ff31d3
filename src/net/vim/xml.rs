//! Documents of a server, read by namespace and not by prefix, and bounded before anything is built of them.
//!
//! The parser below needs no recursion and knows no DTD, but it takes as much memory as the text has signs in it, and
//! time that grows with the namespaces that are in force. So the text is measured first.

use roxmltree::Document;
use roxmltree::ParsingOptions;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::http::Hidden;
use crate::net::vim::moref::Moref;

/// An element, or what is in one.
pub type Node<'a> = roxmltree::Node<'a, 'a>;

/// Of SOAP 1.1.
pub const ENVELOPE: &str = "http://schemas.xmlsoap.org/soap/envelope/";

/// Of what vSphere says.
pub const VIM: &str = "urn:vim25";

const INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// Longest document.
pub const LONGEST: usize = 8 << 20;

/// Most `<` and most `=` of a document: the parser makes room for that many nodes and attributes before it looks.
const MOST_SIGNS: usize = 256 << 10;

/// Elements inside of each other. A chain of links needs one each, a tree of snapshots too.
const DEEPEST: usize = 512;

/// Attributes of one element.
const MOST_ATTRIBUTES: usize = 64;

/// What the namespaces may cost: for each element that declares some, the square of those in force.
const MOST_WORK: usize = 64 << 20;

/// Longest id of an object.
const LONGEST_ID: usize = 1 << 10;

/// Reads a document.
pub fn parse<'a>(bytes: &'a [u8], hidden: &Hidden) -> Result<Document<'a>> {
    if bytes.len() > LONGEST {
        return Err(broken(&format!("a document of {} bytes", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| broken("a document that is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    measure(text.as_bytes())?;
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: 2 * MOST_SIGNS as u32, ..Default::default() };
    Document::parse_with_options(text, options)
        .map_err(|e| broken(&format!("a document that is not XML: {}", hidden.quote(&e.to_string()))))
}

/// Looks at the signs of a document alone. What is not XML at all is left to the parser to complain about.
fn measure(text: &[u8]) -> Result<()> {
    for sign in [b'<', b'='] {
        if text.iter().filter(|b| **b == sign).count() > MOST_SIGNS {
            return Err(broken("a document with too many elements or attributes"));
        }
    }
    let mut scopes = Scopes::default();
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| *b == b'<') {
        rest = rest.get(at..).unwrap_or_default();
        rest = match rest {
            [b'<', b'!', b'-', b'-', behind @ ..] => after(behind, b"-->"),
            [b'<', b'!', b'[', behind @ ..] => after(behind, b"]]>"),
            [b'<', b'!', ..] => return Err(broken("a document with a DTD")),
            [b'<', b'?', behind @ ..] => after(behind, b"?>"),
            [b'<', b'/', behind @ ..] => {
                scopes.leave();
                after(behind, b">")
            }
            [_, behind @ ..] => {
                let tag = Tag::measure(behind);
                scopes.enter(&tag)?;
                behind.get(tag.length..).unwrap_or_default()
            }
            [] => rest,
        };
    }
    Ok(())
}

fn after<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    let at = text.windows(end.len()).position(|window| window == end);
    at.and_then(|at| text.get(at.saturating_add(end.len())..)).unwrap_or_default()
}

/// The signs between `<` and `>`.
struct Tag {
    length: usize,
    attributes: usize,
    namespaces: usize,
    is_empty: bool,
}

impl Tag {
    fn measure(text: &[u8]) -> Self {
        let mut tag = Self { length: text.len(), attributes: 0, namespaces: 0, is_empty: false };
        let (mut quote, mut name_at, mut before) = (None, 0, 0);
        for (at, &byte) in text.iter().enumerate() {
            match (quote, byte) {
                (Some(open), _) if byte == open => quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => quote = Some(byte),
                (None, b'>') => {
                    tag.length = at.saturating_add(1);
                    tag.is_empty = before == b'/';
                    break;
                }
                (None, b'=') => {
                    tag.attributes = tag.attributes.saturating_add(1);
                    let is_namespace = text.get(name_at..at).is_some_and(|name| name.starts_with(b"xmlns"));
                    tag.namespaces = tag.namespaces.saturating_add(usize::from(is_namespace));
                }
                (None, b' ' | b'\t' | b'\r' | b'\n') => {}
                (None, _) if matches!(before, b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'\'') => name_at = at,
                (None, _) => {}
            }
            before = byte;
        }
        tag
    }
}

/// The elements that are open, with the number of namespaces that each declares.
#[derive(Default)]
struct Scopes {
    open: Vec<usize>,
    in_force: usize,
    work: usize,
}

impl Scopes {
    fn enter(&mut self, tag: &Tag) -> Result<()> {
        if tag.attributes > MOST_ATTRIBUTES {
            return Err(broken("an element with too many attributes"));
        }
        let here = self.in_force.saturating_add(tag.namespaces);
        if tag.namespaces > 0 {
            self.work = self.work.saturating_add(here.saturating_mul(here));
        }
        if self.work > MOST_WORK {
            return Err(broken("a document with too many namespaces"));
        }
        if tag.is_empty {
            return Ok(());
        }
        if self.open.len() >= DEEPEST {
            return Err(broken("a document with too many elements inside of each other"));
        }
        self.open.push(tag.namespaces);
        self.in_force = here;
        Ok(())
    }

    fn leave(&mut self) {
        let gone = self.open.pop().unwrap_or_default();
        self.in_force = self.in_force.saturating_sub(gone);
    }
}

/// The elements of this name inside of an element.
pub fn all<'a>(node: Node<'a>, name: &'static str) -> impl Iterator<Item = Node<'a>> {
    node.children().filter(move |child| child.has_tag_name((VIM, name)))
}

/// The one element of this name, if there is one. Two would leave open which one counts.
pub fn one<'a>(node: Node<'a>, name: &'static str) -> Result<Option<Node<'a>>> {
    let mut found = all(node, name);
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        _ => Err(broken(&format!("{} has more than one {name}", local(node)))),
    }
}

/// The one element of this name.
pub fn need<'a>(node: Node<'a>, name: &'static str) -> Result<Node<'a>> {
    one(node, name)?.ok_or_else(|| broken(&format!("{} has no {name}", local(node))))
}

/// The element at the end of a path of names, if all of them are there.
pub fn path<'a>(node: Node<'a>, names: &[&'static str]) -> Result<Option<Node<'a>>> {
    let mut at = Some(node);
    for name in names {
        at = match at {
            Some(node) => one(node, name)?,
            None => None,
        };
    }
    Ok(at)
}

/// The text inside of an element, in all its pieces.
pub fn text(node: Node<'_>) -> String {
    node.children().filter(Node::is_text).filter_map(|piece| piece.text()).collect()
}

/// The text of the one element of this name, if there is one.
pub fn optional(node: Node<'_>, name: &'static str) -> Result<Option<String>> {
    Ok(one(node, name)?.map(text))
}

/// The text of the one element of this name as a number or the like.
pub fn number<T: std::str::FromStr>(node: Node<'_>, name: &'static str) -> Result<Option<T>> {
    let Some(found) = one(node, name)? else { return Ok(None) };
    match text(found).trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(broken(&format!("{name} of {} is not a number that it can be", local(node)))),
    }
}

/// The type of a value that can be of several, without its prefix.
pub fn type_of<'a>(node: Node<'a>) -> Option<&'a str> {
    node.attribute((INSTANCE, "type")).map(|name| name.rsplit(':').next().unwrap_or(name))
}

/// A reference to an object.
pub fn moref(node: Node<'_>) -> Result<Moref> {
    // Asked for by name alone, the parser would also give the type of the value, which has a namespace.
    let kind = node.attributes().find(|a| a.namespace().is_none() && a.name() == "type");
    let (kind, id) = (kind.map_or("", |a| a.value()), text(node));
    let is_good =
        |part: &str| !part.is_empty() && part.len() <= LONGEST_ID && !part.chars().any(char::is_control);
    if !is_good(kind) || !is_good(&id) {
        return Err(broken(&format!("{} is not a reference to an object", local(node))));
    }
    Ok(Moref::new(kind, id))
}

/// The reference in the one element of this name, if there is one.
pub fn optional_moref(node: Node<'_>, name: &'static str) -> Result<Option<Moref>> {
    one(node, name)?.map(moref).transpose()
}

/// An element's name for messages. It is the server's word, so it has to look like a name.
fn local<'a>(node: Node<'a>) -> &'a str {
    let name = node.tag_name().name();
    let is_good = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_good && KNOWN.contains(&name) { name } else { "an element" }
}

/// Names that messages may have in them. A name that the server made up could be anything.
const KNOWN: &[&str] = &[
    "returnval",
    "objects",
    "propSet",
    "val",
    "VirtualDisk",
    "VirtualDevice",
    "backing",
    "parent",
    "about",
    "config",
    "fault",
    "obj",
    "object",
    "vm",
    "snapshot",
    "host",
    "rootFolder",
    "propertyCollector",
    "sessionManager",
    "token",
];

/// What a server said is not what its interface has.
pub fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("the server's answer is not understood: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<ErrorKind> {
        parse(text.as_bytes(), &Hidden::default()).err().map(|e| e.kind())
    }

    #[test]
    fn documents_are_read_by_namespace() {
        let text = "\u{feff}<?xml version='1.0'?><!-- <a> --><p:a xmlns:p='urn:vim25' xmlns:i='http://www.w3.org/2001/XMLSchema-instance'>\
                    <p:b i:type='q:T' q='>'>x<![CDATA[<y>]]>&lt;z<!-- - -->!</p:b><b xmlns='urn:other'>no</b>\
                    <c xmlns='urn:vim25' i:type='ManagedObjectReference' type='Folder'>group-1</c></p:a>";
        let document = parse(text.as_bytes(), &Hidden::default()).unwrap();
        let root = document.root_element();
        let b = need(root, "b").unwrap();
        assert_eq!((super::text(b).as_str(), type_of(b)), ("x<y><z!", Some("T")));
        assert_eq!(optional_moref(root, "c").unwrap(), Some(Moref::new("Folder", "group-1")));
        assert_eq!(optional(root, "d").unwrap(), None);
    }

    #[test]
    fn an_element_that_is_there_twice_is_refused() {
        let document = parse(b"<a xmlns='urn:vim25'><b>1</b><b>2</b></a>", &Hidden::default()).unwrap();
        assert_eq!(one(document.root_element(), "b").unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[test]
    fn what_has_no_bound_is_refused_before_it_is_parsed() {
        let wide: String = (0..1000).map(|n| format!("<a xmlns:p{n}=''/>")).collect();
        assert_eq!(kind(&format!("<r>{wide}</r>")), None);
        let chain = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert_eq!(kind(&chain(DEEPEST)), None);
        let costly: String = (0..300)
            .map(|n| format!("<a {}>", (0..60).map(|m| format!("xmlns:p{n}x{m}='u' ")).collect::<String>()))
            .collect();
        let attributes: String = (0..=MOST_ATTRIBUTES).map(|n| format!("a{n}='' ")).collect();
        for text in [
            chain(DEEPEST + 1),
            format!("{costly}{}", "</a>".repeat(300)),
            format!("<a {attributes}/>"),
            format!("<a>{}</a>", "=".repeat(MOST_SIGNS + 1)),
            format!("<a>{}</a>", "<b/>".repeat(MOST_SIGNS)),
            "<".repeat(MOST_SIGNS + 1),
            format!("<a>{}</a>", " ".repeat(LONGEST)),
        ] {
            assert_eq!(kind(&text), Some(ErrorKind::Protocol));
        }
    }

    #[test]
    fn entities_and_their_declarations_are_refused() {
        for text in [
            "<!DOCTYPE a [<!ENTITY e 'eeeeeeee'>]><a>&e;</a>",
            "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>",
            "<a><!DOCTYPE b></a>",
            "<!doctype html><html></html>",
            "<a>&e;</a>",
            "<a>&#0;</a>",
        ] {
            assert_eq!(kind(text), Some(ErrorKind::Protocol), "{text}");
        }
    }

    #[test]
    fn what_is_no_document_is_refused_wherever_it_ends() {
        let whole =
            "<?xml version='1.0'?><a xmlns='urn:vim25' b=\"c\"><!-- x --><d>e&amp;f</d><![CDATA[g]]></a>";
        assert_eq!(kind(whole), None);
        for cut in 0..whole.len() {
            assert_eq!(kind(&whole[..cut]), Some(ErrorKind::Protocol), "{cut}");
        }
        assert_eq!(parse(b"<a>\xff</a>", &Hidden::default()).unwrap_err().kind(), ErrorKind::Protocol);
        let hidden = Hidden::default();
        hidden.keep(&crate::secret::Secret::from("canary".to_owned()));
        let e = parse(b"<canary></x>", &hidden).unwrap_err().to_string();
        assert!(!e.contains("canary"), "{e}");
    }
}
