//! Plain mutations: the same seed gives the same inputs on every machine.

/// Bytes that parsers stumble over.
const TRICKY: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b"\"",
    b"\\",
    b"\\u0034",
    b"'",
    b"$$",
    b"--",
    b"/*",
    b"*/",
    b"{",
    b"}",
    b"[",
    b"]",
    b"@",
    b"0",
    b"-1",
    b"7fffffff",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\x7f\xff\xff\xff",
    b"\x00\x00\x00\x04",
];

/// Inputs do not grow beyond this: parsers see their limits through small ones.
const LARGEST: usize = 64 * 1024;

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `0..limit`, or 0 where there is nothing to choose from.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.roll() % limit as u64) as usize }
    }

    fn choose<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from.get(self.below(from.len())).copied().unwrap_or_default()
    }
}

/// A new input out of an old one and of others to splice from.
pub fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        step(input, others, dice);
    }
    input.truncate(LARGEST);
}

fn step(input: &mut Vec<u8>, others: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(input.len());
    let end = at + dice.below(input.len() - at).min(64);
    match dice.below(9) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = dice.roll().to_le_bytes()[0];
            }
        }
        2 => drop(input.drain(at..end)),
        3 => insert(input, at, dice.choose(TRICKY)),
        4 => {
            let piece = input[at..end].to_vec();
            insert(input, at, &piece.repeat(1 + dice.below(40)));
        }
        5 => input.truncate(at),
        6 => {
            let other = &others[dice.below(others.len())];
            let from = dice.below(other.len());
            insert(input, at, &other[from..]);
        }
        // A length or a count, a little or much too large.
        7 => {
            for (slot, byte) in
                input[at..].iter_mut().zip((dice.roll() >> dice.below(60)).to_be_bytes().into_iter().skip(4))
            {
                *slot = byte;
            }
        }
        _ => {
            let digits = (dice.roll() >> dice.below(64)).to_string();
            insert(input, at, digits.as_bytes());
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}
