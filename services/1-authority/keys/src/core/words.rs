//! The root seed as 24 words: BIP-39's English list, 256 bits and the first byte of their SHA-256.
//!
//! The list alone is the crate's; words are put together here, so that no copy of the phrase is left behind. What is
//! refused is named by its position, never by what was typed.

use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::derive::SEED_BYTES;

pub const WORDS: usize = 24;
/// Words have at most eight letters; this leaves room for as much white space again.
pub const WORDS_TEXT_BYTES_MAX: usize = 1024;
const BITS: usize = 11;
/// Words in one line of the page.
const COLUMNS: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WordsError {
    #[error("{0} words were given, a phrase has {WORDS}")]
    Count(usize),
    #[error("word {0} is not in the list (BIP-39, English)")]
    Unknown(usize),
    #[error(
        "every word is in the list, but the checksum is wrong: a word is another one, or two are swapped"
    )]
    Checksum,
    #[error("more than {WORDS_TEXT_BYTES_MAX} bytes are no phrase")]
    TooLong,
}

fn list() -> &'static [&'static str; 2048] {
    bip39::Language::English.word_list()
}

fn with_checksum(seed: &[u8; SEED_BYTES]) -> Zeroizing<[u8; SEED_BYTES + 1]> {
    let mut bytes = Zeroizing::new([0; SEED_BYTES + 1]);
    let mut hash = Sha256::digest(seed);
    bytes.iter_mut().zip(seed.iter().chain(&hash)).for_each(|(to, from)| *to = *from);
    hash.as_mut_slice().zeroize();
    bytes
}

/// Writes the phrase as a page for people into `out`; how many bytes that is. None if it does not fit.
pub(crate) fn page(seed: &[u8; SEED_BYTES], out: &mut [u8]) -> Option<usize> {
    let bytes = with_checksum(seed);
    let mut at = 0_usize;
    let mut put = |text: &[u8]| -> Option<()> {
        out.get_mut(at..at.checked_add(text.len())?)?.copy_from_slice(text);
        at = at.saturating_add(text.len());
        Some(())
    };
    for place in 0..WORDS {
        let first = place * BITS;
        let bit = |bit: usize| bytes.get(bit / 8).map_or(0, |byte| usize::from(byte >> (7 - bit % 8) & 1));
        let index = (first..first + BITS).fold(0, |index, at| index << 1 | bit(at));
        let word = list().get(index)?;
        let [tens, units] = [(place + 1) / 10, (place + 1) % 10].map(|digit| b'0' + digit as u8);
        put(&[b' ', if tens == b'0' { b' ' } else { tens }, units, b' '])?;
        put(word.as_bytes())?;
        if (place + 1).is_multiple_of(COLUMNS) {
            put(b"\n")?;
        } else {
            (word.len()..10).try_for_each(|_| put(b" "))?;
        }
    }
    Some(at)
}

/// True once nothing more has to be read: an empty line, or as many words as there are in a phrase.
pub(crate) fn is_whole(text: &[u8]) -> bool {
    let enough = || text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count() >= WORDS;
    text.ends_with(b"\n\n") || text.ends_with(b"\n") && enough()
}

/// The seed of a phrase; `seed` is all zero after a refusal.
pub(crate) fn seed(text: &[u8], seed: &mut [u8; SEED_BYTES]) -> Result<(), WordsError> {
    let mut bytes = Zeroizing::new([0_u8; SEED_BYTES + 1]);
    let result = decode(text, &mut bytes);
    seed.zeroize();
    result?;
    seed.iter_mut().zip(bytes.iter()).for_each(|(to, from)| *to = *from);
    if with_checksum(seed).last() != bytes.last() {
        seed.zeroize();
        return Err(WordsError::Checksum);
    }
    Ok(())
}

