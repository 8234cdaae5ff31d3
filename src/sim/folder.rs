//! `/folder`: the files of datastores over HTTPS, for reading (`vsphere.md` 9).

use std::fs::File;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::sim::http::query;
use crate::sim::http::request::Request;
use crate::sim::http::response::Body;
use crate::sim::http::response::Response;
use crate::sim::options::FolderEncoding;
use crate::sim::session;
use crate::sim::site::Site;
use crate::sim::soap::envelope;

/// Answers a request for `/folder/..`.
pub fn answer(site: &Arc<Site>, request: &Request, peer: IpAddr) -> Response {
    let cookie = match admit(site, request, peer) {
        Ok(cookie) => cookie,
        Err(response) => return *response,
    };
    let response = match request.method.as_str() {
        "GET" | "HEAD" => match find(site, request) {
            Some(path) => send(site, request, &path),
            None => Response::text(404, "There is no such file\n"),
        },
        _ => Response::text(405, "Files can only be read here\n"),
    };
    site.log.debug(|| format!("vixsim: {peer} {} {}: {}", request.method, request.path, response.status));
    match cookie {
        Some(cookie) => response.with("Set-Cookie", &envelope::set_cookie(&cookie)),
        None => response,
    }
}

/// Who may come in: somebody with a session, a ticket for just this, or the password, with which a session begins whose
/// cookie comes back.
fn admit(site: &Site, request: &Request, peer: IpAddr) -> Result<Option<String>, Box<Response>> {
    if let Some(ticket) = request.cookie("vmware_cgi_ticket") {
        let target = match request.query.as_str() {
            "" => request.path.clone(),
            query => format!("{}?{query}", request.path),
        };
        let grant = site.tickets.redeem_url(&ticket);
        return match grant.is_some_and(|grant| grant.target == target && grant.method == request.method) {
            true => Ok(None),
            false => Err(refused()),
        };
    }
    if request.cookie("vmware_soap_session").is_some_and(|cookie| site.sessions.find(&cookie).is_some()) {
        return Ok(None);
    }
    let given = request.header("authorization").and_then(|value| value.split_once(' '));
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let text =
        given.and_then(|(_, text)| base64(text.trim())).and_then(|bytes| String::from_utf8(bytes).ok());
    let Some((user, password)) = text.as_deref().and_then(|text| text.split_once(':')) else {
        return Err(refused());
    };
    if user != site.options.user || !session::is_password(&site.options.password, password) {
        return Err(refused());
    }
    match site.sessions.open(user, peer, request.header("user-agent").unwrap_or_default()) {
        Ok(Some((cookie, _))) => Ok(Some(cookie)),
        _ => Err(Box::new(Response::text(503, "Too many sessions\n"))),
    }
}

fn refused() -> Box<Response> {
    Box::new(
        Response::text(401, "Log in first\n").with("WWW-Authenticate", "Basic realm=\"VMware HTTP server\""),
    )
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bits = 0u32;
    let mut count = 0;
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).unwrap_or_default());
        }
    }
    Some(out)
}

/// The file that is asked for.
fn find(site: &Site, request: &Request) -> Option<PathBuf> {
    let twice = match site.options.folder_encoding {
        FolderEncoding::AsReal => !site.options.esxi,
        FolderEncoding::Once => false,
        FolderEncoding::Twice => true,
    };
    let path = query::decode(request.path.strip_prefix("/folder/")?)?;
    let world = site.world.lock();
    let datacenter = world.shape.datacenter_name();
    match request.parameter("dcPath") {
        // govmomi begins the path of a datacenter with a slash (K).
        Some(given)
            if is_name(&given, datacenter, twice) || is_name(&given, &format!("/{datacenter}"), twice) => {}
        // A host has one datacenter, which need not be named.
        None if site.options.esxi => {}
        _ => return None,
    }
    let given = request.parameter("dsName")?;
    let store = world.stores.iter().find(|store| is_name(&given, &store.name, twice))?;
    world.stores.file(&store.name, &path).filter(|path| path.is_file())
}

