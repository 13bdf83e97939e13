//! The tar format: [`Reader`] yields entries of hostile streams, [`Writer`] writes ours.
//!
//! Understood: ustar, old GNU (long names, base-256 numbers, sparse files), pax (`path`, `linkpath`, `size`,
//! `uid`, `gid`, `mtime`, `SCHILY.xattr.*`, sparse files of versions 0.0, 0.1 and 1.0, global headers).
//! Written: ustar with pax records where ustar cannot say it.
//!
//! Our own reader, because a layer needs three things a general one does not do: metadata in bounded memory,
//! attribute values with any byte in them, and the bytes between the contents kept for [`Reader::take_raw`]
//! so that the stream can be written again exactly.
//!
//! It stays whole, past 500 lines, because both directions share one drawing:
//!
//! ```text
//! header 512: name 0+100 mode 100+8 uid 108+8 gid 116+8 size 124+12 mtime 136+12 sum 148+8 type 156
//!             link 157+100 magic 257+8 user 265+32 group 297+32 major 329+8 minor 337+8 prefix 345+155
//!             old GNU sparse: map at 386 (4 × (offset 12, length 12)), more 482, real size 483+12
//! ```
//!
//! Sources: POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format", "Storing Sparse Files".

use std::io::{self, Read, Write};

use super::{Limits, read_failure, refused, shown};
use crate::runtime::Cause;

const BLOCK: usize = 512;
/// Linux limits one attribute to 64 KiB and its list to 64 KiB; a header of more says nothing of use.
const MAX_METADATA: u64 = 1 << 20;
/// Segments in one sparse file: at least a block each, so a map of more describes no real disk image.
const MAX_SEGMENTS: usize = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
    /// A type flag nobody has defined.
    Other(u8),
}

/// Seconds since 1970, and nanoseconds after that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

/// One member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As the archive has it: possibly absolute, possibly with `..`.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Where a link leads.
    pub link: Vec<u8>,
    /// The low twelve bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Offset and length of what is stored of a sparse file; the rest is zeros.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// Extended attributes, names without the `SCHILY.xattr.` prefix.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

