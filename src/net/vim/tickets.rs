//! Permission to talk NFC to a host.

use std::time::Instant;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::Context;
use crate::error::Result;
use crate::net::nfc::ticket::HostIdentity;
use crate::net::nfc::ticket::Ticket;
use crate::net::vim::Moref;
use crate::net::vim::Session;
use crate::net::vim::call::Call;
use crate::net::vim::fault::Refused;
use crate::net::vim::xml;
use crate::net::vim::xml::Node;
use crate::secret::Secret;

/// Longest text of a ticket's parts, but for the certificate.
const LONGEST: usize = 256;

/// Longest certificate, encoded.
const LONGEST_CERTIFICATE: usize = 64 << 10;

impl Session {
    /// Permission to read any file of the machine (`NfcGetVmFiles`).
    pub fn ticket_for_files(&self, machine: &Moref) -> Result<Ticket> {
        self.ticket_for_files_by(machine, None)
    }

    /// The same by `until`, if that is earlier than the usual time.
    pub fn ticket_for_files_by(&self, machine: &Moref, until: Option<Instant>) -> Result<Ticket> {
        let call = Call::new("NfcGetVmFiles", &self.nfc_service(until)?).moref("vm", machine);
        self.ticket(call, until).context(|| format!("a ticket for the files of {machine}"))
    }

    /// Permission for the disk with this key (`NfcRandomAccessOpenDisk`, without `write` `NfcRandomAccessOpenReadonly`).
    pub fn ticket_for_disk(
        &self,
        machine: &Moref,
        key: i32,
        host: Option<&Moref>,
        write: bool,
    ) -> Result<Ticket> {
        self.ticket_for_disk_by(machine, key, host, write, None)
    }

    /// The same by `until`, if that is earlier than the usual time.
    pub fn ticket_for_disk_by(
        &self,
        machine: &Moref,
        key: i32,
        host: Option<&Moref>,
        write: bool,
        until: Option<Instant>,
    ) -> Result<Ticket> {
        let method = if write { "NfcRandomAccessOpenDisk" } else { "NfcRandomAccessOpenReadonly" };
        let call = Call::new(method, &self.nfc_service(until)?)
            .moref("vm", machine)
            .text("diskDeviceKey", key.to_string())
            .optional_moref("hostForAccess", host);
        self.ticket(call, until).context(|| format!("a ticket for the disk {key} of {machine}"))
    }

    fn ticket(&self, call: Call, until: Option<Instant>) -> Result<Ticket> {
        let ticket = self.get_by(call, until, &mut |response| {
            let returned = xml::need(response, "returnval")?;
            // Known as a secret before anything else of the answer could be quoted.
            let id = Secret::from(xml::text(xml::need(returned, "sessionId")?));
            self.wire.hidden.pass(&id);
            ticket(returned, id)
        })?;
        self.log.debug(|| format!("{} gave {ticket:?}", self.wire.host()));
        Ok(ticket)
    }

    /// The object that gives tickets. Where the server does not tell, it has its usual id.
    fn nfc_service(&self, until: Option<Instant>) -> Result<Moref> {
        if let Some(known) = self.nfc_service.lock().clone() {
            return Ok(known);
        }
        let instance = Moref::new("ServiceInstance", "ServiceInstance");
        let call = Call::new("RetrieveInternalContent", &instance);
        let method = call.method;
        let told = self.ask(call, until, &mut |response| match xml::one(response, "returnval")? {
            Some(content) => xml::optional_moref(content, "nfcService"),
            None => Ok(None),
        });
        let service = match told {
            Ok(Some(service)) => service,
            Ok(None) | Err(Refused::Fault(_)) => Moref::new(
                "NfcService",
                if self.about().is_vcenter() { "nfcService" } else { "ha-nfc-service" },
            ),
            Err(refused) => return Err(refused.error(method, &self.wire.hidden)),
        };
        *self.nfc_service.lock() = Some(service.clone());
        Ok(service)
    }
}

/// Reads a ticket. All of it goes into lines of another protocol, so that nothing in it may end a line.
fn ticket(node: Node<'_>, id: Secret) -> Result<Ticket> {
    let is_word = |text: &str| {
        !text.is_empty()
            && text.len() <= LONGEST
            && text.chars().all(|c| !c.is_control() && !c.is_whitespace())
    };
    if !id.expose_text().is_some_and(is_word) {
        return Err(xml::broken("a ticket whose id could not be sent"));
    }
    let host = xml::optional(node, "host")?.filter(|host| !host.is_empty());
    if host.as_deref().is_some_and(|host| !is_word(host)) {
        return Err(xml::broken("a ticket for a host with an impossible name"));
    }
    let port = xml::number(node, "port")?.filter(|port| *port != 0);
    let port = port.ok_or_else(|| xml::broken("a ticket without a port"))?;
    let service = xml::text(xml::need(node, "service")?);
    if !is_word(&service) {
        return Err(xml::broken("a ticket for a service with an impossible name"));
    }
    Ok(Ticket { host, port, identity: identity(node)?, service, id })
}