/// Whether a value, of which one encoding was taken away already, is the name: as it is, or encoded once more.
fn is_name(given: &str, name: &str, encoded: bool) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b'%');
    match encoded {
        true => given.bytes().all(plain) && query::decode(given).as_deref() == Some(name),
        false => given == name,
    }
}

fn send(site: &Site, request: &Request, path: &Path) -> Response {
    if is_locked(site, path) {
        return Response::text(500, "The file is locked\n");
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let Ok((len, file)) = opened else { return Response::text(500, "The file cannot be read\n") };
    let kind = "application/octet-stream";
    let whole = |file| Response::of(200, kind, Body::File(file, 0..len)).with("Accept-Ranges", "bytes");
    // What several ranges get from a real server is not known. Here they are no ranges, as a server may decide.
    match request.header("range").map(|text| range(text, len)) {
        None | Some(None) => whole(file),
        Some(Some(range)) if range.start < range.end => {
            let about = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            Response::of(206, kind, Body::File(file, range))
                .with("Accept-Ranges", "bytes")
                .with("Content-Range", &about)
        }
        Some(Some(_)) => {
            Response::text(416, "There is no such range\n").with("Content-Range", &format!("bytes */{len}"))
        }
    }
}

/// A running machine holds the files that it writes to (I), and so does somebody who has them open over NFC (O, `nfc.md` 14).
fn is_locked(site: &Site, path: &Path) -> bool {
    let world = site.world.lock();
    let running =
        world.machines.iter().filter(|machine| machine.powered_on).flat_map(|machine| &machine.disks);
    let mut held = running.filter_map(|disk| disk.device.chain.first()).chain(
        world
            .machines
            .iter()
            .flat_map(|m| m.devices())
            .flat_map(|d| &d.chain)
            .filter(|link| site.uses.is_used(&link.file.file)),
    );
    held.any(|link| link.file.file == path || link.extents.iter().any(|extent| extent.file == path))
}

/// `bytes=a-b`, `bytes=a-`, `bytes=-n` in a file of `len` bytes. `None`: it is nothing that this server takes for a range; an
/// empty one lies outside the file.
fn range(text: &str, len: u64) -> Option<Range<u64>> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let text = text.trim();
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
    };
    match (first.trim(), last.trim()) {
        ("", last) => Some(len.saturating_sub(number(last)?)..len),
        (first, "") => Some(number(first)?.min(len)..len),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first.min(len)..last.saturating_add(1).min(len))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_standard() {
        let cases = [
            ("bytes=0-9", Some(0..10)),
            ("bytes=90-200", Some(90..100)),
            ("bytes=90-", Some(90..100)),
            ("bytes=-7", Some(93..100)),
            ("bytes=-700", Some(0..100)),
            ("bytes=99-18446744073709551615", Some(99..100)),
            ("bytes=100-", Some(100..100)),
            ("bytes=100-200", Some(100..100)),
            ("bytes=-0", Some(100..100)),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-b", None),
            ("bytes=18446744073709551616-", None),
            ("items=0-1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(range(text, 100), expected, "{text}");
        }
    }

    #[test]
    fn names_are_encoded_as_often_as_they_should_be() {
        assert!(is_name("plain", "plain", true) && is_name("plain", "plain", false));
        assert!(is_name("my%20store", "my store", true) && !is_name("my store", "my store", true));
        assert!(is_name("my store", "my store", false) && !is_name("my%20store", "my store", false));
    }

    #[test]
    fn base64_is_decoded() {
        assert_eq!(base64("dTpw").as_deref(), Some(&b"u:p"[..]));
        assert_eq!(base64("dTpwdw==").as_deref(), Some(&b"u:pw"[..]));
        assert_eq!(base64("a b"), None);
    }
}