impl Entry {
    /// An entry that belongs to root, is from 1970 and has no content.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Entry {
        Entry {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            sparse: None,
            xattrs: Vec::new(),
            device: (0, 0),
        }
    }
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads entries one after the other; the content of the current one through [`Reader::read`].
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    /// Headers seen, those that only describe the next entry included: they cost time too.
    headers: u64,
    entries: u64,
    /// Bytes taken from `inner`, plus holes announced.
    bytes: u64,
    /// Bytes of the current entry's stored content not yet read, and the padding after them.
    left: u64,
    padding: u64,
    global: Records,
    raw: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// A reader of the uncompressed archive `inner`.
    pub fn new(inner: R, limits: Limits) -> Reader<R> {
        Reader {
            inner,
            limits,
            headers: 0,
            entries: 0,
            bytes: 0,
            left: 0,
            padding: 0,
            global: Vec::new(),
            raw: None,
        }
    }

    /// Starts keeping the bytes that are nobody's content, for [`Reader::take_raw`].
    pub fn keep_raw(&mut self) {
        self.raw = Some(Vec::new());
    }

    /// The bytes that came since the last call and are nobody's content.
    pub fn take_raw(&mut self) -> Vec<u8> {
        self.raw.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Entries seen so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry, or `None` at the end of the archive. Content not read is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Cause> {
        self.skip_content()?;
        let mut records: Records = Vec::new();
        let mut long_path = None;
        let mut long_link = None;
        let mut described = false;
        loop {
            let Some(block) = self.header()? else {
                if described {
                    return Err(refused("the archive ends between a long name and the entry it is for"));
                }
                return Ok(None);
            };
            self.headers += 1;
            if self.headers > self.limits.entries {
                return Err(refused(format!("more than {} entries", self.limits.entries)));
            }
            let size = number(&block[124..136])?;
            match block[156] {
                b'x' => records = parse_records(&self.metadata(size)?)?,
                b'g' => {
                    self.global = parse_records(&self.metadata(size)?)?;
                    // These three would make every entry the same one.
                    self.global.retain(|(key, _)| !matches!(key.as_slice(), b"path" | b"linkpath" | b"size"));
                    continue;
                }
                b'L' => long_path = Some(until_nul(&self.metadata(size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.metadata(size)?).to_vec()),
                _ => {
                    self.entries += 1;
                    return self.entry(&block, size, &records, long_path, long_link).map(Some);
                }
            }
            described = true;
        }
    }

    /// Reads from the stored content of the current entry; 0 at its end.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, Cause> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        if wanted == 0 {
            return Ok(0);
        }
        let count = loop {
            match self.inner.read(&mut into[..wanted]) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(read_failure)?,
            }
        };
        if count == 0 {
            return Err(refused("the archive is truncated"));
        }
        self.left -= count as u64;
        self.account(count as u64)?;
        Ok(count)
    }

    /// Reads what comes after the end of the archive: blocks of padding, in pieces, `false` when none is
    /// left. A digest of the stream is only right when they are read too.
    pub fn read_trailer(&mut self) -> Result<bool, Cause> {
        let mut piece = vec![0; 16 << 10];
        let count = self.fill(&mut piece)?;
        if let Some(raw) = &mut self.raw {
            raw.extend_from_slice(&piece[..count]);
        }
        Ok(count == piece.len())
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        size: u64,
        records: &Records,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Cause> {
        let find = |key: &[u8]| {
            // The last of a header's records counts, the entry's own before the global ones.
            let last = |records: &'_ Records| {
                records.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone())
            };
            last(records).or_else(|| last(&self.global))
        };
        let path = find(b"GNU.sparse.name").or_else(|| find(b"path")).or(long_path).unwrap_or_else(|| {
            let name = until_nul(&block[..100]);
            let prefix = until_nul(&block[345..500]);
            // Old GNU headers have other fields where ustar has the prefix.
            if block[257..263] == *b"ustar\0" && !prefix.is_empty() {
                [prefix, b"/", name].concat()
            } else {
                name.to_vec()
            }
        });
        let link = find(b"linkpath").or(long_link).unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        for name in [&path, &link] {
            if name.len() > self.limits.name {
                return Err(refused(format!("a name of {} bytes", name.len())));
            }
            if name.contains(&0) {
                return Err(refused("a name with a zero byte in it"));
            }
        }
        if path.is_empty() {
            return Err(refused("an entry without a name"));
        }
        let kind = match block[156] {
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        };
        let decimal = |key: &[u8]| find(key).map(|value| parse_decimal(&value)).transpose();
        let id = |key: &[u8], field: &[u8]| -> Result<u32, Cause> {
            let value = decimal(key)?.map_or_else(|| number(field), Ok)?;
            u32::try_from(value).map_err(|_| refused(format!("owner {value} is no 32 bit number")))
        };
        let device = |field: &[u8]| -> Result<u32, Cause> {
            let value = number(field)?;
            u32::try_from(value).map_err(|_| refused(format!("device number {value} is too large")))
        };
        let is_device = matches!(kind, Kind::Char | Kind::Block);
        let stored = decimal(b"size")?.unwrap_or(size);
        let mut entry = Entry {
            kind,
            link,
            // Compat: some writers leave the file type in the mode.
            mode: (number(&block[100..108])? & 0o7777) as u32,
            uid: id(b"uid", &block[108..116])?,
            gid: id(b"gid", &block[116..124])?,
            mtime: match find(b"mtime") {
                Some(text) => parse_time(&text)?,
                None => Time { secs: signed(&block[136..148])?, nanos: 0 },
            },
            size: 0,
            sparse: None,
            xattrs: Vec::new(),
            device: if is_device { (device(&block[329..337])?, device(&block[337..345])?) } else { (0, 0) },
            path,
        };
        for (name, value) in self.global.iter().chain(records) {
            if let Some(name) = name.strip_prefix(b"SCHILY.xattr.".as_slice()) {
                entry.xattrs.retain(|(other, _)| other != name);
                entry.xattrs.push((name.to_vec(), value.clone()));
            }
        }
        let version = (find(b"GNU.sparse.major"), find(b"GNU.sparse.minor"));
        let real_size =
            decimal(b"GNU.sparse.realsize")?.map_or_else(|| decimal(b"GNU.sparse.size"), |n| Ok(Some(n)))?;
        // Compat: writers differ in whether links and directories have a size; none has content.
        if matches!(kind, Kind::File | Kind::Other(_)) {
            self.left = stored;
            self.padding = stored.wrapping_neg() % BLOCK as u64;
            entry.size = stored;
        }
        if kind != Kind::File {
            return Ok(entry);
        }
        let sparse = if block[156] == b'S' {
            Some((number(&block[483..495])?, self.old_gnu_map(block)?))
        } else if version.0.is_some_and(|major| major == b"1") {
            let size = real_size.ok_or_else(|| refused("a sparse file without its size"))?;
            Some((size, self.leading_map()?))
        } else if let Some(size) = real_size {
            Some((size, record_map(records)?))
        } else {
            None
        };
        if let Some((size, map)) = sparse {
            check_map(&map, size, self.left)?;
            // The holes cost the disk nothing but the reader of the file everything.
            self.account(size.saturating_sub(self.left))?;
            entry.size = size;
            entry.sparse = Some(map);
        }
        if entry.size > self.limits.bytes {
            return Err(refused(format!("{:?} has {} bytes", shown(&entry.path), entry.size)));
        }
        Ok(entry)
    }

    /// The map of an old GNU sparse entry: four segments in the header, then blocks of 21.
    fn old_gnu_map(&mut self, header: &[u8; BLOCK]) -> Result<Vec<(u64, u64)>, Cause> {
        let mut map = Vec::new();
        let mut more = header[482] != 0;
        let mut add = |fields: &[u8]| -> Result<(), Cause> {
            for field in fields.chunks_exact(24) {
                let segment = (number(&field[..12])?, number(&field[12..])?);
                if field[0] != 0 {
                    map.push(segment);
                }
            }
            if map.len() > MAX_SEGMENTS {
                return Err(refused("a sparse file of too many pieces"));
            }
            Ok(())
        };
        add(&header[386..482])?;
        while more {
            let mut block = [0; BLOCK];
            self.exact(&mut block)?;
            add(&block[..504])?;
            more = block[504] != 0;
        }
        Ok(map)
    }

    /// The map of a pax sparse entry of version 1.0: decimal lines at the start of the content.
    fn leading_map(&mut self) -> Result<Vec<(u64, u64)>, Cause> {
        let mut numbers = Vec::new();
        let mut line = Vec::new();
        let mut wanted = 1;
        while numbers.len() < wanted {
            if self.left < BLOCK as u64 {
                return Err(refused("a sparse file whose map is cut off"));
            }
            let mut block = [0; BLOCK];
            self.exact(&mut block)?;
            self.left -= BLOCK as u64;
            for byte in block {
                if numbers.len() == wanted {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let value = parse_decimal(&line)?;
                line.clear();
                if numbers.is_empty() {
                    let segments = usize::try_from(value).ok().filter(|count| *count <= MAX_SEGMENTS);
                    wanted = 1 + 2 * segments.ok_or_else(|| refused("a sparse file of too many pieces"))?;
                }
                numbers.push(value);
            }
            if line.len() > 20 {
                return Err(refused("a sparse file whose map is no map"));
            }
        }
        Ok(numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn skip_content(&mut self) -> Result<(), Cause> {
        let mut piece = [0; 8 << 10];
        while self.left > 0 {
            let count = self.read(&mut piece)?;
            // Content nobody wanted is not there to be found again either.
            if let Some(raw) = &mut self.raw {
                raw.extend_from_slice(&piece[..count]);
            }
        }
        let padding = std::mem::take(&mut self.padding) as usize;
        self.exact(&mut piece[..padding])
    }

    /// A header block whose sum is right, or `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Cause> {
        let mut block = [0; BLOCK];
        let count = self.fill(&mut block)?;
        if let Some(raw) = &mut self.raw {
            raw.extend_from_slice(&block[..count]);
        }
        if count == 0 || block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if count < BLOCK {
            return Err(refused("the archive is truncated"));
        }
        let damaged = || refused("not a tar archive, or a damaged one: a header's checksum is wrong");
        let wanted = number(&block[148..156]).map_err(|_| damaged())?;
        let bytes =
            || block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
        let unsigned: u64 = bytes().map(u64::from).sum();
        // Some old writers summed signed characters.
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if wanted != unsigned && i64::try_from(wanted) != Ok(signed) {
            return Err(damaged());
        }
        Ok(Some(block))
    }

    fn metadata(&mut self, size: u64) -> Result<Vec<u8>, Cause> {
        if size > MAX_METADATA {
            return Err(refused(format!("{size} bytes about one entry")));
        }
        let padded = (size as usize).next_multiple_of(BLOCK);
        let mut data = vec![0; padded];
        self.exact(&mut data)?;
        data.truncate(size as usize);
        Ok(data)
    }

    fn exact(&mut self, into: &mut [u8]) -> Result<(), Cause> {
        if self.fill(into)? < into.len() {
            return Err(refused("the archive is truncated"));
        }
        if let Some(raw) = &mut self.raw {
            raw.extend_from_slice(into);
        }
        Ok(())
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<usize, Cause> {
        let mut filled = 0;
        while filled < into.len() {
            match self.inner.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(read_failure(cause)),
            }
        }
        self.account(filled as u64)?;
        Ok(filled)
    }

    fn account(&mut self, bytes: u64) -> Result<(), Cause> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes {
            return Err(refused(format!("more than {} bytes", self.limits.bytes)));
        }
        Ok(())
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// A numeric field: octal digits, or base 256 when the first bit is set.
fn signed(field: &[u8]) -> Result<i64, Cause> {
    if field[0] & 0x80 != 0 {
        // The second bit is the sign of the remaining bits.
        let mut value = i128::from((field[0] << 1).cast_signed() >> 1);
        for byte in &field[1..] {
            value = value << 8 | i128::from(*byte);
        }
        return i64::try_from(value).map_err(|_| refused("a number that does not fit in 64 bits"));
    }
    let digits = until_nul(field).trim_ascii();
    if digits.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(digits).map_err(|_| refused("a number that is none"))?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused(format!("{text:?} where a number belongs")));
    }
    i64::from_str_radix(text, 8).map_err(|_| refused(format!("{text:?} where a number belongs")))
}

