//! What must not be read in an error or a log, though a server may say it again.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::net::http::percent;
use crate::secret::Secret;

/// The secrets of one login. Clones share them.
///
/// The words of a server are quoted through this. Words that repeat a secret are left out as a whole: to blank only the
/// secret would tell where it stood and how long it is.
#[derive(Clone, Default)]
pub struct Hidden(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    kept: Vec<Secret>,
    passing: VecDeque<Secret>,
}

/// Secrets that come and go, like tickets: so many of the last ones are known.
const MOST_PASSING: usize = 64;

/// Longest quotation in characters.
const LONGEST: usize = 300;

/// More than this is not looked through and not quoted.
const MOST_LOOKED_AT: usize = 64 << 10;

/// A quotation of a body is taken from so many of its first bytes.
const MOST_QUOTED: usize = 4 << 10;

const LEFT_OUT: &str = "(words that repeat a secret)";

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hidden").finish_non_exhaustive()
    }
}

impl Hidden {
    /// Knows this secret for good.
    pub fn keep(&self, secret: &Secret) {
        if let Some(bare) = bare(secret) {
            self.0.lock().kept.push(bare);
        }
    }

    /// Knows this secret until many others have come after it.
    pub fn pass(&self, secret: &Secret) {
        let Some(bare) = bare(secret) else { return };
        let mut known = self.0.lock();
        known.passing.push_back(bare);
        if known.passing.len() > MOST_PASSING {
            known.passing.pop_front();
        }
    }

    /// True when the text has one of the secrets in it, as it is or encoded as XML and URLs are.
    pub fn repeats(&self, text: &[u8]) -> bool {
        let plain = unescaped(text);
        let once = percent::decoded_bytes(&plain);
        let twice = once.as_deref().and_then(percent::decoded_bytes);
        let raw = percent::decoded_bytes(text);
        let forms = [Some(text), Some(&*plain), once.as_deref(), twice.as_deref(), raw.as_deref()];
        let known = self.0.lock();
        let mut all = known.kept.iter().chain(&known.passing);
        all.any(|secret| forms.iter().flatten().any(|form| contains(form, secret.expose())))
    }

    /// Words of a server, for an error or a log: in quotes, on one line, not too long, and without secrets.
    pub fn quote(&self, text: &str) -> String {
        if text.len() > MOST_LOOKED_AT {
            return format!("({} bytes)", text.len());
        }
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if self.repeats(text.as_bytes()) || self.repeats(words.as_bytes()) {
            return LEFT_OUT.to_owned();
        }
        match words.char_indices().nth(LONGEST) {
            Some((at, _)) => format!("{:?}...", words.get(..at).unwrap_or_default()),
            None => format!("{words:?}"),
        }
    }

    /// The beginning of a body that is not what it should be.
    pub fn excerpt(&self, body: &[u8]) -> String {
        let looked_at = body.get(..MOST_LOOKED_AT).unwrap_or(body);
        if looked_at.is_empty() {
            return "nothing".to_owned();
        }
        if self.repeats(looked_at) {
            return LEFT_OUT.to_owned();
        }
        // Far less than what was looked at: a secret across the cut of that does not show here.
        let start = looked_at.get(..MOST_QUOTED).unwrap_or(looked_at);
        self.quote(&String::from_utf8_lossy(start))
    }
}

/// Without the quotes that some cookies have; nothing for a secret without content.
fn bare(secret: &Secret) -> Option<Secret> {
    let bytes = secret.expose();
    let inner = bytes.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(bytes);
    (!inner.is_empty()).then(|| Secret::new(inner.to_vec()))
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    let Some(first) = what.first() else { return false };
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(what) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// The text with the references of XML undone that stand for one character.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'&') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let end = behind.iter().take(LONGEST_REFERENCE).position(|byte| *byte == b';');
        let name = end.filter(|_| first == b'&').and_then(|end| behind.get(..end));
        match name.and_then(character) {
            Some(c) => {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = behind.get(end.unwrap_or_default().saturating_add(1)..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = behind;
            }
        }
    }
    Cow::Owned(out)
}

/// `#x10ffff` with some zeros in front.
const LONGEST_REFERENCE: usize = 16;

fn character(name: &[u8]) -> Option<char> {
    let number = |digits: &[u8], radix| {
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok().and_then(char::from_u32)
    };
    match name {
        b"amp" => Some('&'),
        b"lt" => Some('<'),
        b"gt" => Some('>'),
        b"quot" => Some('"'),
        b"apos" => Some('\''),
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(secret: &str) -> Hidden {
        let hidden = Hidden::default();
        hidden.keep(&Secret::from(secret.to_owned()));
        hidden
    }

    #[test]
    fn words_without_a_secret_are_quoted_on_one_line() {
        let hidden = hidden("geheim");
        assert_eq!(hidden.quote("a\n  b\u{1b}[m"), r#""a b\u{1b}[m""#);
        let long = hidden.quote(&"x".repeat(400));
        assert!(long.len() < 320 && long.ends_with("..."), "{long}");
        assert_eq!(hidden.excerpt(b""), "nothing");
    }

    #[test]
    fn words_that_repeat_a_secret_in_any_encoding_are_left_out() {
        for said in [
            "so: g&h <i> \"m\"!",
            "so: g&amp;h &lt;i> &quot;m&quot;",
            "so: &#103;&#x26;h &#60;i&#000062; \"m\"",
            "so: g%26h%20%3ci%3E%20%22m%22",
            "so: g%2526h%2520%253Ci%253E%2520%2522m%2522",
            "so: g&h\n<i>   \"m\"",
            "g%26amp%3Bh is not it, but g&h <i> \"m\" is",
        ] {
            assert_eq!(hidden("g&h <i> \"m\"").quote(said), "(words that repeat a secret)", "{said}");
        }
        assert_eq!(hidden("\"52-x\"").quote("cookie 52-x."), "(words that repeat a secret)");
        assert_eq!(hidden("aab").quote("aaab"), "(words that repeat a secret)");
        assert_eq!(hidden("100%").excerpt(b"<p>100%25</p>\xff"), "(words that repeat a secret)");
    }

    #[test]
    fn a_secret_at_the_cut_of_a_quotation_is_seen() {
        let said = format!("{}geheim", "x".repeat(LONGEST - 3));
        assert_eq!(hidden("geheim").quote(&said), "(words that repeat a secret)");
    }

    #[test]
    fn nothing_is_no_secret_and_old_tickets_are_forgotten() {
        assert_eq!(hidden("").quote("a"), "\"a\"");
        let hidden = hidden("kept");
        for n in 0..=MOST_PASSING {
            hidden.pass(&Secret::from(format!("ticket-{n}.")));
        }
        assert!(!hidden.repeats(b"ticket-0.") && hidden.repeats(b"ticket-1.") && hidden.repeats(b"kept"));
        assert_eq!(format!("{hidden:?}"), "Hidden { .. }");
    }
}
