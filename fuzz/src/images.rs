//! Tiny valid images of every format, with their true content and the place of every field, written from the format
//! reference and independent of the library's own writers.

use libdeflater::CompressionLvl;
use libdeflater::Compressor;

/// A number in a file that a test may spoil.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name for messages.
    pub name: String,
    /// Byte position in the file.
    pub at: usize,
    /// Bytes: 1, 2, 4 or 8, little-endian.
    pub width: usize,
}

/// An image made here.
#[derive(Clone, Debug)]
pub struct Built {
    /// The file.
    pub file: Vec<u8>,
    /// What a reader must see, zeros where nothing is allocated.
    pub content: Vec<u8>,
    /// Every number of its headers and tables.
    pub fields: Vec<Field>,
}

impl Built {
    fn new(content_sectors: u64) -> Self {
        Self { file: Vec::new(), content: vec![0; content_sectors as usize * 512], fields: Vec::new() }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if self.file.len() < at + bytes.len() {
            self.file.resize(at + bytes.len(), 0);
        }
        self.file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u32(&mut self, name: impl Into<String>, at: usize, value: u64) {
        self.put(at, &u32::try_from(value).unwrap().to_le_bytes());
        self.fields.push(Field { name: name.into(), at, width: 4 });
    }

    fn u64(&mut self, name: impl Into<String>, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
        self.fields.push(Field { name: name.into(), at, width: 8 });
    }

    fn small(&mut self, name: impl Into<String>, at: usize, bytes: &[u8]) {
        self.put(at, bytes);
        self.fields.push(Field { name: name.into(), at, width: bytes.len() });
    }

    /// Copies sectors of the pattern to a place in the file and to the content.
    fn sectors(&mut self, seed: u64, first: u64, count: u64, at: usize) {
        for i in 0..count {
            let sector = pattern(seed, first + i);
            self.put(at + i as usize * 512, &sector);
            self.show(first + i, &sector);
        }
    }

    fn show(&mut self, lba: u64, sector: &[u8]) {
        let to = lba as usize * 512;
        if to < self.content.len() {
            self.content[to..to + 512].copy_from_slice(sector);
        }
    }

    /// Makes the file at least this long.
    fn pad(&mut self, len: usize) {
        if self.file.len() < len {
            self.file.resize(len, 0);
        }
    }

    /// The file with one field changed; `value` is cut to the field's width.
    pub fn with(&self, field: &Field, value: u64) -> Vec<u8> {
        let mut file = self.file.clone();
        file[field.at..field.at + field.width].copy_from_slice(&value.to_le_bytes()[..field.width]);
        file
    }

    /// What a field holds.
    pub fn value(&self, field: &Field) -> u64 {
        let mut bytes = [0; 8];
        bytes[..field.width].copy_from_slice(&self.file[field.at..field.at + field.width]);
        u64::from_le_bytes(bytes)
    }
}

/// The sector `lba` of the disk `seed`: no two are alike.
pub fn pattern(seed: u64, lba: u64) -> [u8; 512] {
    let mut sector = [0; 512];
    for (i, word) in sector.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(seed << 48 | lba << 8 | i as u64 | 1 << 63).to_le_bytes());
    }
    sector
}

/// Values that parsers stumble over, for a field of `width` bytes that holds `value`: none equals it.
pub fn nasty_values(value: u64, width: usize) -> Vec<u64> {
    let ones = if width == 8 { u64::MAX } else { (1 << (8 * width)) - 1 };
    let sign = 1u64 << (8 * width - 1);
    let mut values =
        vec![0, 1, 2, ones, ones - 1, sign, sign - 1, sign | value, ones / 3, ones >> 9, (ones >> 9) + 1];
    values.extend([
        value.wrapping_add(1),
        value.wrapping_sub(1),
        value.wrapping_mul(2),
        value / 2,
        value ^ 0x10,
    ]);
    values.extend((0..width as u32).map(|byte| value ^ 0x80 << (8 * byte)));
    values.iter_mut().for_each(|v| *v &= ones);
    values.sort_unstable();
    values.dedup();
    values.retain(|v| *v != value);
    values
}

/// The descriptor of a one-file disk.
pub fn descriptor(sectors: u64, create_type: &str, extent: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"{create_type}\"\n\n# Extent description\n{extent}\n\n# The Disk Data Base \n#DDB\n\n\
         ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"{}\"\nddb.geometry.heads = \"64\"\n\
         ddb.geometry.sectors = \"32\"\nddb.longContentID = \"0123456789abcdef0123456712345678\"\n\
         ddb.uuid = \"60 00 C2 9d 7b b2 3a ab-42 e8 01 7f 14 20 40 f3\"\nddb.virtualHWVersion = \"14\"\n",
        (sectors / 2048).max(1)
    )
}