fn number(field: &[u8]) -> Result<u64, Cause> {
    u64::try_from(signed(field)?).map_err(|_| refused("a negative number where none can be"))
}

fn parse_decimal(text: &[u8]) -> Result<u64, Cause> {
    let bad = || refused(format!("{:?} where a number belongs", shown(&text[..text.len().min(32)])));
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    text.parse().map_err(|_| bad())
}

/// `-12.25`: the fraction counts from zero away, as the whole number does.
fn parse_time(text: &[u8]) -> Result<Time, Cause> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &b""[..]),
    };
    let secs = i64::try_from(parse_decimal(whole)?).map_err(|_| refused("a time out of range"))?;
    let mut nanos = 0;
    for at in 0..9 {
        let digit = fraction.get(at).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err(refused(format!("{:?} where a time belongs", shown(text))));
        }
        nanos = nanos * 10 + u32::from(digit - b'0');
    }
    Ok(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, _) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// `length key=value\n`, where the length counts itself; values may hold any byte.
fn parse_records(mut data: &[u8]) -> Result<Records, Cause> {
    let bad = || refused("a damaged extended header");
    let mut records = Vec::new();
    while !data.is_empty() && data[0] != 0 {
        let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length = usize::try_from(parse_decimal(&data[..space])?).map_err(|_| bad())?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = &data[length..];
    }
    Ok(records)
}

