//! Texts that are hard to tokenize and to cut, the same in every run.

use fastrand::Rng;

/// Literals of special tokens, of several tokenizers.
const SPECIAL: [&str; 10] =
    ["[CLS]", "[SEP]", "[MASK]", "[UNK]", "[cls]", "<s>", "</s>", "<mask>", "<|endoftext|>", "<|im_start|>"];

/// White space, and what is white space to some and not to others.
const SPACES: [char; 14] = [
    ' ', ' ', ' ', '\t', '\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{a0}', '\u{2003}', '\u{2028}',
    '\u{3000}', '\u{2581}',
];

/// Characters without a width or with an effect on their neighbours: joiners, marks of direction, of order, a soft hyphen, signs that belong to
/// the number behind them.
const INVISIBLE: [char; 12] = [
    '\u{200b}',
    '\u{200c}',
    '\u{200d}',
    '\u{2060}',
    '\u{feff}',
    '\u{ad}',
    '\u{202e}',
    '\u{600}',
    '\u{6dd}',
    '\u{d4e}',
    '\u{110bd}',
    '\u{fffd}',
];

const EMOJI: [&str; 8] = [
    "\u{1f680}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}\u{1f466}",
    "\u{1f44d}\u{1f3fd}",
    "\u{1f1eb}\u{1f1f7}",
    "\u{1f1e9}",
    "1\u{fe0f}\u{20e3}",
    "\u{2764}\u{fe0f}\u{200d}\u{1f525}",
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}",
];

/// A text of about `length` characters.
pub fn text(seed: u64, length: usize) -> String {
    let mut rng = Rng::with_seed(seed);
    let mut text = String::new();
    // A text of one kind throughout, or of many.
    let alone = rng.u8(..4) == 0;
    let only = rng.usize(..KINDS.len());
    while text.chars().count() < length {
        let kind = if alone { only } else { rng.usize(..KINDS.len()) };
        let left = length.saturating_sub(text.chars().count()).max(1);
        text += &KINDS[kind](&mut rng, left);
        match rng.u8(..4) {
            0 => {}
            1 => text += &spaces(&mut rng, 4),
            _ => text.push(' '),
        }
    }
    text
}

/// What a text is made of: each gives at most so many characters, or a few more.
const KINDS: [fn(&mut Rng, usize) -> String; 15] = [
    prose,
    prose,
    word,
    |rng, most| of("0123456789abcdef", rng, most),
    |rng, most| of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", rng, most) + "==",
    url,
    json,
    xml,
    |rng, most| within(rng, most, '\u{4e00}', '\u{9fff}'),
    |rng, most| within(rng, most, '\u{ac00}', '\u{d7a3}'),
    |rng, most| (0..rng.usize(1..=most.min(40))).map(|_| *rng.choice(EMOJI.iter()).unwrap()).collect(),
    marks,
    |rng, most| between(rng, most, &INVISIBLE),
    |rng, most| between(rng, most, &['\0', '\u{1}', '\u{1b}', '\u{7f}', '\u{85}', '\u{9f}']),
    special,
];

/// Words of one to eight letters with a space between them, some with accents or a sign.
fn prose(rng: &mut Rng, most: usize) -> String {
    const WORDS: [&str; 12] = [
        "the",
        "river",
        "a",
        "caf\u{e9}",
        "of",
        "House",
        "runs,",
        "don't",
        "12",
        "x",
        "stra\u{df}e",
        "over.",
    ];
    let count = rng.usize(1..=(most / 5).clamp(1, 200));
    let words: Vec<&str> = (0..count).map(|_| *rng.choice(WORDS.iter()).unwrap()).collect();
    words.join(" ")
}

/// One word of up to 5,000 letters.
fn word(rng: &mut Rng, most: usize) -> String {
    let most = [3, 20, 99, 100, 101, 5000][rng.usize(..6)].min(most);
    of("abcdefghijklmnopqrstuvwxyzE", rng, most)
}

fn of(letters: &str, rng: &mut Rng, most: usize) -> String {
    let length = rng.usize(1..=most.min(5000));
    (0..length).map(|_| char::from(letters.as_bytes()[rng.usize(..letters.len())])).collect()
}

fn url(rng: &mut Rng, most: usize) -> String {
    let path = of("abcdefghij0123456789-_/%", rng, most.min(200));
    format!("https://example.com/{path}?q={}&lang=fr#{}", of("abc+%20", rng, 30), of("xyz", rng, 5))
}

fn json(rng: &mut Rng, most: usize) -> String {
    let count = rng.usize(1..=(most / 140).clamp(1, 30));
    let fields: Vec<String> =
        (0..count).map(|key| format!("\"{key}\":\"{}\"", of("0123456789abcdef", rng, 128))).collect();
    format!("{{{}}}", fields.join(","))
}

fn xml(rng: &mut Rng, most: usize) -> String {
    let count = rng.usize(1..=(most / 80).clamp(1, 30));
    (0..count).map(|_| format!("<d><h a=\"1\">{}</h></d>", of("0123456789abcdef", rng, 64))).collect()
}

fn within(rng: &mut Rng, most: usize, first: char, last: char) -> String {
    (0..rng.usize(1..=most.min(1000))).map(|_| rng.char(first..=last)).collect()
}

/// Letters under up to thirty marks each, composed and decomposed.
fn marks(rng: &mut Rng, most: usize) -> String {
    let mut text = String::new();
    for _ in 0..rng.usize(1..=(most / 8).clamp(1, 60)) {
        text.push(*rng.choice(['a', 'e', 'o', '\u{e9}', '\u{915}', ' ', '1'].iter()).unwrap());
        let stack = if rng.u8(..8) == 0 { 30 } else { 2 };
        text.extend((0..rng.usize(..=stack)).map(|_| rng.char('\u{300}'..='\u{36f}')));
    }
    text
}

/// Letters and words with such characters before, in and behind them.
fn between(rng: &mut Rng, most: usize, characters: &[char]) -> String {
    let mut text = String::new();
    for _ in 0..rng.usize(1..=(most / 6).clamp(1, 100)) {
        text += &of("abcdez1 ", rng, 6);
        text.push(*rng.choice(characters.iter()).unwrap());
    }
    text
}

fn special(rng: &mut Rng, most: usize) -> String {
    let mut text = String::new();
    for _ in 0..rng.usize(1..=(most / 12).clamp(1, 20)) {
        text += &spaces(rng, 2);
        text += rng.choice(SPECIAL.iter()).unwrap();
        text += &spaces(rng, 2);
        text += &of("abc", rng, 3);
    }
    text
}

fn spaces(rng: &mut Rng, most: usize) -> String {
    (0..rng.usize(..=most)).map(|_| *rng.choice(SPACES.iter()).unwrap()).collect()
}
