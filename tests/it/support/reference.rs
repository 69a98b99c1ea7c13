//! A BERT forward pass written down plainly, one row at a time in 64 bits: what a compiled graph must compute.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use super::checkpoint::{EPSILON, HEADS, HIDDEN, TinyCheckpoint, Weight};

type Tokens = Vec<Vec<f64>>;

/// The model of a tiny checkpoint.
pub struct Reference {
    checkpoint: TinyCheckpoint,
    weights: BTreeMap<String, Weight>,
}

impl Reference {
    pub fn new(checkpoint: &TinyCheckpoint) -> Self {
        Self { weights: checkpoint.weights(), checkpoint: checkpoint.clone() }
    }

    /// The vectors of the tokens, `[tokens][HIDDEN]`.
    pub fn tokens(&self, ids: &[u32]) -> Tokens {
        let mut tokens: Tokens = ids.iter().enumerate().map(|(place, id)| self.embed(place, *id)).collect();
        tokens = self.norm("embeddings.LayerNorm", &tokens);
        for layer in 0..self.checkpoint.layers {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let attention = self.attention(&name("attention.self"), &tokens);
            let attention = self.linear(&name("attention.output.dense"), &attention);
            tokens = self.norm(&name("attention.output.LayerNorm"), &sum(&attention, &tokens));
            let mut wide = self.linear(&name("intermediate.dense"), &tokens);
            wide.iter_mut().flatten().for_each(|value| *value = self.activate(*value));
            let narrow = self.linear(&name("output.dense"), &wide);
            tokens = self.norm(&name("output.LayerNorm"), &sum(&narrow, &tokens));
        }
        tokens
    }

    /// The row's vector, scaled to unit length.
    pub fn embedding(&self, ids: &[u32]) -> Vec<f32> {
        let tokens = self.tokens(ids);
        let pooled: Vec<f64> = match self.checkpoint.pooling {
            "cls" => tokens[0].clone(),
            "lasttoken" => tokens[tokens.len() - 1].clone(),
            _ => (0..HIDDEN)
                .map(|c| tokens.iter().map(|token| token[c]).sum::<f64>() / tokens.len() as f64)
                .collect(),
        };
        let norm = pooled.iter().map(|value| value * value).sum::<f64>().sqrt();
        pooled.iter().map(|value| (value / norm) as f32).collect()
    }

    fn embed(&self, place: usize, id: u32) -> Vec<f64> {
        let rows = [
            self.row("embeddings.word_embeddings.weight", id as usize),
            self.row("embeddings.position_embeddings.weight", place + self.checkpoint.first_position()),
            self.row("embeddings.token_type_embeddings.weight", 0),
        ];
        (0..HIDDEN).map(|c| rows.iter().map(|row| f64::from(row[c])).sum()).collect()
    }

    fn row(&self, name: &str, row: usize) -> &[f32] {
        let Weight { shape, values } = &self.weights[name];
        &values[row * shape[1]..(row + 1) * shape[1]]
    }

    fn linear(&self, name: &str, tokens: &Tokens) -> Tokens {
        let (weight, bias) = (format!("{name}.weight"), &self.weights[&format!("{name}.bias")].values);
        let output = |token: &Vec<f64>| {
            let product = |row: usize| -> f64 {
                self.row(&weight, row)
                    .iter()
                    .zip(token)
                    .map(|(weight, value)| f64::from(*weight) * value)
                    .sum()
            };
            bias.iter().enumerate().map(|(row, bias)| product(row) + f64::from(*bias)).collect()
        };
        tokens.iter().map(output).collect()
    }

    fn attention(&self, name: &str, tokens: &Tokens) -> Tokens {
        let [query, key, value] =
            ["query", "key", "value"].map(|part| self.linear(&format!("{name}.{part}"), tokens));
        let width = HIDDEN / HEADS;
        let mut output = vec![vec![0.0; HIDDEN]; tokens.len()];
        for head in 0..HEADS {
            let part = head * width..(head + 1) * width;
            for (query, output) in query.iter().zip(&mut output) {
                let score = |key: &Vec<f64>| {
                    let dot: f64 =
                        query[part.clone()].iter().zip(&key[part.clone()]).map(|(q, k)| q * k).sum();
                    (dot / (width as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = key.iter().map(score).collect();
                let total: f64 = scores.iter().sum();
                for (score, value) in scores.iter().zip(&value) {
                    for channel in part.clone() {
                        output[channel] += score / total * value[channel];
                    }
                }
            }
        }
        output
    }

    fn norm(&self, name: &str, tokens: &Tokens) -> Tokens {
        let (scale, shift) =
            (&self.weights[&format!("{name}.weight")], &self.weights[&format!("{name}.bias")]);
        let normed = |token: &Vec<f64>| {
            let mean = token.iter().sum::<f64>() / HIDDEN as f64;
            let variance = token.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / HIDDEN as f64;
            let unit = token.iter().map(|value| (value - mean) / (variance + EPSILON).sqrt());
            let parts = unit.zip(scale.values.iter().zip(&shift.values));
            parts.map(|(unit, (scale, shift))| unit * f64::from(*scale) + f64::from(*shift)).collect()
        };
        tokens.iter().map(normed).collect()
    }

    fn activate(&self, x: f64) -> f64 {
        match self.checkpoint.activation {
            "gelu" => x * 0.5 * (1.0 + erf(x / 2.0_f64.sqrt())),
            "gelu_new" => x * 0.5 * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
            _ => x.max(0.0),
        }
    }
}

fn sum(left: &Tokens, right: &Tokens) -> Tokens {
    left.iter().zip(right).map(|(l, r)| l.iter().zip(r).map(|(l, r)| l + r).collect()).collect()
}

/// The error function by its power series, good to 1e-9 where it is not 1 to that.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.5 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / PI.sqrt()
}