/// The descriptor of a link on top of `parent`.
pub fn child_descriptor(create_type: &str, extent: &str, parent: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=0badcafe\nparentCID=12345678\n\
         createType=\"{create_type}\"\nparentFileNameHint=\"{parent}\"\n\n# Extent description\n{extent}\n\n\
         # The Disk Data Base \n#DDB\n\nddb.longContentID = \"0123456789abcdef012345670badcafe\"\n"
    )
}

/// What a hosted sparse extent is made of.
#[derive(Clone, Debug)]
pub struct SparseSpec {
    /// Header version.
    pub version: u64,
    /// Header flags.
    pub flags: u64,
    /// Sectors of the extent.
    pub capacity: u64,
    /// Sectors of a grain.
    pub grain: u64,
    /// Grains with data, in the order they stand in the file.
    pub data: Vec<u64>,
    /// Zero grains (needs flag 4).
    pub zero: Vec<u64>,
    /// Embedded descriptor, empty for none.
    pub descriptor: String,
}

impl SparseSpec {
    /// A disk of five grains of 4 KiB and a piece of one, three of them allocated, out of order.
    pub fn tiny() -> Self {
        let capacity = 5 * 8 + 3;
        Self {
            version: 1,
            flags: 3,
            capacity,
            grain: 8,
            data: vec![3, 0, 5],
            zero: Vec::new(),
            descriptor: descriptor(capacity, "monolithicSparse", &format!("RW {capacity} SPARSE \"d.vmdk\"")),
        }
    }

    /// Two tables and a directory of two entries; zero grains; version 2.
    pub fn two_tables() -> Self {
        let capacity = 520 * 8;
        let descriptor =
            descriptor(capacity, "monolithicSparse", &format!("RW {capacity} SPARSE \"d.vmdk\""));
        Self {
            version: 2,
            flags: 7,
            capacity,
            grain: 8,
            data: vec![0, 512, 511, 519],
            zero: vec![1, 513],
            descriptor,
        }
    }
}

/// A hosted sparse extent laid out as VMware does it: redundant directory and tables first.
pub fn sparse(spec: &SparseSpec) -> Built {
    let mut built = Built::new(spec.capacity);
    let descriptor_sectors = if spec.descriptor.is_empty() { 0 } else { 4 };
    let tables = spec.capacity.div_ceil(spec.grain).div_ceil(512);
    let directory = (tables * 4).div_ceil(512);
    let copy = directory + tables * 4;
    let rgd = 1 + descriptor_sectors;
    let has_rgd = spec.flags & 2 != 0;
    let gd = if has_rgd { rgd + copy } else { rgd };
    let overhead = (gd + copy).next_multiple_of(spec.grain);
    header(&mut built, spec, "", 0, [descriptor_sectors, if has_rgd { rgd } else { 0 }, gd, overhead]);
    built.put(512, spec.descriptor.as_bytes());
    let mut starts = vec![(gd, "")];
    if has_rgd {
        starts.push((rgd, "r"));
    }
    for (start, prefix) in starts {
        for t in 0..tables {
            let at = (start * 512 + t * 4) as usize;
            built.u32(format!("{prefix}gd[{t}]"), at, start + directory + t * 4);
        }
        let entry = |grain: u64| ((start + directory) * 512 + grain * 4) as usize;
        for (i, grain) in spec.data.iter().enumerate() {
            built.u32(format!("{prefix}gt[{grain}]"), entry(*grain), overhead + i as u64 * spec.grain);
        }
        for grain in &spec.zero {
            built.u32(format!("{prefix}gt[{grain}] zero"), entry(*grain), 1);
        }
    }
    for (i, grain) in spec.data.iter().enumerate() {
        let at = (overhead + i as u64 * spec.grain) as usize * 512;
        built.sectors(1, grain * spec.grain, spec.grain, at);
    }
    built.pad(((overhead + spec.data.len() as u64 * spec.grain) * 512) as usize);
    built
}

