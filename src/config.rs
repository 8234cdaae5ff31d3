//! The `name = value` file of the library's initialisation.
//!
//! One setting per line, `#` starts a comment, quotes around the value are optional, names are compared without regard to
//! case, and the last of equal names wins. Nothing in the file is fatal: what cannot be used is reported and its default
//! stands.
#![forbid(unsafe_code)]

use std::path::Path;

/// A setting. Names, defaults and bounds stand in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Key {
    /// Folder of logs and temporary files.
    TmpDirectory,
    /// Name of the log file.
    LogFileName,
    /// Level of the log file.
    LogFileLevel,
    /// How much is logged: 0 panic, 1 error, 2 warning, 3 audit, 4 info, 5 verbose, 6 trivia.
    TransportLogLevel,
    /// How much is logged about NFC: 0 quiet to 4 debug.
    NfcLogLevel,
    /// Keep sectors in memory.
    EnableCache,
    /// Check the server's certificate.
    VerifyCertificates,
    /// Restrict TLS to approved algorithms.
    SslFips,
    /// Devices that the san transport must not use.
    SanDenyList,
    /// Devices that the san transport may use.
    SanAllowList,
    /// HotAdd without a session to the host.
    HotaddNoNfcSession,
    /// Milliseconds for a server to accept.
    NfcAcceptTimeout,
    /// Milliseconds for a request.
    NfcRequestTimeout,
    /// Milliseconds for a read.
    NfcReadTimeout,
    /// Milliseconds for a write.
    NfcWriteTimeout,
    /// Milliseconds of silence, 0 for ever.
    FileServerTimeout,
    /// Milliseconds for a write of the file server, 0 for ever.
    FileServerWriteTimeout,
    /// Size of a transfer buffer in units of 64 KiB.
    AioBufferSize,
    /// Number of transfer buffers.
    AioBufferCount,
    /// Accepted and without effect: nothing is ever sent home.
    PhoneHome,
    /// Accepted and without effect.
    PhoneHomeProductName,
    /// Accepted and without effect.
    PhoneHomeProductVersion,
    /// Accepted and without effect.
    PhoneHomeDatabase,
    /// Accepted and without effect: log level of the mount library.
    MountLogLevel,
    /// Extents of a descriptor may live outside its folder.
    ExtentsOutsideFolder,
    /// KiB of grain tables kept per disk.
    GrainTableCache,
    /// KiB of inflated grains kept per disk.
    InflatedGrainCache,
    /// Threads for asynchronous requests, 0 for a number that fits the machine.
    WorkerThreads,
    /// Whom to trust with TLS: a file of certificates in PEM.
    TlsCaFile,
    /// The certificate to show with TLS.
    TlsCertificateFile,
    /// Its key.
    TlsKeyFile,
    /// Connections per disk of an NBD server, 0 for as many as help.
    NbdConnections,
    /// Milliseconds in which a lost connection to an NBD server must come back.
    NbdReconnect,
    /// Milliseconds in which a lost connection to a host must come back.
    NfcReconnect,
    /// What a host is told about who we are.
    NfcClientName,
    /// The certificate of a host's data need not be that of its door.
    NfcAnySecondCertificate,
    /// Operations in flight on a disk of a host, 0 for as many as fit.
    NfcOperations,
    /// KiB of the longest operation, 0 for what fits.
    NfcOperationSize,
    /// Seconds that a session with a server may be idle before it is kept alive, 0 for never.
    KeepAlive,
    /// How hard new stream-optimised disks are compressed: 0 not at all, 1 fast, 12 smallest.
    CompressionLevel,
}

/// What a setting's value may be, and what holds without one.
#[derive(Clone, Copy, Debug)]
enum Takes {
    Text,
    Flag(bool),
    Number { default: u64, min: u64, max: u64 },
}

const fn number(default: u64, min: u64, max: u64) -> Takes {
    Takes::Number { default, min, max }
}

/// Milliseconds: any that fit into 32 bits.
const fn millis(default: u64) -> Takes {
    number(default, 0, u32::MAX as u64)
}

