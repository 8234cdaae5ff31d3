//! Why a certificate is refused, in words for people.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use rustls::CertificateError;
use rustls::OtherError;
use rustls::pki_types::UnixTime;

/// A reason of our own, on its way through rustls.
#[derive(Debug)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Refusal {}

impl From<Refusal> for CertificateError {
    fn from(refusal: Refusal) -> Self {
        CertificateError::Other(OtherError(Arc::new(refusal)))
    }
}

/// True when webpki refuses a certificate as a server's because it is an authority's.
pub fn is_authority(why: &CertificateError) -> bool {
    // The type of webpki's errors is not ours to name; a name that it changes is one that is refused.
    matches!(why, CertificateError::Other(OtherError(why)) if why.to_string() == "CaUsedAsEndEntity")
}

/// What follows "the server's certificate is refused: ".
pub fn words(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "nobody who is trusted vouches for it".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("it expired {} ago", span(*not_after, *time))
        }
        CertificateError::Expired => "it expired, or its dates contradict each other".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("its time begins only in {}; is the clock right?", span(*time, *not_before))
        }
        CertificateError::NotValidForNameContext { expected, presented } if presented.is_empty() => {
            format!("it should be for {:?} but has no names (subjectAltName)", expected.to_str())
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!("it should be for {:?} but is for {}", expected.to_str(), listed(presented))
        }
        CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers (extendedKeyUsage)".to_owned()
        }
        CertificateError::BadEncoding => "it is not encoded as certificates are".to_owned(),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. } => {
            "it is signed in a way that is not supported".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the way it is signed is not supported with the authority's key".to_owned()
        }
        why if is_authority(why) => {
            "it is an authority's and not a server's, and not itself among those that are trusted".to_owned()
        }
        CertificateError::Other(OtherError(why)) => why.to_string(),
        why => why.to_string(),
    }
}

/// More names than that help nobody; the server chooses how many there are.
const MOST_NAMES: usize = 8;

/// Names without what webpki says about their kind, as in `DnsName("a.example")`.
fn listed(names: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let mut said = names.iter().take(MOST_NAMES).map(bare).collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(MOST_NAMES) {
        said.push_str(&format!(" and {more} more"));
    }
    said
}

/// The time between the two, roughly.
fn span(from: UnixTime, to: UnixTime) -> String {
    let seconds = to.as_secs().saturating_sub(from.as_secs());
    [("day", 86_400), ("hour", 3600), ("minute", 60)]
        .into_iter()
        .find(|(_, unit)| seconds >= *unit)
        .map_or_else(
            || "less than a minute".to_owned(),
            |(name, unit)| match seconds / unit {
                1 => format!("1 {name}"),
                n => format!("{n} {name}s"),
            },
        )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_are_listed_bare_and_not_all_of_them() {
        let mut names =
            vec!["DnsName(\"a.example\")".to_owned(), "IpAddress(::1)".to_owned(), "odd".to_owned()];
        assert_eq!(listed(&names), "a.example, ::1, odd");
        names.resize(MOST_NAMES, "x".to_owned());
        assert!(listed(&names).ends_with(", x"));
        names.resize(2000, "x".to_owned());
        assert!(listed(&names).ends_with(", x and 1992 more"));
    }

    #[test]
    fn spans_are_told_in_their_largest_unit() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        for (seconds, said) in [
            (59, "less than a minute"),
            (60, "1 minute"),
            (7199, "1 hour"),
            (7200, "2 hours"),
            (86_400 * 400, "400 days"),
        ] {
            assert_eq!(span(at(5), at(5 + seconds)), said);
        }
        assert_eq!(span(at(5), at(0)), "less than a minute");
    }
}