fn decode(text: &[u8], bytes: &mut [u8; SEED_BYTES + 1]) -> Result<(), WordsError> {
    if text.len() > WORDS_TEXT_BYTES_MAX {
        return Err(WordsError::TooLong);
    }
    let words = || text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    if words().count() != WORDS {
        return Err(WordsError::Count(words().count()));
    }
    for (place, word) in words().enumerate() {
        let order = |known: &&str| {
            let typed = word.iter().map(u8::to_ascii_lowercase);
            known.bytes().cmp(typed)
        };
        let index = list().binary_search_by(order).map_err(|_| WordsError::Unknown(place + 1))?;
        for bit in (0..BITS).filter(|bit| index >> (BITS - 1 - bit) & 1 == 1) {
            let at = place * BITS + bit;
            bytes.get_mut(at / 8).into_iter().for_each(|byte| *byte |= 1 << (7 - at % 8));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn phrase(bytes: &[u8; SEED_BYTES]) -> String {
        let mut out = [0; WORDS_TEXT_BYTES_MAX];
        let length = page(bytes, &mut out).unwrap();
        let text = String::from_utf8(out[..length].to_vec()).unwrap();
        assert_eq!(text.lines().count(), WORDS / COLUMNS);
        let words: Vec<&str> = text.split_whitespace().collect();
        let numbers: Vec<usize> = words.iter().step_by(2).map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers, (1..=WORDS).collect::<Vec<_>>());
        words.into_iter().skip(1).step_by(2).collect::<Vec<_>>().join(" ")
    }

    fn read(text: &str) -> Result<[u8; SEED_BYTES], WordsError> {
        let mut bytes = [9; SEED_BYTES];
        let read = seed(text.as_bytes(), &mut bytes);
        assert!(read.is_ok() || bytes == [0; SEED_BYTES]);
        read.map(|()| bytes)
    }

    // From the test vectors that BIP-39 names (256 bits of 00, 7f, 80 and ff).
    const VECTORS: [(u8, &str, &str); 4] = [
        (0x00, "abandon", "art"),
        (0x7f, "legal winner thank year wave sausage worth useful", "title"),
        (0x80, "letter advice cage absurd amount doctor acoustic avoid", "bless"),
        (0xff, "zoo", "vote"),
    ];

    #[test]
    fn phrases_are_those_of_the_published_vectors() {
        for (byte, first, last) in VECTORS {
            let found = phrase(&[byte; SEED_BYTES]);
            let words: Vec<&str> = first.split(' ').cycle().take(WORDS - 1).chain([last]).collect();
            assert_eq!(found, words.join(" "));
            assert_eq!(read(&found), Ok([byte; SEED_BYTES]));
        }
        assert!(list().is_sorted(), "it is searched by halves");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_position_and_never_repeated() {
        let good = phrase(&[0x7f; SEED_BYTES]);
        let words: Vec<&str> = good.split(' ').collect();
        let with = |place: usize, word: &'static str| {
            let mut words = words.clone();
            words[place] = word;
            words.join(" ")
        };
        for (text, expected) in [
            (words[..23].join(" "), WordsError::Count(23)),
            (format!("{good} zoo"), WordsError::Count(25)),
            (String::new(), WordsError::Count(0)),
            (with(0, "bitcoins"), WordsError::Unknown(1)),
            (with(23, "lega"), WordsError::Unknown(24)),
            (with(12, "\u{3}"), WordsError::Unknown(13)),
            (with(7, "zoo"), WordsError::Checksum),
            ("x".repeat(WORDS_TEXT_BYTES_MAX + 1), WordsError::TooLong),
            ("x".repeat(WORDS_TEXT_BYTES_MAX), WordsError::Count(1)),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!(error, expected);
            assert!(!words.iter().any(|word| word.len() > 5 && error.to_string().contains(word)), "{error}");
        }
        let loose = format!("\n  {}\r\n", good.to_uppercase().replace(' ', "\t \n"));
        assert_eq!(read(&loose), Ok([0x7f; SEED_BYTES]));
        assert!(is_whole(format!("{good}\n").as_bytes()) && is_whole(b"legal\n\n"));
        assert!(!is_whole(good.as_bytes()) && !is_whole(b"legal winner\n"));
    }

    proptest! {
        #[test]
        fn a_phrase_gives_its_seed_again(bytes in any::<[u8; SEED_BYTES]>()) {
            prop_assert_eq!(read(&phrase(&bytes)), Ok(bytes));
        }
    }
}