/// Every name that is known; two names may mean one key.
const NAMES: &[(&str, Key, Takes)] = &[
    ("tmpDirectory", Key::TmpDirectory, Takes::Text),
    ("log.fileName", Key::LogFileName, Takes::Text),
    ("log.fileLevel", Key::LogFileLevel, number(6, 0, 6)),
    ("vixDiskLib.transport.LogLevel", Key::TransportLogLevel, number(3, 0, 6)),
    ("vixDiskLib.nfc.LogLevel", Key::NfcLogLevel, number(1, 0, 4)),
    ("vixDiskLib.disklib.EnableCache", Key::EnableCache, Takes::Flag(false)),
    ("vixDiskLib.linuxSSL.verifyCertificates", Key::VerifyCertificates, Takes::Flag(true)),
    ("vixDiskLib.ssl.enableSslFIPS", Key::SslFips, Takes::Flag(false)),
    ("vixDiskLib.transport.san.blacklist", Key::SanDenyList, Takes::Text),
    ("vixDiskLib.transport.san.whitelist", Key::SanAllowList, Takes::Text),
    ("vixDiskLib.transport.san.denyList", Key::SanDenyList, Takes::Text),
    ("vixDiskLib.transport.san.allowList", Key::SanAllowList, Takes::Text),
    ("vixDiskLib.transport.hotadd.NoNfcSession", Key::HotaddNoNfcSession, Takes::Flag(false)),
    ("vixDiskLib.nfc.AcceptTimeoutMs", Key::NfcAcceptTimeout, millis(180_000)),
    ("vixDiskLib.nfc.RequestTimeoutMs", Key::NfcRequestTimeout, millis(180_000)),
    ("vixDiskLib.nfc.ReadTimeoutMs", Key::NfcReadTimeout, millis(60_000)),
    ("vixDiskLib.nfc.ReadTimeoutsMs", Key::NfcReadTimeout, millis(60_000)),
    ("vixDiskLib.nfc.WriteTimeoutMs", Key::NfcWriteTimeout, millis(600_000)),
    ("vixDiskLib.nfc.WriteTimeoutsMs", Key::NfcWriteTimeout, millis(600_000)),
    ("vixDiskLib.nfcFssrvr.TimeoutMs", Key::FileServerTimeout, millis(0)),
    ("vixDiskLib.nfcFssrvrWrite.TimeoutMs", Key::FileServerWriteTimeout, millis(0)),
    ("vixDiskLib.nfcAio.Session.BufSizeIn64KB", Key::AioBufferSize, number(1, 1, 1 << 16)),
    ("vixDiskLib.nfcAio.Session.BufSizeIn64K", Key::AioBufferSize, number(1, 1, 1 << 16)), // one tool writes this
    ("vixDiskLib.nfcAio.Session.BufCount", Key::AioBufferCount, number(4, 1, 1 << 16)),
    ("vixDiskLib.phoneHome.EnablePhoneHome", Key::PhoneHome, Takes::Flag(false)),
    ("vixDiskLib.phoneHome.ProductName", Key::PhoneHomeProductName, Takes::Text),
    ("vixDiskLib.phoneHome.ProductVersion", Key::PhoneHomeProductVersion, Takes::Text),
    ("vixDiskLib.phoneHome.DatabaseDir", Key::PhoneHomeDatabase, Takes::Text),
    ("vixMntapi.cfg.LogLevel", Key::MountLogLevel, Takes::Text),
    ("vixDiskLib.open.extentsOutsideFolder", Key::ExtentsOutsideFolder, Takes::Flag(false)),
    ("vixDiskLib.open.grainTableCacheKiB", Key::GrainTableCache, number(8192, 256, 1 << 20)),
    ("vixDiskLib.open.inflatedGrainCacheKiB", Key::InflatedGrainCache, number(4096, 256, 1 << 20)),
    ("vixDiskLib.open.workerThreads", Key::WorkerThreads, number(0, 0, 256)),
    ("vixDiskLib.tls.caFile", Key::TlsCaFile, Takes::Text),
    ("vixDiskLib.tls.certificateFile", Key::TlsCertificateFile, Takes::Text),
    ("vixDiskLib.tls.keyFile", Key::TlsKeyFile, Takes::Text),
    ("vixDiskLib.nbd.connections", Key::NbdConnections, number(0, 0, 64)),
    ("vixDiskLib.nbd.reconnectTimeoutMs", Key::NbdReconnect, millis(60_000)),
    ("vixDiskLib.nfc.reconnectTimeoutMs", Key::NfcReconnect, millis(60_000)),
    ("vixDiskLib.nfc.clientName", Key::NfcClientName, Takes::Text),
    ("vixDiskLib.nfc.anySecondCertificate", Key::NfcAnySecondCertificate, Takes::Flag(false)),
    ("vixDiskLib.nfc.operations", Key::NfcOperations, number(0, 0, 1024)),
    ("vixDiskLib.nfc.operationSizeInKB", Key::NfcOperationSize, number(0, 0, 32 << 10)),
    ("vixDiskLib.vim.keepAliveSeconds", Key::KeepAlive, number(300, 0, 1500)),
    ("vixDiskLib.stream.compressionLevel", Key::CompressionLevel, number(1, 0, 12)),
];

