//! XML in both directions: text made safe, and what a request says.
//!
//! Elements are told apart by their local name. Which prefix a client declares is its own affair, and the calls that came
//! in `urn:internalvim25` are the same ones here.

use roxmltree::Node;

use crate::sim::value::Moref;

/// Text for an element or an attribute. Characters that XML cannot hold become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\t' | '\n' => safe.push(letter),
            '\r' => safe.push_str("&#13;"),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            _ => safe.push(letter),
        }
    }
    safe
}

/// An element of a request.
#[derive(Clone, Copy, Debug)]
pub struct Arg<'a>(pub Node<'a, 'a>);

impl<'a> Arg<'a> {
    /// Its local name.
    pub fn name(self) -> &'a str {
        self.0.tag_name().name()
    }

    /// Its children of this name.
    pub fn all(self, name: &'a str) -> impl Iterator<Item = Arg<'a>> + 'a {
        self.0.children().filter(move |node| node.is_element() && node.tag_name().name() == name).map(Arg)
    }

    /// Its child of this name.
    pub fn one(self, name: &'a str) -> Option<Arg<'a>> {
        self.all(name).next()
    }

    /// Its text, all of it.
    pub fn text(self) -> String {
        self.0.children().filter(Node::is_text).filter_map(|node| node.text()).collect()
    }

    /// The text of a child.
    pub fn text_of(self, name: &'a str) -> Option<String> {
        self.one(name).map(Arg::text)
    }

    /// The truth a child says; absent or odd is `false`.
    pub fn is(self, name: &'a str) -> bool {
        self.text_of(name).is_some_and(|text| matches!(text.trim(), "true" | "1"))
    }

    /// The number a child says. `None` also for what is none.
    pub fn number(self, name: &'a str) -> Option<i64> {
        self.text_of(name)?.trim().parse().ok()
    }

    /// What it refers to; an empty text refers to nothing.
    pub fn moref(self) -> Option<Moref> {
        let kind = self
            .0
            .attributes()
            .find(|attribute| attribute.name() == "type" && attribute.namespace().is_none());
        let id = self.text().trim().to_owned();
        (!id.is_empty()).then(|| Moref::new(kind.map_or("", |attribute| local(attribute.value())), id))
    }

    /// The type it gives itself with `xsi:type`, without prefix.
    pub fn kind(self) -> Option<&'a str> {
        self.0
            .attributes()
            .find(|attribute| attribute.name() == "type" && attribute.namespace() == Some(XSI))
            .map(|attribute| local(attribute.value()))
    }
}

/// A name without its prefix.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_found_whatever_their_prefix() {
        let text = "<q:A xmlns:q='urn:vim25' xmlns:odd='http://www.w3.org/2001/XMLSchema-instance'>\
                    <q:obj type='VirtualMachine'> vm-1 </q:obj><b odd:type='q:VirtualDisk'>true</b><n>x</n></q:A>";
        let document = roxmltree::Document::parse(text).unwrap();
        let arg = Arg(document.root_element());
        assert_eq!(
            (arg.name(), arg.one("obj").and_then(Arg::moref)),
            ("A", Some(Moref::new("VirtualMachine", "vm-1")))
        );
        assert_eq!(arg.one("b").and_then(Arg::kind), Some("VirtualDisk"));
        assert!(arg.is("b") && !arg.is("n") && arg.number("n").is_none());
    }

    #[test]
    fn characters_that_xml_cannot_hold_are_replaced() {
        assert_eq!(escape("a\0b\u{1}\r"), "a\u{fffd}b\u{fffd}&#13;");
    }
}