/// The map of pax sparse versions 0.0 (repeated records) and 0.1 (one record).
fn record_map(records: &Records) -> Result<Vec<(u64, u64)>, Cause> {
    let mut numbers = Vec::new();
    for (key, value) in records {
        match key.as_slice() {
            b"GNU.sparse.map" => {
                numbers.clear();
                for number in value.split(|byte| *byte == b',').filter(|number| !number.is_empty()) {
                    numbers.push(parse_decimal(number)?);
                }
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => numbers.push(parse_decimal(value)?),
            _ => {}
        }
    }
    if numbers.len() % 2 != 0 {
        return Err(refused("a sparse file whose map is no map"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn check_map(map: &[(u64, u64)], size: u64, stored: u64) -> Result<(), Cause> {
    let mut end = 0;
    let mut sum = 0_u64;
    for (offset, length) in map {
        let stop = offset.checked_add(*length);
        match stop {
            Some(stop) if *offset >= end && stop <= size => end = stop,
            _ => return Err(refused("a sparse file whose pieces overlap or lie outside it")),
        }
        sum += length;
    }
    if sum != stored {
        return Err(refused("a sparse file whose pieces are not what is stored"));
    }
    Ok(())
}

/// Writes an archive. [`Writer::finish`] ends it; dropping the writer does not.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(inner: W) -> Writer<W> {
        Writer { inner, written: 0 }
    }

    /// Appends `entry` with `entry.size` bytes of `content`; sparse maps are not written, holes are zeros.
    ///
    /// `UnexpectedEof` when `content` ends early; the archive is then useless.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let mut records = Vec::new();
        let mut header = [0; BLOCK];
        put_name(&mut header[..100], &entry.path, "path", &mut records);
        put_octal(&mut header[100..108], u64::from(entry.mode & 0o7777));
        let mut put_large = |range: std::ops::Range<usize>, key, value: u64| {
            // One digit less than the field has bytes: the last is a NUL.
            if value < 1 << (3 * (range.len() - 1)) {
                put_octal(&mut header[range], value);
            } else {
                put_octal(&mut header[range], 0);
                push_record(&mut records, key, value.to_string().as_bytes());
            }
        };
        put_large(108..116, "uid", u64::from(entry.uid));
        put_large(116..124, "gid", u64::from(entry.gid));
        put_large(124..136, "size", entry.size);
        let Time { secs, nanos } = entry.mtime;
        put_octal(&mut header[136..148], u64::try_from(secs).unwrap_or(0).min((1 << 33) - 1));
        if nanos != 0 || !(0..1 << 33).contains(&secs) {
            push_record(&mut records, "mtime", format_time(entry.mtime).as_bytes());
        }
        header[156] = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
            Kind::Other(flag) => flag,
        };
        put_name(&mut header[157..257], &entry.link, "linkpath", &mut records);
        if matches!(entry.kind, Kind::Char | Kind::Block) {
            put_octal(&mut header[329..337], u64::from(entry.device.0));
            put_octal(&mut header[337..345], u64::from(entry.device.1));
        }
        for (name, value) in &entry.xattrs {
            push_record(&mut records, &format!("SCHILY.xattr.{}", shown(name)), value);
        }
        if !records.is_empty() {
            let mut extended = [0; BLOCK];
            let name = b"PaxHeaders.0/";
            extended[..name.len()].copy_from_slice(name);
            let base = entry.path.trim_ascii_end();
            let base = &base[..base.len().min(100 - name.len())];
            extended[name.len()..name.len() + base.len()].copy_from_slice(base);
            for (range, value) in [(100..108, 0o644), (108..116, 0), (116..124, 0), (136..148, 0)] {
                put_octal(&mut extended[range], value);
            }
            put_octal(&mut extended[124..136], records.len() as u64);
            extended[156] = b'x';
            self.header(extended)?;
            self.content(&mut records.as_slice(), records.len() as u64)?;
        }
        self.header(header)?;
        self.content(content, entry.size)
    }

    /// Ends the archive; the bytes written in all come with the sink.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.write(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok((self.inner, self.written))
    }

    fn header(&mut self, mut block: [u8; BLOCK]) -> io::Result<()> {
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        put_octal(&mut block[148..155], sum);
        self.write(&block)
    }

    fn content(&mut self, content: &mut dyn Read, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        let copied = io::copy(&mut content.take(size), &mut self.inner)?;
        if copied < size {
            let message = format!("{copied} bytes came where {size} were announced");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.written += size;
        let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.write(&[0; BLOCK][..padding])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.inner.write_all(bytes)
    }
}

fn put_octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    field[..width].copy_from_slice(&digits.as_bytes()[..width]);
}