/// Complaints about one file that are worth a line each.
const MOST_COMPLAINTS: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
}

/// Settings, all with defaults.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// At most one value per key.
    set: Vec<(Key, Value)>,
}

impl Config {
    /// Reads the text of a file. The second part says, a sentence each and nothing twice, what could not be used.
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let mut config = Self::default();
        let mut complaints = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(complaint) = config.take(line)
                && !complaints.contains(&complaint)
            {
                if complaints.len() == MOST_COMPLAINTS {
                    complaints.push("more lines of it cannot be used".to_owned());
                    return (config, complaints);
                }
                complaints.push(complaint);
            }
        }
        (config, complaints)
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line '{}' is not of the form name = value", short(line)));
        };
        let (name, value) = (name.trim(), plain(value.trim()));
        let Some((_, key, takes)) = NAMES.iter().find(|known| known.0.eq_ignore_ascii_case(name)) else {
            return Err(format!("unknown key '{}'", short(name)));
        };
        let value = read(value, *takes).ok_or_else(|| {
            format!("value '{}' of {name} is not {}, the default stands", short(value), wanted(*takes))
        })?;
        self.set.retain(|(other, _)| other != key);
        self.set.push((*key, value));
        Ok(())
    }

    fn value(&self, key: Key) -> Option<&Value> {
        self.set.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// True when the file says something about it that can be used.
    pub fn is_set(&self, key: Key) -> bool {
        self.value(key).is_some()
    }

    /// The value of a text setting, `None` when it is not set or empty.
    pub fn text(&self, key: Key) -> Option<&str> {
        match self.value(key) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The value of an on-or-off setting.
    pub fn flag(&self, key: Key) -> bool {
        match (self.value(key), default_of(key)) {
            (Some(Value::Flag(flag)), _) | (None, Some(Takes::Flag(flag))) => *flag,
            _ => false,
        }
    }

    /// The value of a number setting.
    pub fn number(&self, key: Key) -> u64 {
        match (self.value(key), default_of(key)) {
            (Some(Value::Number(number)), _) | (None, Some(Takes::Number { default: number, .. })) => *number,
            _ => 0,
        }
    }

    /// Folder of logs and temporary files.
    pub fn tmp_directory(&self) -> Option<&Path> {
        self.text(Key::TmpDirectory).map(Path::new)
    }

    /// Name of the log file, relative to the folder of logs.
    pub fn log_file(&self) -> Option<&Path> {
        self.text(Key::LogFileName).map(Path::new)
    }

    /// How much is logged, 0 to 6.
    pub fn transport_log_level(&self) -> u64 {
        self.number(Key::TransportLogLevel)
    }

    /// Extents of a descriptor may live outside its folder.
    pub fn extents_outside_folder(&self) -> bool {
        self.flag(Key::ExtentsOutsideFolder)
    }

    /// Bytes of grain tables kept per disk.
    pub fn grain_table_cache(&self) -> usize {
        kib(self.number(Key::GrainTableCache))
    }

    /// Bytes of inflated grains kept per disk.
    pub fn inflated_grain_cache(&self) -> usize {
        kib(self.number(Key::InflatedGrainCache))
    }

    /// How hard new stream-optimised disks are compressed, 0 to 12.
    pub fn compression_level(&self) -> u8 {
        u8::try_from(self.number(Key::CompressionLevel)).unwrap_or(1)
    }

    /// Threads for asynchronous requests, 0 for a number that fits the machine.
    pub fn worker_threads(&self) -> usize {
        usize::try_from(self.number(Key::WorkerThreads)).unwrap_or_default()
    }
}

fn kib(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(1024)
}

fn default_of(key: Key) -> Option<&'static Takes> {
    NAMES.iter().find(|known| known.1 == key).map(|known| &known.2)
}

/// The value without quotes and without a comment behind it.
fn plain(value: &str) -> &str {
    if let Some(rest) = value.strip_prefix('"')
        && let Some((inside, after)) = rest.split_once('"')
        && (after.trim().is_empty() || after.trim_start().starts_with('#'))
    {
        return inside;
    }
    let comment = value.match_indices('#').find(|&(at, _)| value[..at].ends_with([' ', '\t']) || at == 0);
    comment.map_or(value, |(at, _)| value[..at].trim_end())
}