/// The whole certificate says more than its thumbprint.
fn identity(node: Node<'_>) -> Result<Option<HostIdentity>> {
    let thumbprint = xml::optional(node, "sslThumbprint")?.map(|text| text.trim().to_owned());
    let thumbprint = thumbprint.filter(|text| !text.is_empty());
    if thumbprint.as_ref().is_some_and(|text| text.len() > LONGEST || text.chars().any(char::is_control)) {
        return Err(xml::broken("a ticket with an impossible thumbprint"));
    }
    let certificate = xml::optional(node, "sslCertificate")?.filter(|text| !text.trim().is_empty());
    match (certificate.as_deref().map(der), thumbprint) {
        (Some(Some(der)), _) => Ok(Some(HostIdentity::Certificate(der))),
        (_, Some(thumbprint)) => Ok(Some(HostIdentity::Thumbprint(thumbprint))),
        (Some(None), None) => Err(xml::broken("a ticket with a certificate that is none")),
        (None, None) => Ok(None),
    }
}

/// A certificate in PEM, or its body alone.
fn der(text: &str) -> Option<Vec<u8>> {
    if text.len() > LONGEST_CERTIFICATE {
        return None;
    }
    let armoured = match text.contains("-----BEGIN") {
        true => text.to_owned(),
        false => format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", text.trim()),
    };
    let der = CertificateDer::from_pem_slice(armoured.as_bytes()).ok()?;
    // A sequence, as every certificate is.
    (der.first() == Some(&0x30)).then(|| der.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::net::http::Hidden;

    fn read(inside: &str) -> Result<Ticket> {
        let text = format!("<returnval xmlns='urn:vim25'>{inside}</returnval>");
        let document = xml::parse(text.as_bytes(), &Hidden::default()).unwrap();
        ticket(document.root_element(), Secret::from("52-id".to_owned()))
    }

    const USUAL: &str = "<port>902</port><service>vpxa-nfc</service>";

    #[test]
    fn a_ticket_is_read_with_and_without_its_optional_parts() {
        let ticket =
            read(&format!("<host>esx1</host>{USUAL}<sslThumbprint> AA:BB\n</sslThumbprint><x/>")).unwrap();
        assert_eq!(
            (ticket.host.as_deref(), ticket.port, ticket.service.as_str()),
            (Some("esx1"), 902, "vpxa-nfc")
        );
        assert_eq!(ticket.identity, Some(HostIdentity::Thumbprint("AA:BB".into())));
        assert_eq!(ticket.id.expose(), b"52-id");
        let ticket = read(USUAL).unwrap();
        assert_eq!((ticket.host, ticket.identity), (None, None));
    }

    #[test]
    fn a_certificate_counts_more_than_a_thumbprint_if_it_is_one() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let der = HostIdentity::Certificate(made.cert.der().to_vec());
        let bare: String = made.cert.pem().lines().filter(|line| !line.starts_with('-')).collect();
        for text in [made.cert.pem(), bare] {
            let ticket = read(&format!(
                "{USUAL}<sslThumbprint>AA</sslThumbprint><sslCertificate>{text}</sslCertificate>"
            ));
            assert_eq!(ticket.unwrap().identity.as_ref(), Some(&der));
        }
        let spoilt = "<sslCertificate>AAAA</sslCertificate>";
        let ticket = read(&format!("{USUAL}<sslThumbprint>AA</sslThumbprint>{spoilt}")).unwrap();
        assert_eq!(ticket.identity, Some(HostIdentity::Thumbprint("AA".into())));
        assert_eq!(read(&format!("{USUAL}{spoilt}")).unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[test]
    fn parts_that_another_protocol_could_not_carry_are_refused() {
        for inside in [
            "<port>902</port>",
            "<service>nfc</service>",
            "<port>0</port><service>nfc</service>",
            "<port>65536</port><service>nfc</service>",
            "<port>902</port><port>903</port><service>nfc</service>",
            "<port>902</port><service>nfc x</service>",
            "<port>902</port><service>nfc&#10;USER x</service>",
            "<host>a b</host><port>902</port><service>nfc</service>",
            "<host>a</host><host>b</host><port>902</port><service>nfc</service>",
            "<port>902</port><service>nfc</service><sslThumbprint>A&#10;B</sslThumbprint>",
        ] {
            assert_eq!(read(inside).unwrap_err().kind(), ErrorKind::Protocol, "{inside}");
        }
    }
}
