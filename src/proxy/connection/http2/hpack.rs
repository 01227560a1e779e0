//! The outline of header blocks (RFC 7541): how long their fields are and which of them are pseudo fields, but not what they say.
//!
//! h2 decodes them, and keeps to itself some of what it finds (`blocks`). To know that much, the dynamic table has to be followed, but without
//! the texts in it, and Huffman's code has to be read, but only for how many symbols there are.

use std::collections::VecDeque;

/// Bytes that the dynamic table may hold: what an endpoint allows that says nothing else (RFC 9113 6.5.2).
const TABLE_BYTES_MAX: usize = 4096;
/// What a field counts beside its name and value (RFC 7541 4.1).
const FIELD_OVERHEAD: usize = 32;
/// What a number may have at most after its first byte: h2 takes none longer either.
const NUMBER_BYTES_MAX: u32 = 4;
/// The bytes of `:path`. No other pseudo field has as many.
const PATH_BYTES: usize = 5;

/// The static table (RFC 7541 appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// How many symbols of Huffman's code have so many bits (RFC 7541 appendix B). The code is canonical: shorter ones have the smaller numbers.
const SYMBOLS: [(u32, u64); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];
/// By length, the first 32 bits that belong to a longer symbol.
const ENDS: [(u32, u64); SYMBOLS.len()] = ends();
/// `#` in Huffman's code, of twelve bits.
const HASH: (u64, u32) = (0xffa, 12);
/// `:` in Huffman's code, of seven bits.
const COLON: (u8, u32) = (0x5c, 7);
/// The end in Huffman's code, of 30 bits. No text holds it (RFC 7541 5.2).
const END: (u64, u32) = (0x3fff_ffff, 30);

const fn ends() -> [(u32, u64); SYMBOLS.len()] {
    let mut ends = SYMBOLS;
    let (mut index, mut end) = (0, 0);
    while index < SYMBOLS.len() {
        let (bits, count) = SYMBOLS[index];
        end += count << (32 - bits);
        ends[index].1 = end;
        index += 1;
    }
    ends
}

/// What a block holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outline {
    /// How many fields.
    pub(super) fields: usize,
    /// Bytes of them all, as HTTP/2 counts (RFC 9113 6.5.2).
    pub(super) bytes: usize,
    /// Whether there is a pseudo field.
    pub(super) has_pseudo: bool,
    /// Whether there is one behind another field.
    pub(super) is_disordered: bool,
    /// Whether `:path` has a `#`.
    pub(super) has_fragment: bool,
    /// Whether there is another field than a pseudo field.
    has_regular: bool,
}

/// A field without its text.
#[derive(Debug, Clone, Copy)]
struct Field {
    name: Name,
    value_bytes: usize,
    has_hash: bool,
}

#[derive(Debug, Clone, Copy)]
struct Name {
    bytes: usize,
    is_pseudo: bool,
}

impl Name {
    fn is_path(self) -> bool {
        self.is_pseudo && self.bytes == PATH_BYTES
    }
}

impl Field {
    fn size(&self) -> usize {
        self.name.bytes + self.value_bytes + FIELD_OVERHEAD
    }
}

/// Follows the blocks of one direction of a connection.
#[derive(Debug)]
pub(super) struct Reader {
    /// The dynamic table, the newest first (RFC 7541 2.3.2).
    table: VecDeque<Field>,
    table_bytes: usize,
    table_bytes_max: usize,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { table: VecDeque::new(), table_bytes: 0, table_bytes_max: TABLE_BYTES_MAX }
    }
}

impl Reader {
    /// What the next block holds. `None`: it is none, and what follows has no meaning.
    pub(super) fn read(&mut self, mut block: &[u8]) -> Option<Outline> {
        let mut outline = Outline::default();
        while let Some(&first) = block.first() {
            // RFC 7541 6.
            let field = match first {
                0x80.. => self.field(number(&mut block, 7)?)?,
                0x40.. => {
                    let field = self.literal(&mut block, 6)?;
                    self.insert(field);
                    field
                }
                0x20.. => {
                    self.table_bytes_max = number(&mut block, 5).filter(|bytes| *bytes <= TABLE_BYTES_MAX)?;
                    self.shrink(self.table_bytes_max);
                    continue;
                }
                _ => self.literal(&mut block, 4)?,
            };
            outline.is_disordered |= field.name.is_pseudo && outline.has_regular;
            outline.has_regular |= !field.name.is_pseudo;
            outline.fields += 1;
            outline.bytes += field.size();
            outline.has_pseudo |= field.name.is_pseudo;
            outline.has_fragment |= field.name.is_path() && field.has_hash;
        }
        Some(outline)
    }

