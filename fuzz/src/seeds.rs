//! The inputs that fuzzing starts from, made by the image builders.

use super::chain;
use super::http;
use super::images;
use super::images::SparseSpec;
use super::images::StreamLayout;
use super::nbd;
use super::nfc;
use super::nfc_wire;
use super::soap;
use super::store::Holey;

/// Name and content of the seeds of a target.
pub fn of(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "descriptor" => descriptors(),
        "sparse" => sparse(),
        "stream" => vec![
            ("footer", images::stream(StreamLayout::Footer).file),
            ("in-front", images::stream(StreamLayout::InFront).file),
        ],
        "cowd" => vec![("cowd", Holey::encode(&images::cowd().file))],
        "sesparse" => vec![("sesparse", Holey::encode(&images::sesparse().file))],
        "chain" => chains(),
        "nfc_authd" => nfc_wire::seeds_authd(),
        "nfc_frames" => nfc_wire::seeds_frames(),
        "nfc_packed" => nfc_wire::seeds_packed(),
        "abi_calls" => calls(),
        "nbd_client" => nbd::seeds(),
        "nfc_client" => nfc::seeds(),
        "soap" => soap::seeds(),
        "http_range" => http::seeds(),
        _ => Vec::new(),
    }
}

fn descriptors() -> Vec<(&'static str, Vec<u8>)> {
    let base =
        images::descriptor(64, "custom", "RW 32 FLAT \"a-flat.vmdk\" 7\nRDONLY 16 SPARSE \"b\"\nRW 16 ZERO");
    let child =
        images::child_descriptor("seSparse", "RW 64 SESPARSE \"c-sesparse.vmdk\"", "../a b/base.vmdk");
    let tracked = format!("{base}\n# Change Tracking File\nchangeTrackPath=\"a-ctk.vmdk\"\n")
        .replace("version=1", "version=3");
    let shift_jis = [
        &b"version=1\nencoding=\"Shift_JIS\"\nCID=1\nparentCID=ffffffff\nRW 1 FLAT \""[..],
        b"\x83\x5c\x81\x5c",
        b"\" 0\n",
    ]
    .concat();
    let devices = "version=1\nCID=7b\nparentCID=ffffffff\ncreateType=\"vmfsRaw\"\nRW 9 VMFSRAW \"/vmfs/devices/disks/x\"\n\
                   RW 3 VMFSRDM \"r-rdm.vmdk\"\nNOACCESS 2 ZERO\nRW 1 VMFS \"f\" \nRW 2 VMFSSPARSE \"g\"\n";
    vec![
        ("crlf", base.replace('\n', "\r\n").into_bytes()),
        ("base", base.into_bytes()),
        ("child", child.into_bytes()),
        ("tracked", tracked.into_bytes()),
        ("shift-jis", shift_jis),
        ("devices", devices.as_bytes().to_vec()),
    ]
}

fn sparse() -> Vec<(&'static str, Vec<u8>)> {
    let tiny = SparseSpec::tiny();
    let lonely = SparseSpec { flags: 1, descriptor: String::new(), ..tiny.clone() };
    let mut unclean = images::sparse(&tiny);
    unclean.file[72] = 1;
    let mut torn = unclean.clone();
    for name in ["gt[5]", "rgt[0]"] {
        let field = unclean.fields.iter().find(|f| f.name == name).expect("a field of the tiny disk").clone();
        torn.file = torn.with(&field, 0);
    }
    let huge = SparseSpec { capacity: 1 << 22, grain: 65536, data: vec![], ..tiny.clone() };
    vec![
        ("tiny", images::sparse(&tiny).file),
        ("two-tables", Holey::encode(&images::sparse(&SparseSpec::two_tables()).file)),
        ("no-copy", images::sparse(&lonely).file),
        ("unclean", unclean.file),
        ("torn", torn.file),
        ("coarse", Holey::encode(&images::sparse(&huge).file)),
    ]
}

fn chains() -> Vec<(&'static str, Vec<u8>)> {
    let tiny = SparseSpec::tiny();
    let capacity = tiny.capacity;
    let base = images::sparse(&tiny).file;
    let on_top = |parent: &str| SparseSpec {
        data: vec![1, 5],
        descriptor: images::child_descriptor(
            "monolithicSparse",
            &format!("RW {capacity} SPARSE \"x\""),
            parent,
        ),
        ..tiny.clone()
    };
    let child = images::sparse(&on_top("base.vmdk")).file;
    let looped = images::sparse(&on_top("loop.vmdk")).file;
    let pieces = images::descriptor(
        24,
        "custom",
        "RW 8 FLAT \"f\" 2\nRW 5 ZERO\nRDONLY 3 FLAT \"g\" 0\nRW 8 FLAT \"f\" 10",
    );
    let delta = images::child_descriptor("vmfsSparse", "RW 4100 VMFSSPARSE \"delta\"", "flat.vmdk");
    let flat = images::descriptor(4100, "vmfs", "RW 4100 VMFS \"data\"");
    let split = images::descriptor(
        2 * capacity,
        "twoGbMaxExtentSparse",
        &format!("RW {capacity} SPARSE \"s1\"\nRW {capacity} SPARSE \"s2\""),
    );
    let part = images::sparse(&SparseSpec { descriptor: String::new(), ..tiny.clone() }).file;
    let (f, thick) = ([1; 9216], Holey::encode(&vec![0; 4100 * 512]));
    vec![
        ("two-links", chain::join([("leaf", &child[..]), ("base.vmdk", &base)])),
        ("loop", chain::join([("loop.vmdk", &looped[..])])),
        ("custom", chain::join([("d.vmdk", pieces.as_bytes()), ("f", &f[..]), ("g", &f[..1536])])),
        ("split", chain::join([("d.vmdk", split.as_bytes()), ("s1", &part[..]), ("s2", &part[..])])),
        (
            "delta",
            chain::join([
                ("d.vmdk", delta.as_bytes()),
                ("delta", &Holey::encode(&images::cowd().file)),
                ("flat.vmdk", flat.as_bytes()),
                ("data", &thick),
            ]),
        ),
        ("stream", chain::join([("s.vmdk", &images::stream(StreamLayout::Footer).file[..])])),
    ]
}

