//! The configuration in the words of what is below.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::config::Key;
use crate::net::nbd::client::Options;
use crate::net::tls::TlsSettings;

/// A transfer buffer's unit.
const AIO_UNIT: u64 = 64 << 10;
/// Stands for "for ever": an end that nobody lives to see.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What is said about NBD servers. The keys that are named after VMware's own protocol mean the same things here.
pub(super) fn nbd_options(config: &Config, write: bool) -> Options {
    let millis = |key| match config.number(key) {
        0 => FOR_EVER,
        millis => Duration::from_millis(millis),
    };
    let of_kind = if write { Key::NfcWriteTimeout } else { Key::NfcReadTimeout };
    let buffers = [Key::AioBufferSize, Key::AioBufferCount];
    let window = match buffers.iter().any(|key| config.is_set(*key)) {
        true => config.number(buffers[0]).saturating_mul(config.number(buffers[1])).saturating_mul(AIO_UNIT),
        false => 0,
    };
    Options {
        connect: millis(Key::NfcAcceptTimeout),
        request: millis(Key::NfcRequestTimeout).min(millis(of_kind)),
        reconnect: Duration::from_millis(config.number(Key::NbdReconnect)),
        connections: u32::try_from(config.number(Key::NbdConnections)).unwrap_or_default(),
        window,
        write,
    }
}

/// What is said about certificates and trust.
pub(super) fn tls_settings(config: &Config) -> TlsSettings {
    let file = |key| config.text(key).map(PathBuf::from);
    TlsSettings {
        ca_file: file(Key::TlsCaFile),
        certificate_file: file(Key::TlsCertificateFile),
        key_file: file(Key::TlsKeyFile),
        thumbprint: None,
        verify: config.flag(Key::VerifyCertificates),
        approved_only: config.flag(Key::SslFips),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let (config, complaints) = Config::parse(text);
        assert_eq!(complaints, Vec::<String>::new());
        config
    }

    fn settings(text: &str, write: bool) -> Options {
        nbd_options(&config(text), write)
    }

    #[test]
    fn without_a_file_the_documented_defaults_hold() {
        let reading = settings("", false);
        assert_eq!((reading.connect.as_secs(), reading.request.as_secs()), (180, 60));
        assert_eq!(settings("", true).request.as_secs(), 180);
        assert_eq!((reading.connections, reading.window, reading.reconnect.as_secs()), (0, 0, 60));
        assert_eq!(tls_settings(&Config::default()), TlsSettings::default());
    }

    #[test]
    fn no_timeout_is_a_very_long_one() {
        let none = "vixDiskLib.nfc.AcceptTimeoutMs=0\nvixDiskLib.nfc.RequestTimeoutMs=0\n";
        let none = settings(&format!("{none}vixDiskLib.nfc.WriteTimeoutMs=0"), true);
        assert_eq!((none.connect, none.request), (FOR_EVER, FOR_EVER));
        assert_eq!(settings("vixDiskLib.nfc.RequestTimeoutMs=5", false).request.as_millis(), 5);
    }

    #[test]
    fn buffers_that_are_set_bound_what_is_in_flight() {
        let window = |text| settings(text, false).window;
        assert_eq!(window("vixDiskLib.nfcAio.Session.BufSizeIn64KB=16"), 4 << 20);
        assert_eq!(window("vixDiskLib.nfcAio.Session.BufCount=2"), 128 << 10);
    }

    #[test]
    fn files_and_trust_are_taken_over() {
        let tls = tls_settings(&config(
            "vixDiskLib.tls.caFile=/ca\nvixDiskLib.tls.certificateFile=/c\nvixDiskLib.tls.keyFile=\"/k\"\n\
             vixDiskLib.linuxSSL.verifyCertificates=0\nvixDiskLib.ssl.enableSslFIPS=1\n",
        ));
        assert_eq!((tls.ca_file, tls.certificate_file), (Some("/ca".into()), Some("/c".into())));
        assert_eq!((tls.key_file, tls.verify, tls.approved_only), (Some("/k".into()), false, true));
    }
}
