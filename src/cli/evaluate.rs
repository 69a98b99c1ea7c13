//! `sextant evaluate`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use clap::Args;

use super::arguments::{Models, VersionName};
use super::{Failure, print_line, progress};
use crate::batch::Limits;
use crate::embed::{Embedder, Model, Resources};
use crate::engine::{Runtime, Wanted, topology};
use crate::evaluate;
use crate::metrics::Metrics;

#[derive(Debug, Args)]
pub(super) struct Evaluate {
    /// The version, as minilm@2
    version: VersionName,
    #[command(flatten)]
    models: Models,
    /// Labelled pairs: a CSV file of sentence1,sentence2,score
    #[arg(long, value_name = "FILE")]
    sts: PathBuf,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// The ONNX Runtime library [default: looked for]
    #[arg(long, value_name = "FILE", env = "SEXTANT_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
}

impl Evaluate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let VersionName { model: name, version: number } = self.version;
        let version = format!("{name}@{number}");
        let pairs = evaluate::read_pairs(&self.sts)?;
        let runtime = Runtime::load(self.onnxruntime.as_deref())?;
        let repository = self.models.open()?;
        let spearman = tokio::runtime::Runtime::new()?.block_on(async {
            let manifest = repository.manifest(&name, number).await?;
            let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
            let wanted = Wanted {
                cores,
                sessions: Some(cores.min(topology::MOST_SESSIONS)),
                threads: Some(NonZeroUsize::MIN),
                batch_tokens: NonZeroUsize::new(Limits::default().batch_tokens),
                lone_threads: Some(0),
            };
            let limits = Limits { queue_tokens: usize::MAX, ..Limits::default() };
            let resources =
                Resources { tokenize_threads: cores.get(), max_input_bytes: usize::MAX, cache_bytes: 0 };
            let metrics = Metrics::new()?;
            let model = Model::load(&repository, manifest, runtime, wanted, limits, &metrics).await?;
            let embedder = Embedder::new(vec![model], None, resources)?;
            let bar = progress::bar("Embedding", pairs.len() as u64 * 2, false);
            let figure =
                evaluate::correlation(&embedder, &name, &pairs, &self.sts, |done| bar.set_position(done))
                    .await?;
            bar.finish_and_clear();
            Ok::<_, Failure>(figure)
        })?;
        print_line(&if self.json {
            serde_json::json!({ "version": version, "pairs": pairs.len(), "spearman": spearman }).to_string()
        } else {
            format!("{version}: Spearman {spearman:.4} on {} pairs of {}", pairs.len(), self.sts.display())
        })
    }
}
