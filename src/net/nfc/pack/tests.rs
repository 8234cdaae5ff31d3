//! The three ways against published bytes, against the reference of FastLZ, and against hostile data.

use proptest::collection::vec;
use proptest::prelude::Strategy;
use proptest::prelude::any;
use proptest::proptest;
use proptest::strategy::Just;
use proptest::test_runner::Config;

use super::*;
use crate::error::ErrorKind;

const PACKED: [Compression; 3] = [Compression::Zlib, Compression::Fastlz, Compression::Skipz];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn unpacked(compression: Compression, packed: &[u8], length: usize) -> Result<Vec<u8>> {
    let mut plain = vec![0xee; length];
    Unpacker::new().unpack(compression, packed, &mut plain).map(|()| plain)
}

fn packed(compression: Compression, plain: &[u8]) -> Option<Vec<u8>> {
    Packer::new(compression).pack(plain).map(<[u8]>::to_vec)
}

/// What goes in comes out, by our own decoder and for FastLZ by the reference too.
fn round_trip(compression: Compression, plain: &[u8]) {
    let Some(packed) = packed(compression, plain) else { return };
    assert!(packed.len() < plain.len());
    assert!(unpacked(compression, &packed, plain.len()).unwrap() == plain, "{compression:?}");
    if compression == Compression::Fastlz {
        let mut room = vec![0; plain.len()];
        assert!(::fastlz::decompress(&packed, &mut room).unwrap() == plain, "the reference");
        assert_eq!(packed[0] >> 5, u8::from(plain.len() >= 65536), "level");
    }
}

/// What the reference packs, we unpack.
fn from_the_reference(plain: &[u8]) {
    let mut room = vec![0; 66.max(plain.len() * 11 / 10 + 16)];
    let packed = ::fastlz::compress(plain, &mut room).unwrap();
    assert!(unpacked(Compression::Fastlz, packed, plain.len()).unwrap() == plain);
}

/// Rows of the same byte, of noise, and of what came before: what disks look like.
fn disk_like(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let part = (0..4_u8, any::<u8>(), 1..most / 8, any::<u64>());
    vec(part, 1..24).prop_map(move |parts| {
        let mut plain: Vec<u8> = Vec::new();
        for (how, byte, length, seed) in parts {
            let mut state = seed | 1;
            match how {
                0 => plain.resize(plain.len() + length, 0),
                1 => plain.resize(plain.len() + length % 400 + 1, byte),
                2 => plain.extend((0..length % 700).map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })),
                _ => {
                    let from = seed as usize % (plain.len() + 1);
                    let end = plain.len().min(from + length);
                    plain.extend_from_within(from..end);
                }
            }
        }
        plain.truncate(most);
        plain
    })
}

