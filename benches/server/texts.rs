//! Texts whose token counts follow given distributions, from a seed.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use clap::ValueEnum;
use serde::Serialize;
use sextant::bench::session::Row;
use sextant::tokenize::{Tokenizer, Truncate};

use crate::Result;

/// Distinct texts of a set. More than the 8,192 that 256 requests of 32 keep in flight: of equal texts in flight the
/// server computes one, which would be no fair comparison.
const TEXTS: usize = 12_000;
/// Tokens of the texts that the raw loop runs: about two seconds of it.
const RAW_TOKENS: usize = 24_000;
/// Words to make texts of.
const WORDS: usize = 3_000;

/// A distribution of token counts, special tokens included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// 8 to 24, uniform
    Short,
    /// Log-normal, median 27, 95th percentile 145, at most 256
    Mixed,
    /// 90 to 200, uniform
    Long,
}

impl Kind {
    fn sample(self, random: &mut fastrand::Rng) -> usize {
        match self {
            Self::Short => random.usize(8..=24),
            Self::Long => random.usize(90..=200),
            Self::Mixed => {
                // 1.6449 standard deviations above the median lies the 95th percentile of a normal distribution.
                let sigma = (145.0_f64 / 27.0).ln() / 1.6449;
                // Box and Muller's normal from two uniform numbers.
                let (radius, angle) = ((1.0 - random.f64()).ln() * -2.0, random.f64());
                let normal = radius.sqrt() * (std::f64::consts::TAU * angle).cos();
                // Four tokens are two words: there are texts enough of them.
                ((27.0 * (sigma * normal).exp()).round() as usize).clamp(4, 256)
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "short",
            Self::Mixed => "mixed",
            Self::Long => "long",
        })
    }
}

/// A text, and the ids that the server will make of it.
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) ids: Row,
}

/// Distinct texts in random order.
pub(crate) struct TextSet {
    pub(crate) kind: Kind,
    pub(crate) texts: Vec<Text>,
    raw: usize,
}

/// What became of the distribution.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    kind: Kind,
    texts: usize,
    raw_texts: usize,
    mean: f64,
    median: usize,
    p95: usize,
    max: usize,
}

impl TextSet {
    /// The same texts for the same tokenizer, every time.
    pub(crate) fn generate(kind: Kind, tokenizer: &Tokenizer) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(20_261_123);
        let special = tokenizer.tokenize("a", Truncate::Error)?.ids.len() - 1;
        let words = words(tokenizer, special, &mut random)?;
        let mut seen = HashSet::new();
        let mut texts = Vec::with_capacity(TEXTS);
        while texts.len() < TEXTS {
            let tokens = kind.sample(&mut random);
            let chosen: Vec<&str> =
                (special..tokens).map(|_| words[random.usize(..words.len())].as_str()).collect();
            let text = chosen.join(" ");
            let ids = tokenizer.tokenize(&text, Truncate::Error)?.ids;
            if ids.len() != tokens {
                return Err(format!("`{text}` has {} tokens instead of {tokens}", ids.len()).into());
            }
            if seen.insert(Arc::clone(&ids)) {
                texts.push(Text { text, ids });
            }
        }
        let mut tokens = 0;
        let enough = texts.iter().position(|text| {
            tokens += text.ids.len();
            tokens >= RAW_TOKENS
        });
        let raw = enough.map_or(texts.len(), |last| last + 1);
        Ok(Self { kind, texts, raw })
    }

    /// What the raw loop runs: the first texts, as good a sample as any.
    pub(crate) fn for_raw(&self) -> Vec<Row> {
        self.texts[..self.raw].iter().map(|text| Row::clone(&text.ids)).collect()
    }

    pub(crate) fn mean_tokens(&self) -> f64 {
        self.texts.iter().map(|text| text.ids.len()).sum::<usize>() as f64 / self.texts.len() as f64
    }

    /// A text of median length, and a longest one.
    pub(crate) fn samples(&self) -> [(&'static str, &Text); 2] {
        let mut sorted: Vec<&Text> = self.texts.iter().collect();
        sorted.sort_by_key(|text| text.ids.len());
        [("median", sorted[sorted.len() / 2]), ("longest", sorted[sorted.len() - 1])]
    }

    pub(crate) fn summary(&self) -> Summary {
        let mut lengths: Vec<usize> = self.texts.iter().map(|text| text.ids.len()).collect();
        lengths.sort_unstable();
        let at = |share: f64| lengths[((lengths.len() - 1) as f64 * share).round() as usize];
        Summary {
            kind: self.kind,
            texts: lengths.len(),
            raw_texts: self.raw,
            mean: self.mean_tokens(),
            median: at(0.5),
            p95: at(0.95),
            max: at(1.0),
        }
    }
}

impl fmt::Display for TextSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { kind, texts, mean, median, p95, max, .. } = self.summary();
        write!(f, "{kind}: {texts} texts, tokens: median {median}, p95 {p95}, at most {max}, mean {mean:.1}")
    }
}

/// Words of this vocabulary that are one token each, wherever they stand in a text.
fn words(tokenizer: &Tokenizer, special: usize, random: &mut fastrand::Rng) -> Result<Vec<String>> {
    let mut words = HashSet::new();
    let mut list = Vec::with_capacity(WORDS);
    for _ in 0..WORDS * 50 {
        let id = random.u32(..tokenizer.vocabulary() as u32);
        let word = tokenizer.decode(&[id.into()], true)?.trim().to_owned();
        let plain = word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase());
        if !plain || words.contains(&word) {
            continue;
        }
        // A piece of a word decodes to letters too, and is another token when it stands alone.
        let alone = tokenizer.tokenize(&word, Truncate::Error)?.ids;
        let between = tokenizer.tokenize(&format!("{word} {word} {word}"), Truncate::Error)?.ids;
        if alone.len() == special + 1 && between.len() == special + 3 {
            words.insert(word.clone());
            list.push(word);
        }
        if list.len() == WORDS {
            break;
        }
    }
    if list.len() < 100 { Err("the vocabulary has too few words of one token".into()) } else { Ok(list) }
}