    fn literal(&self, block: &mut &[u8], prefix: u32) -> Option<Field> {
        let name = match number(block, prefix)? {
            0 => {
                let name = Text::take(block)?;
                // h2 may skip a field without a name, and its table is another one from there on.
                let bytes = name.measure().map(|(bytes, _)| bytes).filter(|bytes| *bytes > 0)?;
                Name { bytes, is_pseudo: name.is_pseudo() }
            }
            index => self.field(index)?.name,
        };
        let (value_bytes, has_hash) = Text::take(block)?.measure()?;
        Some(Field { name, value_bytes, has_hash })
    }

    fn field(&self, index: usize) -> Option<Field> {
        let index = index.checked_sub(1)?;
        let Some((name, value)) = STATIC.get(index) else {
            return self.table.get(index - STATIC.len()).copied();
        };
        let name = Name { bytes: name.len(), is_pseudo: name.starts_with(':') };
        Some(Field { name, value_bytes: value.len(), has_hash: false })
    }

    /// Adds a field, and drops the oldest for it. One that is larger than the table empties it (RFC 7541 4.4).
    fn insert(&mut self, field: Field) {
        let size = field.size();
        self.shrink(self.table_bytes_max.saturating_sub(size));
        if size <= self.table_bytes_max {
            self.table_bytes += size;
            self.table.push_front(field);
        }
    }

    fn shrink(&mut self, bytes: usize) {
        while self.table_bytes > bytes
            && let Some(oldest) = self.table.pop_back()
        {
            self.table_bytes -= oldest.size();
        }
    }
}

/// A string literal (RFC 7541 5.2).
#[derive(Debug, Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    is_coded: bool,
}