/// A name that does not fit, or is not plain ASCII, goes into a record as well.
fn put_name(field: &mut [u8], name: &[u8], key: &str, records: &mut Vec<u8>) {
    if name.len() > field.len() || !name.is_ascii() {
        push_record(records, key, name);
    }
    let short = &name[..name.len().min(field.len())];
    field[..short.len()].copy_from_slice(short);
}

fn push_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length += 1;
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn format_time(Time { secs, nanos }: Time) -> String {
    let text = match (secs, nanos) {
        (secs, 0) => return secs.to_string(),
        (0.., _) => format!("{secs}.{nanos:09}"),
        (_, _) => format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos),
    };
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_both_ways() {
        for time in [(0, 0), (5, 0), (-5, 0), (1, 250_000_000), (-2, 1), (-1, 999_999_999), (1 << 40, 7)] {
            let time = Time { secs: time.0, nanos: time.1 };
            assert_eq!(parse_time(format_time(time).as_bytes()).unwrap(), time, "{}", format_time(time));
        }
        assert!(parse_time(b"1.x").is_err());
        assert!(parse_time(b"--1").is_err());
    }

    #[test]
    fn base_256_numbers_are_read() {
        assert_eq!(signed(&[0x80, 0, 0, 0, 0, 0, 1, 0]).unwrap(), 256);
        assert_eq!(signed(&[0xff; 12]).unwrap(), -1);
        assert!(signed(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(number(&[0xff; 12]).is_err());
        assert!(number(b"12x\0").is_err());
        assert_eq!(number(b" 17 \0\0").unwrap(), 15);
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for size in [1, 80, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 990, 991, 995, 1000] {
            let mut records = Vec::new();
            let value = vec![b'\n'; size];
            push_record(&mut records, "k", &value);
            push_record(&mut records, "l", b"=");
            let parsed = parse_records(&records).unwrap();
            assert_eq!(parsed, [(b"k".to_vec(), value), (b"l".to_vec(), b"=".to_vec())]);
        }
    }

    #[test]
    fn entries_survive_both_ways() {
        let mut odd = Entry::new("d/".to_owned() + &"x".repeat(300), Kind::File, 0o4755);
        odd.size = 3;
        (odd.uid, odd.gid) = (3_000_000_000, 7);
        odd.mtime = Time { secs: -7, nanos: 5 };
        odd.xattrs = vec![(b"security.capability".to_vec(), vec![1, b'\n', 0, b'=', 255])];
        let mut link = Entry::new("l\u{e9}", Kind::Symlink, 0o777);
        link.link = b"/\xff/target".to_vec();
        let mut device = Entry::new("n", Kind::Char, 0o600);
        device.device = (259, 1_048_575);
        let mut writer = Writer::new(Vec::new());
        writer.append(&odd, &mut &b"abc"[..]).unwrap();
        writer.append(&link, &mut io::empty()).unwrap();
        writer.append(&device, &mut io::empty()).unwrap();
        let (bytes, written) = writer.finish().unwrap();
        assert_eq!(bytes.len() as u64, written);

        let mut reader = Reader::new(bytes.as_slice(), Limits::default());
        assert_eq!(reader.next_entry().unwrap().unwrap(), odd);
        let mut content = [0; 8];
        assert_eq!(reader.read(&mut content).unwrap(), 3);
        assert_eq!(reader.next_entry().unwrap().unwrap(), link);
        assert_eq!(reader.next_entry().unwrap().unwrap(), device);
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_panics() {
        let mut writer = Writer::new(Vec::new());
        let mut entry = Entry::new("a".repeat(200), Kind::File, 0o644);
        entry.size = 600;
        entry.xattrs = vec![(b"user.a".to_vec(), b"b".to_vec())];
        writer.append(&entry, &mut io::repeat(1)).unwrap();
        let (bytes, _) = writer.finish().unwrap();
        let read = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes, Limits { entries: 10, bytes: 1 << 20, name: 512 });
            while let Ok(Some(_)) = reader.next_entry() {}
        };
        for end in 0..bytes.len() {
            read(&bytes[..end]);
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x91;
            read(&damaged);
        }
    }
}
