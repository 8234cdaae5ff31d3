//! The configuration in the words of what is below.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::config::Key;
use crate::net::nbd::client::Options;
use crate::net::nfc::Compression;
use crate::net::nfc::classic::CLIENT;
use crate::net::nfc::client as nfc;
use crate::net::nfc::client::Buffers;
use crate::net::tls::TlsSettings;
use crate::net::vim::Times;
use crate::session::open_disk::OpenFlags;
use crate::transport::vsphere::host::NfcSettings;

/// A transfer buffer's unit.
const AIO_UNIT: u64 = 64 << 10;
/// A server is never waited for longer.
const LONGEST_CONNECT: Duration = Duration::from_secs(60);
/// Logging out ends within the two seconds that a disconnection may take.
const FAREWELL: Duration = Duration::from_millis(1500);
/// Stands for "for ever": an end that nobody lives to see.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Time for a key in milliseconds, where 0 means no limit.
fn millis(config: &Config, key: Key) -> Duration {
    match config.number(key) {
        0 => FOR_EVER,
        millis => Duration::from_millis(millis),
    }
}

fn small(config: &Config, key: Key) -> u32 {
    u32::try_from(config.number(key)).unwrap_or(u32::MAX)
}

/// What is said about disks of vSphere hosts.
pub(super) fn nfc_settings(config: &Config, flags: OpenFlags) -> NfcSettings {
    let buffer = config.number(Key::AioBufferSize).saturating_mul(AIO_UNIT);
    let configured = |key, value| if config.is_set(key) { value } else { 0 };
    NfcSettings {
        compression: compression(flags),
        buffers: Buffers {
            bytes: configured(Key::AioBufferSize, u32::try_from(buffer).unwrap_or(u32::MAX)),
            count: configured(Key::AioBufferCount, small(config, Key::AioBufferCount)),
        },
        options: nfc::Options {
            connect: millis(config, Key::NfcAcceptTimeout),
            read: millis(config, Key::NfcReadTimeout),
            write: millis(config, Key::NfcWriteTimeout),
            request: millis(config, Key::NfcRequestTimeout),
            reconnect: Duration::from_millis(config.number(Key::NfcReconnect)),
            requests: small(config, Key::NfcOperations),
            piece: small(config, Key::NfcOperationSize).saturating_mul(1024),
            ..nfc::Options::default()
        },
        client_name: config.text(Key::NfcClientName).unwrap_or(CLIENT).to_owned(),
        any_second_certificate: config.flag(Key::NfcAnySecondCertificate),
        tls: tls_settings(config),
    }
}

/// At most one of them is asked for.
fn compression(flags: OpenFlags) -> Compression {
    let all = [
        (OpenFlags::COMPRESSION_ZLIB, Compression::Zlib),
        (OpenFlags::COMPRESSION_FASTLZ, Compression::Fastlz),
        (OpenFlags::COMPRESSION_SKIPZ, Compression::Skipz),
    ];
    all.into_iter().find(|(flag, _)| flags.contains(*flag)).map_or(Compression::None, |(_, packing)| packing)
}

/// How long a server may take.
pub(super) fn vim_times(config: &Config) -> Times {
    Times {
        connect: millis(config, Key::NfcAcceptTimeout).min(LONGEST_CONNECT),
        request: millis(config, Key::NfcRequestTimeout),
        farewell: FAREWELL,
    }
}

/// What is said about NBD servers. The keys that are named after VMware's own protocol mean the same things here.
pub(super) fn nbd_options(config: &Config, write: bool) -> Options {
    let millis = |key| millis(config, key);
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

    #[test]
    fn hosts_are_asked_as_the_configuration_says() {
        let usual = nfc_settings(&Config::default(), OpenFlags::empty());
        assert_eq!((usual.buffers, usual.compression), (Buffers::default(), Compression::None));
        assert_eq!((usual.client_name.as_str(), usual.any_second_certificate), (CLIENT, false));
        assert_eq!((usual.options.connect.as_secs(), usual.options.write.as_secs()), (180, 600));
        let text = "vixDiskLib.nfcAio.Session.BufSizeIn64KB=16\nvixDiskLib.nfcAio.Session.BufCount=8\n\
                    vixDiskLib.nfc.operations=4\nvixDiskLib.nfc.operationSizeInKB=256\n\
                    vixDiskLib.nfc.clientName=me\nvixDiskLib.nfc.ReadTimeoutMs=0\n";
        let told = nfc_settings(&config(text), OpenFlags::COMPRESSION_SKIPZ);
        assert_eq!(told.buffers, Buffers { bytes: 1 << 20, count: 8 });
        assert_eq!((told.options.requests, told.options.piece), (4, 256 << 10));
        assert_eq!((told.options.read, told.client_name.as_str()), (FOR_EVER, "me"));
        assert_eq!(told.compression, Compression::Skipz);
        let huge = config("vixDiskLib.nfcAio.Session.BufSizeIn64KB=65536");
        assert_eq!(nfc_settings(&huge, OpenFlags::empty()).buffers.bytes, u32::MAX);
    }
}
