//! Calls as they are written.

use std::fmt;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::http::Wiped;
use crate::net::vim::moref::Moref;

/// A call of a method of an object, with what has been written of it. There may be a password in it.
///
/// The order of the arguments is part of the interface: the fields of a type's base come first.
pub struct Call {
    /// The method's name.
    pub method: &'static str,
    body: Wiped,
    /// The first argument that cannot be written.
    spoilt: Option<&'static str>,
}

/// The method.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("method", &self.method).finish_non_exhaustive()
    }
}

const BEGIN: &str = concat!(
    r#"<?xml version="1.0" encoding="UTF-8"?>"#,
    r#"<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/""#,
    r#" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">"#,
    "<soapenv:Body>"
);
const END: &str = "</soapenv:Body></soapenv:Envelope>";

/// Most calls fit without being moved.
const USUAL: usize = 2 << 10;

impl Call {
    /// A call of the public interface.
    pub fn new(method: &'static str, this: &Moref) -> Self {
        Self::of("urn:vim25", method, this)
    }

    /// A call of the interface between the parts of vSphere.
    pub fn internal(method: &'static str, this: &Moref) -> Self {
        Self::of("urn:internalvim25", method, this)
    }

    fn of(namespace: &'static str, method: &'static str, this: &Moref) -> Self {
        let mut call = Self { method, body: Wiped::with_capacity(USUAL), spoilt: None };
        for part in [BEGIN, "<", method, " xmlns=\"", namespace, "\">"] {
            call.body.push(part.as_bytes());
        }
        call.moref("_this", this)
    }

    /// An argument that is a text, or is written like one.
    pub fn text(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.tag("<", name);
        self.escaped(name, value.as_ref());
        self.tag("</", name);
        self
    }

    /// An argument that is a reference.
    pub fn moref(mut self, name: &'static str, value: &Moref) -> Self {
        for part in ["<", name, " type=\""] {
            self.body.push(part.as_bytes());
        }
        self.escaped(name, &value.kind);
        self.body.push(b"\">");
        self.escaped(name, &value.id);
        self.tag("</", name);
        self
    }

    /// An argument that is a reference, if there is one.
    pub fn optional_moref(self, name: &'static str, value: Option<&Moref>) -> Self {
        match value {
            Some(value) => self.moref(name, value),
            None => self,
        }
    }

    /// An argument with arguments of its own.
    pub fn inside(mut self, name: &'static str, write: impl FnOnce(Self) -> Self) -> Self {
        self.tag("<", name);
        self = write(self);
        self.tag("</", name);
        self
    }

    fn tag(&mut self, open: &str, name: &str) {
        for part in [open, name, ">"] {
            self.body.push(part.as_bytes());
        }
    }

    fn escaped(&mut self, name: &'static str, value: &str) {
        for c in value.chars() {
            match c {
                '&' => self.body.push(b"&amp;"),
                '<' => self.body.push(b"&lt;"),
                '>' => self.body.push(b"&gt;"),
                '"' => self.body.push(b"&quot;"),
                '\'' => self.body.push(b"&apos;"),
                '\r' => self.body.push(b"&#13;"), // a bare one would arrive as a newline
                '\t' | '\n' => self.body.push(&[c as u8]),
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                    self.spoilt.get_or_insert(name);
                }
                c => self.body.push(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    /// The whole message.
    pub fn finish(mut self) -> Result<Written> {
        if let Some(name) = self.spoilt {
            let what = format!("the argument {name} of {} has a character that XML cannot have", self.method);
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        self.tag("</", self.method);
        self.body.push(END.as_bytes());
        Ok(Written { method: self.method, body: self.body })
    }
}

/// A call that is ready to be sent, more than once if need be.
#[derive(Debug)]
pub struct Written {
    /// The method's name.
    pub method: &'static str,
    /// The whole message.
    pub body: Wiped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(call: Call) -> String {
        let written = call.finish().unwrap();
        let text = std::str::from_utf8(written.body.bytes()).unwrap();
        text.strip_prefix(BEGIN).unwrap().strip_suffix(END).unwrap().to_owned()
    }

    #[test]
    fn arguments_are_written_in_order_and_escaped() {
        let call = Call::new("M", &Moref::new("T", "i<d"))
            .text("a", " <&>\"'\r ü\n")
            .inside("b", |b| b.text("c", "1").optional_moref("d", None))
            .optional_moref("e", Some(&Moref::machine("vm-1")));
        assert_eq!(
            body(call),
            "<M xmlns=\"urn:vim25\"><_this type=\"T\">i&lt;d</_this><a> &lt;&amp;&gt;&quot;&apos;&#13; ü\n</a>\
             <b><c>1</c></b><e type=\"VirtualMachine\">vm-1</e></M>"
        );
        assert!(
            body(Call::internal("M", &Moref::new("T", "i"))).starts_with("<M xmlns=\"urn:internalvim25\">")
        );
    }

    #[test]
    fn what_xml_cannot_have_is_refused_without_saying_it() {
        for text in ["canary\0", "canary\u{1b}", "canary\u{ffff}"] {
            let e = Call::new("Login", &Moref::new("T", "i")).text("password", text).finish().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidArgument);
            assert!(e.to_string().contains("password") && !e.to_string().contains("canary"), "{e}");
        }
    }
}
