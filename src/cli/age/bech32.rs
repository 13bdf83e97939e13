//! Bech32, which age writes its keys in: a word for what it is, `1`, the bytes five bits a letter, a checksum.
//!
//! Source: BIP 173, without its limit of 90 letters, as age has it.

const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
const CHECKSUM_LETTERS: usize = 6;

/// The word in lower case, and the bytes. `None` for anything else, a mistyped letter or two included.
pub fn decode(text: &str) -> Option<(String, Vec<u8>)> {
    let is_mixed = text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().any(|byte| byte.is_ascii_uppercase());
    let text = text.to_ascii_lowercase();
    let (word, data) = text.rsplit_once('1')?;
    if is_mixed || word.is_empty() || data.len() < CHECKSUM_LETTERS {
        return None;
    }
    let find = |byte: u8| LETTERS.iter().position(|letter| *letter == byte).map(|at| at as u8);
    let values: Vec<u8> = data.bytes().map(find).collect::<Option<_>>()?;
    if checksum(word, &values) != 1 {
        return None;
    }
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0, 0_u32);
    for value in &values[..values.len() - CHECKSUM_LETTERS] {
        held = (held << 5 | u32::from(*value)) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    // Less than a letter is left, and nothing is in it.
    (bits < 5 && held & ((1 << bits) - 1) == 0).then(|| (word.to_owned(), bytes))
}

fn checksum(word: &str, values: &[u8]) -> u32 {
    let high = word.bytes().map(|byte| byte >> 5);
    let low = word.bytes().map(|byte| byte & 31);
    let all = high.chain([0]).chain(low).chain(values.iter().copied());
    all.fold(1, |sum, value| {
        let top = sum >> 25;
        let next = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        GENERATOR.iter().enumerate().fold(next, |next, (bit, term)| match top >> bit & 1 {
            1 => next ^ term,
            _ => next,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// age's own example, and BIP 173's.
    #[test]
    fn keys_are_read_and_mistakes_seen() {
        let key = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
        let (word, bytes) = decode(key).unwrap();
        assert_eq!((word.as_str(), bytes.len()), ("age", 32));
        assert_eq!(decode(&key.to_ascii_uppercase()).unwrap().1, bytes);
        assert!(decode("A12UEL5L").unwrap().1.is_empty());
        for wrong in [
            "",
            "age1",
            "age1q",
            "1qqqqqqqq",
            "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwk",
            "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujw",
            "Age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
            "agé1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
        ] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }
}