/// `places`: descriptor sectors, redundant directory, directory, overhead.
fn header(built: &mut Built, spec: &SparseSpec, prefix: &str, at: usize, places: [u64; 4]) {
    let [descriptor, rgd, gd, overhead] = places;
    let compressed = spec.flags & 0x10000 != 0;
    built.u32(format!("{prefix}magic"), at, 0x564d_444b);
    built.u32(format!("{prefix}version"), at + 4, spec.version);
    built.u32(format!("{prefix}flags"), at + 8, spec.flags);
    built.u64(format!("{prefix}capacity"), at + 12, spec.capacity);
    built.u64(format!("{prefix}grainSize"), at + 20, spec.grain);
    built.u64(format!("{prefix}descriptorOffset"), at + 28, u64::from(descriptor > 0));
    built.u64(format!("{prefix}descriptorSize"), at + 36, descriptor);
    built.u32(format!("{prefix}numGTEsPerGT"), at + 44, 512);
    built.u64(format!("{prefix}rgdOffset"), at + 48, rgd);
    built.u64(format!("{prefix}gdOffset"), at + 56, gd);
    built.u64(format!("{prefix}overHead"), at + 64, overhead);
    built.small(format!("{prefix}uncleanShutdown"), at + 72, &[0]);
    built.small(format!("{prefix}newlines"), at + 73, b"\n \r\n");
    built.small(format!("{prefix}compressAlgorithm"), at + 77, &u16::from(compressed).to_le_bytes());
    built.small(format!("{prefix}pad"), at + 79, &[0]);
    built.pad(at + 512);
}

/// How a stream-optimised file is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamLayout {
    /// Directory and tables behind the data, found through the footer, as exports have it.
    Footer,
    /// Directory and tables in front, no footer, as some tools have it.
    InFront,
}

/// A stream-optimised file: four grains and a piece of one, the second and fourth absent.
pub fn stream(layout: StreamLayout) -> Built {
    let capacity = 4 * 8 + 3;
    let spec = SparseSpec {
        version: 3,
        flags: 0x30001,
        capacity,
        grain: 8,
        data: vec![2, 0, 4],
        zero: Vec::new(),
        descriptor: descriptor(
            capacity,
            "streamOptimized",
            &format!("RDONLY {capacity} SPARSE \"generated-stream.vmdk\" "),
        ),
    };
    let mut built = Built::new(capacity);
    let in_front = layout == StreamLayout::InFront;
    let (overhead, front) = (16, 6);
    header(&mut built, &spec, "", 0, [4, 0, if in_front { front } else { u64::MAX }, overhead]);
    built.put(512, spec.descriptor.as_bytes());
    let mut next = overhead as usize * 512;
    let mut entries = Vec::new();
    for grain in &spec.data {
        entries.push((*grain, next as u64 / 512));
        next = packed_grain(&mut built, *grain, spec.grain, next);
    }
    let table = if in_front { 7 } else { marker(&mut built, "gt", &mut next, 4, 1) };
    for (grain, sector) in &entries {
        built.u32(format!("gt[{grain}]"), table * 512 + *grain as usize * 4, *sector);
    }
    built.pad(table * 512 + 2048);
    let directory = if in_front { front as usize } else { marker(&mut built, "gd", &mut next, 1, 2) };
    built.u32("gd[0]", directory * 512, table as u64);
    built.pad(directory * 512 + 512);
    if !in_front {
        let footer = marker(&mut built, "footer", &mut next, 1, 3);
        header(&mut built, &spec, "footer.", footer * 512, [4, 0, directory as u64, overhead]);
        marker(&mut built, "end", &mut next, 0, 0);
    }
    built.pad(next);
    built
}

/// Writes a grain with its marker; the sector behind it is where the next thing goes.
fn packed_grain(built: &mut Built, grain: u64, sectors: u64, at: usize) -> usize {
    let mut content = Vec::new();
    for lba in grain * sectors..(grain + 1) * sectors {
        let sector = pattern(2, lba);
        built.show(lba, &sector);
        content.extend(sector);
    }
    let mut packed = vec![0; 8192];
    let size = Compressor::new(CompressionLvl::default()).zlib_compress(&content, &mut packed).unwrap();
    built.u64(format!("marker[{grain}].lba"), at, grain * sectors);
    built.u32(format!("marker[{grain}].size"), at + 8, size as u64);
    built.put(at + 12, &packed[..size]);
    built.fields.push(Field { name: format!("marker[{grain}].data"), at: at + 12, width: 2 });
    let end = (at + 12 + size).next_multiple_of(512);
    built.pad(end);
    end
}

/// Writes a metadata marker at `next` and moves it behind what follows; the sector of what follows.
fn marker(built: &mut Built, name: &str, next: &mut usize, sectors: usize, kind: u64) -> usize {
    built.u64(format!("{name} marker.sectors"), *next, sectors as u64);
    built.u32(format!("{name} marker.size"), *next + 8, 0);
    built.u32(format!("{name} marker.type"), *next + 12, kind);
    built.pad(*next + 512);
    let start = *next / 512 + 1;
    *next += 512 + sectors * 512;
    start
}

