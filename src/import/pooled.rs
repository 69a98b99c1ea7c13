//! How an export pools: by its own output for texts, or here, from its token vectors. What the checkpoint says must be what the graph does.

use super::checkpoint::Checkpoint;
use super::facts::Facts;
use super::{ImportError, probe};
use crate::compare::{cosine, length};
use crate::engine::pooling::normalise;
use crate::engine::{Batch, Output, Pooling, Session, Vector};
use crate::tokenize::Tokenizer;

/// Short and long, so that mean, first and last token differ.
const TEXTS: [&str; 3] =
    ["hello", "The tide table hangs beside the door of the harbour office.", "what is 1 + 1?"];

/// The least cosine of a text's vector by the graph to the one that is pooled here of the same token vectors.
const SAME: f64 = 0.9999;
/// The largest difference of their lengths, as a share, where vectors are not normalised.
const SAME_LENGTH: f64 = 1e-3;

/// Where the graph's own vectors of texts come from, for the facts.
const OUTPUT: (&str, &str) = ("the ONNX file", "sentence_embedding");

/// The pooling of the export that `load` makes sessions of: what the checkpoint or the flag says, if the graph does not pool by itself, or does
/// it so; [`Pooling::InGraph`] if the graph pools and neither says how.
///
/// # Errors
/// If the graph pools otherwise than is said, or neither it nor anything else pools.
pub(super) fn settle(
    checkpoint: &Checkpoint,
    tokenizer: &Tokenizer,
    load: &mut impl FnMut(Pooling) -> Result<Session, ImportError>,
    facts: &mut Facts,
) -> Result<Pooling, ImportError> {
    let mut session = load(checkpoint.pooling.unwrap_or(Pooling::Mean))?;
    if !session.pools_inside() {
        return checkpoint.pooling();
    }
    let Some(said) = checkpoint.pooling else {
        facts.took("the graph's own vectors of texts", OUTPUT.0, OUTPUT.1);
        return Ok(Pooling::InGraph);
    };
    if !session.has_token_output() {
        facts.took(
            "the graph's own vectors of texts, not compared: it shows no token vectors",
            OUTPUT.0,
            OUTPUT.1,
        );
        return Ok(said);
    }
    let compared = Compared::of(&mut session, tokenizer)?;
    if compared.agree(said, checkpoint.normalise) {
        facts.took("the graph's own vectors of texts, which are those of that pooling", OUTPUT.0, OUTPUT.1);
        return Ok(said);
    }
    let others = [Pooling::Mean, Pooling::Cls, Pooling::LastToken].into_iter().filter(|other| *other != said);
    let remedy = match others.into_iter().find(|other| compared.agree(*other, checkpoint.normalise)) {
        Some(other) => format!("they are those of --pooling {}", named(other)),
        None if checkpoint.is_declared => "take modules.json away to have the graph's own vectors".to_owned(),
        None => "leave --pooling out to have the graph's own vectors".to_owned(),
    };
    Err(ImportError::Request(format!(
        "the graph's own vectors of texts, its output `sentence_embedding`, are not those of {} pooling{} of its token vectors, which {} asks \
         for: {remedy}",
        named(said),
        if checkpoint.normalise { "" } else { ", not normalised," },
        if checkpoint.is_declared { "the checkpoint" } else { "--pooling" },
    )))
}

/// Vectors of texts by the graph, and the token vectors that it shows of them.
struct Compared {
    pooled: Vec<Vector>,
    tokens: Vec<Vector>,
    /// How many tokens each text has.
    lengths: Vec<usize>,
}

impl Compared {
    fn of(session: &mut Session, tokenizer: &Tokenizer) -> Result<Self, ImportError> {
        let rows = probe::tokenize(tokenizer, &TEXTS)?;
        let lengths = rows.iter().map(|row| row.len()).collect();
        let mut run = |output| session.run(&Batch { rows: rows.clone(), output, ..Batch::default() });
        Ok(Self { pooled: run(Output::Pooled)?, tokens: run(Output::Tokens)?, lengths })
    }

    /// Whether the graph's vectors are those of this pooling: in direction, and in length unless that is lost when they are `normalised`.
    fn agree(&self, pooling: Pooling, normalised: bool) -> bool {
        self.pooled.iter().zip(&self.tokens).zip(&self.lengths).all(|((pooled, tokens), count)| {
            let mut own = pooling.pool(tokens, tokens.len() / count);
            let mut pooled = pooled.clone();
            if normalised {
                normalise(&mut own);
                normalise(&mut pooled);
            }
            let stretched = (length(&pooled) / length(&own) - 1.0).abs();
            own.len() == pooled.len() && cosine(&own, &pooled) >= SAME && stretched <= SAME_LENGTH
        })
    }
}

fn named(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::Cls => "cls",
        Pooling::LastToken => "last_token",
        Pooling::InGraph => "the graph's own",
    }
}