#[test]
fn skipz_has_the_published_bytes() {
    let mut plain = [0; 512];
    plain[137..140].copy_from_slice(b"xyz");
    plain[510..].copy_from_slice(&[0x55, 0xaa]);
    let expected =
        hex("00 02 00 00 00 00 00 00  89 00 00 00 03 00 00 00 78 79 7a  fe 01 00 00 02 00 00 00 55 aa");
    assert_eq!(packed(Compression::Skipz, &plain).unwrap(), expected);
    assert_eq!(unpacked(Compression::Skipz, &expected, 512).unwrap(), plain);
    let zeros = packed(Compression::Skipz, &[0; 65536]).unwrap();
    assert_eq!(zeros, [0, 0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn fastlz_has_the_published_bytes() {
    let sector = hex("01 41 41 e0 fd 01 e0 ea 01 04 41 41 41 41 41");
    assert_eq!(unpacked(Compression::Fastlz, &sector, 512).unwrap(), [b'A'; 512]);
    let text = [&b"abcdefgh".repeat(4)[..], &[b'Z'; 40]].concat();
    let level1 = hex("07 61 62 63 64 65 66 67 68 e0 0f 07 00 5a e0 19 00 04 5a 5a 5a 5a 5a");
    assert_eq!(unpacked(Compression::Fastlz, &level1, 72).unwrap(), text);
    let long = b"0123456789abcdef".repeat(4096);
    let level2 = [
        &hex("2f 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66 e0")[..],
        &[0xff; 256],
        &hex("e2 0f 04 62 63 64 65 66"),
    ]
    .concat();
    assert_eq!(level2.len(), 282);
    assert_eq!(unpacked(Compression::Fastlz, &level2, 65536).unwrap(), long);
    for plain in [&[b'A'; 512][..], &text, &long] {
        round_trip(Compression::Fastlz, plain);
    }
}

#[test]
fn zlib_streams_begin_as_captured_ones() {
    let packed = packed(Compression::Zlib, &[7; 4096]).unwrap();
    assert_eq!(packed[..2], [0x78, 0x01]);
    assert_eq!(unpacked(Compression::Zlib, &packed, 4096).unwrap(), [7; 4096]);
}

#[test]
fn matches_of_every_length_and_distance_are_read_back() {
    let mut noise = Vec::new();
    let mut state = 1_u32;
    while noise.len() < 80_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push((state >> 24) as u8);
    }
    for distance in [1, 2, 3, 7, 16, 31, 32, 33, 255, 256, 8190, 8191, 8192, 8193, 20_000, 73_000] {
        for length in [3, 4, 8, 9, 10, 263, 264, 265, 266, 267, 527, 528, 529, 1000, 66_000] {
            let mut plain = noise[..distance].to_vec();
            for at in 0..length {
                plain.push(plain[at]); // overlaps when it is longer than its distance
            }
            plain.extend_from_slice(b"the end of it all");
            round_trip(Compression::Fastlz, &plain);
            from_the_reference(&plain);
        }
    }
}

#[test]
fn what_does_not_shrink_is_left_alone() {
    let mut state = 7_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(65536)
    .collect();
    for compression in Compression::ALL {
        assert_eq!(packed(compression, &noise), None, "{compression:?}");
        assert_eq!(packed(compression, &[]), None);
    }
    assert_eq!(packed(Compression::None, &[0; 512]), None);
}

#[test]
fn one_packer_serves_many_fragments() {
    let mut unpacker = Unpacker::new();
    for compression in PACKED {
        let mut packer = Packer::new(compression);
        assert_eq!(packer.compression(), compression);
        for length in [512, 65536, 4096, 131_072] {
            let plain: Vec<u8> = (0..length).map(|i| (i / 100) as u8).collect();
            let mut room = vec![1; length];
            let packed = packer.pack(&plain).unwrap();
            unpacker.unpack(compression, packed, &mut room).unwrap();
            assert!(room == plain);
        }
    }
}

#[test]
fn every_truncation_and_every_other_length_is_refused() {
    let plain: Vec<u8> = (0..2048_u32).map(|i| if i % 512 < 300 { 0 } else { (i / 7) as u8 }).collect();
    for compression in PACKED {
        let packed = packed(compression, &plain).unwrap();
        for cut in 0..packed.len() {
            let e = unpacked(compression, &packed[..cut], plain.len());
            // A list that ends between two runs is a shorter list.
            assert!(compression == Compression::Skipz || e.is_err(), "{compression:?} cut at {cut}");
        }
        for length in [0, 1, plain.len() - 1, plain.len() + 1, 65536] {
            let e = unpacked(compression, &packed, length).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Protocol);
        }
    }
    assert!(unpacked(Compression::None, &[0; 3], 4).is_err());
}

#[test]
fn lists_that_go_back_or_outside_are_refused() {
    let list = |runs: &[(u32, u32)]| {
        let mut bytes = hex("00 02 00 00 00 00 00 00");
        for (offset, length) in runs {
            bytes.extend_from_slice(&offset.to_le_bytes());
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.resize(bytes.len() + (*length).min(600) as usize, 1);
        }
        bytes
    };
    for good in [&[(0, 512)][..], &[(0, 8), (8, 8)], &[(512, 0)]] {
        unpacked(Compression::Skipz, &list(good), 512).unwrap();
    }
    for bad in [
        &[(1, 512)][..],
        &[(8, 8), (0, 8)],
        &[(0, 9), (8, 8)],
        &[(u32::MAX, 2)],
        &[(0, u32::MAX)],
        &[(513, 0)],
    ] {
        assert!(unpacked(Compression::Skipz, &list(bad), 512).is_err(), "{bad:?}");
    }
    assert!(unpacked(Compression::Skipz, &hex("00 02 00 00 01 00 00 00"), 512).is_err());
}

#[test]
fn unknown_levels_and_matches_before_the_start_are_refused() {
    for packed in ["40 41", "ff 41", "00 41 20 01", "20 41 3f ff ff ff", "", "e0", "00 41 e0", "00 41 e0 ff"]
    {
        assert!(unpacked(Compression::Fastlz, &hex(packed), 64).is_err(), "{packed}");
    }
}

proptest! {
    #![proptest_config(Config::with_cases(300))]

    #[test]
    fn what_goes_in_comes_out(plain in disk_like(100_000)) {
        for compression in PACKED {
            round_trip(compression, &plain);
        }
        if plain.len() >= 16 {
            from_the_reference(&plain);
        }
    }

    #[test]
    fn short_fragments_come_out_too(plain in disk_like(600)) {
        for compression in PACKED {
            round_trip(compression, &plain);
        }
    }

    #[test]
    fn skipz_agrees_with_a_slow_reader(plain in vec(Just(0_u8).boxed().prop_union((1..3_u8).boxed()), 0..300), gap in 0..40_usize) {
        let plain = [&plain[..], &vec![0; gap], &plain].concat();
        if let Some(packed) = packed(Compression::Skipz, &plain) {
            let mut slow = vec![0; plain.len()];
            let mut at = 8;
            while at < packed.len() {
                let number = |at: usize| u32::from_le_bytes(packed[at..at + 4].try_into().unwrap()) as usize;
                let (offset, length) = (number(at), number(at + 4));
                slow[offset..offset + length].copy_from_slice(&packed[at + 8..at + 8 + length]);
                assert!(!packed[at + 8..at + 8 + length].windows(16).any(|w| w == [0; 16]), "zeros worth skipping");
                at += 8 + length;
            }
            assert!(slow == plain);
        }
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..200), length in 0..5000_usize) {
        for compression in Compression::ALL {
            let _ = unpacked(compression, &bytes, length);
        }
    }

    #[test]
    fn a_changed_byte_gives_an_error_or_bytes(plain in disk_like(5000), at in any::<usize>(), with in 1..=255_u8) {
        for compression in PACKED {
            if let Some(mut bytes) = packed(compression, &plain) {
                let at = at % bytes.len();
                bytes[at] ^= with;
                if let Ok(other) = unpacked(compression, &bytes, plain.len()) {
                    assert_eq!(other.len(), plain.len());
                    assert!(compression != Compression::Zlib || other == plain, "zlib has a checksum");
                }
            }
        }
    }
}
