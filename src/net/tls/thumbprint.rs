//! Thumbprints: digests of a certificate's raw bytes. The certificate is never parsed for them.

use ring::digest;

/// A thumbprint that a user typed or pasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbprint {
    given: String,
    /// `None` for what is no thumbprint and so matches nothing.
    bytes: Option<Vec<u8>>,
}

impl Thumbprint {
    /// 20 or 32 bytes in hexadecimal, case and `:`, `-` and blanks between them do not matter. Anything else is a
    /// thumbprint that nothing has, because users give nonsense to be told the right one.
    pub fn parse(given: &str) -> Self {
        let digits: Vec<u8> = given.trim().bytes().filter(|b| !matches!(b, b':' | b'-' | b' ')).collect();
        let bytes = digits
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).ok().filter(|p| p.len() == 2 && !p.starts_with('+')))
            .map(|pair| pair.and_then(|p| u8::from_str_radix(p, 16).ok()))
            .collect::<Option<Vec<u8>>>();
        Self { given: given.to_owned(), bytes: bytes.filter(|b| matches!(b.len(), SHA1 | SHA256)) }
    }

    /// `Err`: the certificate's own thumbprint, by the same digest.
    pub fn check(&self, certificate: &[u8]) -> Result<(), String> {
        let algorithm = match &self.bytes {
            Some(bytes) if bytes.len() == SHA256 => &digest::SHA256,
            _ => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        };
        let actual = digest::digest(algorithm, certificate);
        if self.bytes.as_deref() == Some(actual.as_ref()) { Ok(()) } else { Err(text(actual.as_ref())) }
    }

    /// As it was given.
    pub fn given(&self) -> &str {
        &self.given
    }
}

/// The SHA-1 thumbprint of a certificate, the one that programs ask for.
pub fn of(certificate: &[u8]) -> String {
    text(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate).as_ref())
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
}

const SHA1: usize = 20;
const SHA256: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    // Of the three bytes `abc`, as FIPS 180 prints them.
    const ABC_SHA1: &str = "A9:99:3E:36:47:06:81:6A:BA:3E:25:71:78:50:C2:6C:9C:D0:D8:9D";
    const ABC_SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn both_digests_and_every_way_to_write_them_match() {
        let blanks = ABC_SHA1.replace(':', " ");
        let dashes = ABC_SHA1.replace(':', "-").to_lowercase();
        let colons =
            ABC_SHA256.as_bytes().chunks(2).map(|c| std::str::from_utf8(c).unwrap()).collect::<Vec<_>>();
        for given in [ABC_SHA1, &blanks, &dashes, ABC_SHA256, &colons.join(":"), &format!(" {ABC_SHA1}\n")] {
            assert_eq!(Thumbprint::parse(given).check(b"abc"), Ok(()), "{given}");
        }
    }

    #[test]
    fn the_wrong_one_tells_the_right_one_by_the_same_digest() {
        assert_eq!(Thumbprint::parse(&"00:".repeat(20)).check(b"abc"), Err(ABC_SHA1.to_owned()));
        let sha256 = Thumbprint::parse(&"00".repeat(32)).check(b"abc").unwrap_err();
        assert_eq!(sha256.replace(':', "").to_lowercase(), ABC_SHA256);
    }

    #[test]
    fn nonsense_matches_nothing() {
        let almost = ABC_SHA1.strip_suffix('D').unwrap();
        let signs = ABC_SHA1.replace(":0", ":+");
        let long = format!("{ABC_SHA1}:00");
        for given in ["", "xx:xx", "é", almost, &long, &signs.replace("A9", "+9"), &"é".repeat(20)] {
            assert_eq!(Thumbprint::parse(given).check(b"abc"), Err(ABC_SHA1.to_owned()), "{given}");
        }
    }
}
