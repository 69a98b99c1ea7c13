//! Whether a vector is the same alone and under load, value by value.
//!
//! Alone: the text's ids by themselves on a bare session, brought to unit length. Under load: over HTTP, in requests of
//! several inputs, while other clients keep every batch full and mixed.

use std::fmt;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sextant::bench::{Bounds, Pace};
use sextant::engine::pooling::normalise;

use crate::client::Client;
use crate::server::{Server, TIMEOUT, runtime};
use crate::texts::{Kind, Text};
use crate::{Result, Run};

const CLIENTS: usize = 64;
/// Texts of the requests that are looked at, in turns.
const INPUTS: [usize; 4] = [1, 2, 7, 32];
/// Of these requests.
const AT_ONCE: usize = 8;

/// Vectors alone and under load, value by value
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many vectors are compared
    #[arg(long, default_value_t = 3000)]
    vectors: usize,
}

#[derive(Debug, Serialize)]
struct Row {
    precision: String,
    vectors: usize,
    /// Of any value of any vector.
    largest_difference: f64,
    /// Requests of the other clients meanwhile.
    load: u64,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Figures(Vec<Row>);

pub(crate) fn measure(run: &Run, options: &Options) -> Result<Figures> {
    let mixed = run.texts(Kind::Mixed)?;
    let texts = &mixed.texts[..options.vectors.min(mixed.texts.len())];
    let others = &mixed.texts[texts.len()..];
    let mut rows = Vec::new();
    for model in &run.models {
        let mut bare = run.sessions(&model.version, model.manifest.pooling, 1, 1, false)?;
        let alone = texts.iter().map(|text| bare.alone(&text.ids));
        let mut alone = alone.collect::<std::result::Result<Vec<_>, _>>()?;
        alone.iter_mut().for_each(|vector| normalise(vector));
        let server = Server::start(model, &run.serve)?;
        let pace = Pace::Closed { concurrency: CLIENTS };
        let day = Duration::from_secs(24 * 3600);
        let bounds = Bounds { warmup: Duration::ZERO, duration: day, requests: u64::MAX, timeout: TIMEOUT };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (report, largest) = runtime()?.block_on(async {
            let until = async { drop(stopped.await) };
            let load = server.loaded(server.target()?, others, pace, bounds, until);
            let look = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let largest = compare(&server, &model.precision, texts, &alone).await;
                drop(stop);
                largest
            };
            let (report, largest) = tokio::join!(load, look);
            Ok::<_, Box<dyn std::error::Error>>((report?, largest?))
        })?;
        rows.push(Row {
            precision: model.precision.clone(),
            vectors: texts.len(),
            largest_difference: largest,
            load: report.requests.answered,
        });
    }
    Ok(Figures(rows))
}

/// The largest difference of any value.
async fn compare(server: &Server, model: &str, texts: &[Text], alone: &[Vec<f32>]) -> Result<f64> {
    let client = Client::new(server)?;
    let ask = async |texts: &[Text]| -> Result<Vec<Vec<f32>>> {
        let input: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
        Ok(client.embed(model, &input).await?.1)
    };
    let mut rest = texts;
    let mut requests = Vec::new();
    for size in INPUTS.into_iter().cycle() {
        let (request, others) = rest.split_at(size.min(rest.len()));
        if request.is_empty() {
            break;
        }
        requests.push(request);
        rest = others;
    }
    let (mut largest, mut compared) = (0.0_f64, 0);
    // Some requests at once, so that they share batches with each other too.
    for requests in requests.chunks(AT_ONCE) {
        for vectors in futures_util::future::join_all(requests.iter().map(|request| ask(request))).await {
            for served in vectors? {
                let differences = served.iter().zip(&alone[compared]).map(|(served, alone)| served - alone);
                largest = differences.fold(largest, |largest, by| largest.max(f64::from(by.abs())));
                compared += 1;
            }
        }
    }
    if compared != texts.len() {
        return Err(format!("{compared} vectors came back for {} texts", texts.len()).into());
    }
    Ok(largest)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.0 {
            writeln!(
                f,
                "{}: {} vectors alone and under load ({} other requests) differ by {:.1e} at most",
                row.precision, row.vectors, row.load, row.largest_difference
            )?;
        }
        Ok(())
    }
}