fn calls() -> Vec<(&'static str, Vec<u8>)> {
    // The first byte says how to connect. 0 connection file flags: open; 3 disk start count: read; 6 disk start count seed: write; and so on, see the target.
    vec![
        ("write-read", vec![0, 0, 0, 0, 6, 0, 3, 20, 9, 3, 0, 0, 43, 19, 0, 2, 0, 0, 0, 0, 4, 3, 1, 0, 43]),
        ("child", vec![0, 0, 1, 0, 6, 0, 1, 1, 9, 3, 0, 0, 43, 12, 0, 0, 230, 1, 128, 14, 0, 2, 0]),
        ("async", vec![0, 0, 2, 0, 9, 0, 1, 8, 1, 5, 0, 9, 0, 0, 64, 0, 5, 0, 11, 0, 3, 0, 0, 64]),
        ("create", vec![17, 0, 1, 1, 4, 40, 0, 0, 1, 0, 0, 3, 0, 6, 0, 0, 40, 7, 13, 0, 0, 0, 0, 1, 99]),
        (
            "whole-disk",
            vec![
                0, 0, 0, 0, 0, 24, 0, 25, 0, 6, 0, 3, 20, 9, 24, 0, 2, 0, 28, 0, 0, 1, 23, 0, 2, 64, 1, 0, 0,
                2, 4, 29, 1, 9, 29, 1, 1, 29, 1, 5,
            ],
        ),
        (
            "copies",
            vec![
                0, 22, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 22, 0, 0, 1, 1, 1, 2, 1, 0, 0, 1, 22, 0, 0, 2, 1, 2, 5,
                1, 0, 0, 1, 23, 0, 3, 60, 1, 26, 3, 1, 0, 28, 0, 3, 1, 27, 0, 4, 22, 0, 0, 2, 0, 3, 1, 1, 0,
                1, 0, 0, 0, 3, 0, 3, 0, 0, 43,
            ],
        ),
        (
            "children",
            vec![
                0, 0, 0, 0, 4, 20, 0, 0, 1, 0, 0, 3, 0, 6, 1, 0, 8, 3, 24, 1, 2, 1, 28, 0, 3, 1, 26, 0, 1, 1,
                27, 0, 3,
            ],
        ),
        (
            "attach",
            vec![
                0, 0, 0, 0, 4, 20, 0, 0, 1, 0, 0, 3, 2, 21, 0, 1, 3, 1, 0, 43, 6, 1, 2, 9, 4, 29, 1, 1, 2, 0,
            ],
        ),
        ("spoilt-sparse", spoilt(0)),
        ("spoilt-child", spoilt(2)),
        ("spoilt-footer", spoilt(3)),
        ("spoilt-in-front", spoilt(4)),
        ("spoilt-cowd", spoilt(5)),
        ("stale", vec![0, 0, 0, 4, 16, 0, 3, 0, 0, 1, 2, 0, 2, 0, 15, 1, 2, 0xf2, 3, 0xf1, 0, 1, 18, 9]),
    ]
}

/// Everything that can be done with a disk of this kind that has two wrong numbers.
fn spoilt(kind: u8) -> Vec<u8> {
    let connect = [0];
    let (spoil, read) =
        ([30, 0, kind, 2, 30, 0, 3, 37, 1, 9, 1], [0, 0, 3, 4, 3, 0, 0, 43, 12, 0, 0, 230, 1, 128]);
    let whole = [29, 0, 1, 22, 0, 0, 3, 1, 0, 1, 1, 0, 0, 1, 20, 0, 0, 1, 2, 0];
    let write = [28, 0, 3, 0, 28, 0, 3, 1, 0, 0, 3, 0, 6, 1, 3, 20, 9, 24, 1, 25, 1, 19, 1, 2, 1];
    let end = [23, 0, 3, 64, 1, 26, 3, 1, 0, 27, 0, 3];
    [&connect[..], &spoil, &read, &whole, &write, &end].concat()
}