/// A COWD extent of 4100 sectors in grains of 1: two tables, runs and single sectors, out of order.
pub fn cowd() -> Built {
    let capacity = 4100;
    let mut built = Built::new(capacity);
    let data = [7u64, 8, 9, 0, 4095, 4096, 4099];
    let tables = [5u64, 5 + 32];
    let first = 5 + 64;
    built.u32("magic", 0, 0x4457_4f43);
    built.u32("version", 4, 1);
    built.u32("flags", 8, 3);
    built.u32("numSectors", 12, capacity);
    built.u32("grainSize", 16, 1);
    built.u32("gdOffset", 20, 4);
    built.u32("numGDEntries", 24, 2);
    built.u32("freeSector", 28, first + data.len() as u64);
    built.u32("generation", 1060, 1);
    built.u32("savedGeneration", 1636, 0);
    built.u32("uncleanShutdown", 1648, 0);
    for (i, table) in tables.iter().enumerate() {
        built.u32(format!("gd[{i}]"), 4 * 512 + i * 4, *table);
        built.pad((*table as usize + 32) * 512);
    }
    for (i, lba) in data.iter().enumerate() {
        let table = tables[(lba / 4096) as usize] as usize * 512;
        built.u32(format!("gt[{lba}]"), table + (lba % 4096) as usize * 4, first + i as u64);
        built.sectors(3, *lba, 1, (first as usize + i) * 512);
    }
    built
}

/// A SESparse extent of 16 MiB and three grains: two tables, one used out of order; zero, unmapped and data grains.
pub fn sesparse() -> Built {
    let capacity = (4096 + 3) * 8;
    let mut built = Built::new(capacity);
    let regions = [("volatileHeader", 1, 1), ("journalHeader", 2, 2), ("journal", 2048, 2048)];
    let more = [("grainDirectory", 4096, 2048), ("grainTables", 6144, 2048), ("freeBitmap", 8192, 2048)];
    let last = [("backmap", 10240, 2048), ("grains", 12288, 2048)];
    for (i, (name, value)) in [
        ("magic", 0xcafe_babe),
        ("version", 0x2_0000_0001),
        ("capacity", capacity),
        ("grainSize", 8),
        ("grainTableSize", 64),
        ("flags", 0),
        ("reserved1", 0),
        ("reserved2", 0),
        ("reserved3", 0),
        ("reserved4", 0),
    ]
    .iter()
    .enumerate()
    {
        built.u64(*name, i * 8, *value);
    }
    for (i, (name, offset, size)) in regions.iter().chain(&more).chain(&last).enumerate() {
        built.u64(format!("{name}Offset"), 80 + i * 16, *offset);
        built.u64(format!("{name}Size"), 88 + i * 16, *size);
    }
    for (name, at, value) in
        [("v.magic", 0, 0xcafe_cafe), ("v.freeGT", 8, 2), ("v.sequence", 16, 0x24), ("v.replay", 24, 0)]
    {
        built.u64(name, 512 + at, value);
    }
    for (i, table) in [1u64, 0].iter().enumerate() {
        built.u64(format!("gd[{i}]"), 4096 * 512 + i * 8, 0x1000_0000_0000_0000 | table);
    }
    built.u64("j.magic", 1024, 0xdeaf_c0de);
    built.u64("j.sequence", 1032, 0x24);
    built.put(1040, &[1]);
    built.small("bitmap[0]", 8192 * 512, &[0b0110_0111]);
    built.small("bitmap[2]", 8192 * 512 + 2, &[0b10]);
    let rotated = |number: u64| (number & 0xfff) << 48 | number >> 12;
    let entry = |grain: u64| {
        let table = [1, 0][(grain / 4096) as usize];
        (6144 * 512 + table * 32768 + grain % 4096 * 8) as usize
    };
    for (index, grain) in [(0u64, 2u64), (1, 0), (2, 1), (17, 4095), (5, 4096), (6, 4097)] {
        built.u64(format!("gt[{grain}]"), entry(grain), 3 << 60 | rotated(index));
        built.u64(format!("backmap[{index}]"), (10240 * 512 + index * 8) as usize, 1 << 60 | rotated(grain));
        built.sectors(4, grain * 8, 8, (12288 + index as usize * 8) * 512);
    }
    built.u64("gt[7] zero", entry(7), 2 << 60);
    built.u64("gt[8] unmapped", entry(8), 1 << 60 | 3 << 48);
    built.pad((12288 + 2048) * 512);
    built
}