impl<'a> Text<'a> {
    fn take(block: &mut &'a [u8]) -> Option<Text<'a>> {
        let is_coded = block.first()? & 0x80 != 0;
        let length = number(block, 7)?;
        let (bytes, rest) = block.split_at_checked(length)?;
        *block = rest;
        Some(Text { bytes, is_coded })
    }

    fn is_pseudo(self) -> bool {
        let first = self.bytes.first().copied();
        match self.is_coded {
            true => first.is_some_and(|first| first >> (u8::BITS - COLON.1) == COLON.0),
            false => first == Some(b':'),
        }
    }

    /// How many bytes it has, and whether one is `#`.
    fn measure(self) -> Option<(usize, bool)> {
        match self.is_coded {
            true => measure_coded(self.bytes),
            false => Some((self.bytes.len(), self.bytes.contains(&b'#'))),
        }
    }
}

/// Of a text in Huffman's code.
fn measure_coded(bytes: &[u8]) -> Option<(usize, bool)> {
    let (mut count, mut has_hash) = (0, false);
    let mut rest = bytes.iter();
    // The bits that are next, at the high end, and how many they are.
    let (mut bits, mut held) = (0_u64, 0);
    loop {
        while held <= u64::BITS - u8::BITS
            && let Some(byte) = rest.next()
        {
            bits |= u64::from(*byte) << (u64::BITS - u8::BITS - held);
            held += u8::BITS;
        }
        // What fills the last byte are ones (RFC 7541 5.2), and so it seems to go on.
        let next = (bits | u64::MAX.checked_shr(held).unwrap_or(0)) >> 32;
        let (length, _) = ENDS.into_iter().find(|(_, end)| next < *end)?;
        if length > held {
            return Some((count, has_hash));
        }
        if length == END.1 && next >> (32 - END.1) == END.0 {
            return None;
        }
        count += 1;
        has_hash |= length == HASH.1 && next >> (32 - HASH.1) == HASH.0;
        bits <<= length;
        held -= length;
    }
}

/// A number whose first bits are the low `prefix` bits of the next byte (RFC 7541 5.1).
fn number(block: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, rest) = block.split_first()?;
    *block = rest;
    let all = (1_u8 << prefix) - 1;
    let mut value = usize::from(first & all);
    if value < usize::from(all) {
        return Some(value);
    }
    for position in 0..NUMBER_BYTES_MAX {
        let (byte, rest) = block.split_first()?;
        *block = rest;
        value += usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..][..2], 16).unwrap()).collect()
    }

    /// RFC 7541 C.3 and C.4: three requests of one connection, as they are and in Huffman's code.
    #[test]
    fn the_examples_of_the_standard_have_their_sizes() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, coded] {
            let mut reader = Reader::default();
            // The sizes of the table are the standard's; those of the lists are of the fields that it names.
            for (block, fields, list, table) in [(blocks[0], 4, 180, 57), (blocks[1], 5, 233, 110), (blocks[2], 5, 245, 164)] {
                let found = reader.read(&bytes(block)).map(|it| (it.fields, it.bytes, it.has_pseudo, it.has_fragment));
                assert_eq!(found, Some((fields, list, true, false)), "{block}");
                assert_eq!(reader.table_bytes, table, "{block}");
            }
        }
    }

    /// RFC 7541 C.6.1 to C.6.3, in a table of 256 bytes.
    #[test]
    fn what_does_not_fit_leaves_the_table() {
        let mut reader = Reader::default();
        assert_eq!(reader.read(&bytes("3f e1 01")), Some(Outline::default()));
        let answers = [
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                222,
                4,
            ),
            ("4883 640e ffc1 c0bf", 222, 4),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                215,
                3,
            ),
        ];
        for (block, table, entries) in answers {
            reader.read(&bytes(block)).unwrap();
            assert_eq!((reader.table_bytes, reader.table.len()), (table, entries));
        }
        // Larger than the table, and a table of nothing.
        reader.read(&[&[0x40, 1, b'x', 0x7f, 0x81, 1][..], &[b'y'; 256]].concat()).unwrap();
        assert_eq!((reader.table_bytes, reader.table.len()), (0, 0));
        reader.read(&bytes("20 40 01 78 01 79")).unwrap();
        assert_eq!(reader.table.len(), 0);
    }

    #[test]
    fn pseudo_fields_and_fragments_are_found_however_they_are_written() {
        let mut reader = Reader::default();
        let mut has = |block: &str| reader.read(&bytes(block)).map(|outline| (outline.has_pseudo, outline.has_fragment));
        // `/a#b` after an index, as it is and coded; after `:path` as it is and coded.
        for block in ["04 04 2f612362", "04 84 607f f51f", "00 05 3a70617468 04 2f612362", "00 84 b958d33f 84 607ff51f"] {
            assert_eq!(has(block), Some((true, true)), "{block}");
        }
        // `#` elsewhere, and none.
        assert_eq!(has("01 04 2f612362"), Some((true, false)));
        assert_eq!(has("00 01 78 04 2f612362"), Some((false, false)));
        assert_eq!(has("04 01 2f"), Some((true, false)));
        assert_eq!(has("00 05 7061746833 01 23"), Some((false, false)));
        // Once in the table, by its index alone.
        assert_eq!(has("44 04 2f612362"), Some((true, true)));
        assert_eq!(has("be"), Some((true, true)));
        // Its name with another value.
        assert_eq!(has("0f 2f 01 2f"), Some((true, false)));
    }

    #[test]
    fn the_order_of_fields_is_told() {
        let is_disordered = |block: &str| Reader::default().read(&bytes(block)).map(|outline| outline.is_disordered);
        assert_eq!(is_disordered("82 84 00 01 78 01 79"), Some(false));
        assert_eq!(is_disordered("82 00 01 78 01 79 84"), Some(true));
    }

    #[test]
    fn what_is_no_block_is_told() {
        for block in [
            "80",
            "ff ff ff ff ff 0f",
            "be",
            "3f e2 1f",
            "00 02 78",
            "00",
            "40 01",
            "00 01 78 84 ff ff ff ff",
            "ff",
            "40 00 01 79",
            "00 80 00",
        ] {
            assert_eq!(Reader::default().read(&bytes(block)), None, "{block}");
        }
        assert_eq!(Reader::default().read(&bytes("3f e1 1f")), Some(Outline::default()));
    }

    #[test]
    fn the_code_is_whole() {
        assert_eq!(ENDS[ENDS.len() - 1], (30, 1 << 32));
        assert_eq!(SYMBOLS.iter().map(|(_, count)| count).sum::<u64>(), 257);
    }
}
