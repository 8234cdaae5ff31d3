//! The cookie that says which session a call belongs to.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::secret::Secret;

const NAME: &[u8] = b"vmware_soap_session";

/// Longest value.
const LONGEST: usize = 4 << 10;

/// What to send for it.
pub fn header(value: &Secret) -> Secret {
    Secret::new([NAME, b"=", value.expose()].concat())
}

/// The value in a header `Set-Cookie`, exactly as it came, quotes included.
pub fn received(header: &[u8]) -> Option<Secret> {
    let value = header.trim_ascii_start().strip_prefix(NAME)?.strip_prefix(b"=")?;
    good(value)
}

/// The value that a program passed, in any spelling, as it may have to be sent: as it was given, and with quotes put
/// around it or taken away, since real servers put quotes around theirs and programs may have dropped them.
pub fn given(text: &Secret) -> Result<[Secret; 2]> {
    let bytes = text.expose().trim_ascii();
    let bytes = bytes.strip_prefix(b"Cookie:").unwrap_or(bytes).trim_ascii_start();
    let value =
        match bytes.strip_prefix(NAME).map(<[u8]>::trim_ascii_start).and_then(|rest| rest.strip_prefix(b"="))
        {
            Some(value) => value.trim_ascii_start(),
            None => bytes,
        };
    let what = "the cookie that was given has no value that could be one of a session";
    let value = good(value).ok_or_else(|| Error::new(ErrorKind::SessionInvalid, what))?;
    let bare = value.expose().strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let other = match bare {
        Some(bare) => Secret::new(bare.to_vec()),
        None => Secret::new([b"\"", value.expose(), b"\""].concat()),
    };
    Ok([value, other])
}

/// The value in front of the attributes, if it can be sent.
fn good(text: &[u8]) -> Option<Secret> {
    let value = text.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let is_empty = value.iter().all(|b| *b == b'"');
    let is_sendable = value.iter().all(|b| b.is_ascii_graphic() && *b != b',');
    (!is_empty && is_sendable && value.len() <= LONGEST).then(|| Secret::new(value.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        let given = given(&Secret::from(text.to_owned())).unwrap();
        given.iter().map(|value| value.expose_text().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_spelling_gives_the_value() {
        for text in
            ["vmware_soap_session=\"52-x\"", "\"52-x\"", " vmware_soap_session=\"52-x\"; Path=/; HttpOnly\n"]
        {
            assert_eq!(values(text), ["\"52-x\"", "52-x"], "{text}");
        }
        for text in ["vmware_soap_session=52-x", "52-x", "52-x;Secure", "Cookie: vmware_soap_session = 52-x"]
        {
            assert_eq!(values(text), ["52-x", "\"52-x\""], "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_value_is_refused_without_saying_it() {
        for text in
            ["", "vmware_soap_session=", "\"\"", "; HttpOnly", "can\r\nary: 1", "can ary", "canary\u{e4}"]
        {
            let e = given(&Secret::from(text.to_owned())).err().unwrap();
            assert_eq!(e.kind(), ErrorKind::SessionInvalid);
            assert!(!e.to_string().contains("ary"), "{e}");
        }
    }

    #[test]
    fn a_received_cookie_is_kept_as_it_came() {
        let value = |header: &[u8]| received(header).map(|v| v.expose_text().unwrap().to_owned());
        assert_eq!(value(b"vmware_soap_session=\"52-x\"; Path=/; Secure").unwrap(), "\"52-x\"");
        assert_eq!(value(b"vmware_soap_session=1").unwrap(), "1");
        assert_eq!(value(b"vmware_soap_session=\"\"; Max-Age=0"), None);
        assert_eq!(value(b"vmware_soap_session_x=1"), None);
        assert_eq!(value(b"other=1; vmware_soap_session=2"), None);
        assert_eq!(
            header(&received(b"vmware_soap_session=\"a\";").unwrap()).expose(),
            b"vmware_soap_session=\"a\""
        );
    }
}