fn read(value: &str, takes: Takes) -> Option<Value> {
    match takes {
        Takes::Text => Some(Value::Text(value.to_owned())),
        Takes::Flag(_) => match value.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(Value::Flag(true)),
            "0" | "false" | "no" | "off" => Some(Value::Flag(false)),
            _ => None,
        },
        Takes::Number { min, max, .. } => {
            value.parse().ok().filter(|number| (min..=max).contains(number)).map(Value::Number)
        }
    }
}

fn wanted(takes: Takes) -> String {
    match takes {
        Takes::Text => "a text".to_owned(),
        Takes::Flag(_) => "0 or 1".to_owned(),
        Takes::Number { min, max, .. } => format!("a number from {min} to {max}"),
    }
}

/// Enough of a text to recognise it.
fn short(text: &str) -> String {
    const ENOUGH: usize = 80;
    match text.char_indices().nth(ENOUGH) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &str) -> Config {
        let (config, complaints) = Config::parse(text);
        assert_eq!(complaints, Vec::<String>::new());
        config
    }

    #[test]
    fn every_form_of_a_line_is_read() {
        let lines = [
            "\u{feff}# comment\r",
            "\r",
            " tmpDirectory=\"/tmp/a b # c\" # why\r",
            "VIXDISKLIB.transport.loglevel = 5 # more",
            "VIXDISKLIB.nfcAio.Session.BufSizeIn64K=16",
            "vixDiskLib.linuxSSL.verifyCertificates = \"0\"",
            "log.fileName = my#1.log",
        ];
        let config = clean(&lines.join("\n"));
        assert_eq!(config.tmp_directory(), Some(Path::new("/tmp/a b # c")));
        assert_eq!(config.log_file(), Some(Path::new("my#1.log")));
        assert_eq!(config.transport_log_level(), 5);
        assert_eq!(config.number(Key::AioBufferSize), 16);
        assert!(!config.flag(Key::VerifyCertificates));
    }

    #[test]
    fn defaults_hold_without_a_file() {
        let config = Config::default();
        assert_eq!(
            (config.tmp_directory(), config.log_file(), config.transport_log_level()),
            (None, None, 3)
        );
        assert_eq!((config.grain_table_cache(), config.inflated_grain_cache()), (8 << 20, 4 << 20));
        assert!(config.flag(Key::VerifyCertificates) && !config.extents_outside_folder());
        assert_eq!((config.number(Key::NfcWriteTimeout), config.worker_threads()), (600_000, 0));
    }

    #[test]
    fn the_last_of_equal_names_wins_under_any_alias() {
        let config = clean("vixDiskLib.nfc.ReadTimeoutMs=1\nvixdisklib.nfc.readtimeoutsms=2\n");
        assert_eq!(config.number(Key::NfcReadTimeout), 2);
    }

    #[test]
    fn what_cannot_be_used_is_reported_once_and_the_default_stands() {
        let (config, complaints) = Config::parse(
            "nonsense\nother.key=1\nOther.Key=2\nother.key=3\nvixDiskLib.open.grainTableCacheKiB=255\n\
             vixDiskLib.transport.LogLevel=-1\nvixDiskLib.disklib.EnableCache=maybe",
        );
        assert_eq!(complaints.len(), 6, "{complaints:?}");
        assert_eq!((config.grain_table_cache(), config.transport_log_level()), (8 << 20, 3));
        let flood: String = (0..1000).map(|i| format!("k{i}=1\n")).collect();
        assert_eq!(Config::parse(&flood).1.len(), MOST_COMPLAINTS + 1);
    }

    #[test]
    fn every_key_has_a_name_that_reads_back() {
        for (name, key, takes) in NAMES {
            let value = match takes {
                Takes::Text => "x".to_owned(),
                Takes::Flag(default) => u8::from(!default).to_string(),
                Takes::Number { max, .. } => max.to_string(),
            };
            let config = clean(&format!("{} = {value}", name.to_uppercase()));
            match takes {
                Takes::Text => assert_eq!(config.text(*key), Some("x")),
                Takes::Flag(default) => assert_eq!(config.flag(*key), !default),
                Takes::Number { max, .. } => assert_eq!(config.number(*key), *max),
            }
        }
    }

    #[test]
    fn odd_characters_do_no_harm() {
        for text in [
            "=",
            "==",
            "\"=\"",
            "é=é",
            "# é",
            "tmpDirectory=\"",
            "tmpDirectory=\"é",
            "tmpDirectory=#é",
            "\u{fffd}",
        ] {
            let _ = Config::parse(text);
            let _ = Config::parse(&text.repeat(200));
        }
    }
}
