//! The files of one checkpoint, in the order in which they decide about each other: config.json says which weights are
//! needed, and a graph says where its own lie.

use std::path::Path;

use serde_json::Value;

use super::super::ImportError;
use super::super::checkpoint::json;
use super::super::encoder::Encoder;
use super::super::export::Export;
use super::super::plan::{NoPlan, Plan, plan};
use super::listing::{CONFIG, Listing, RemoteFile, SAFETENSORS};
use super::request::Subject;
use super::{Hub, HubError, Wanted};

const NO_WEIGHTS: &str = "leave `--graph packed` out to take its ONNX export over";

const NO_GRAPH: &str = "nor an `onnx/model.onnx`; leave `--graph padded` out to compile its weights, or export it to ONNX \
    yourself";

const NO_DATA: &str = "its ONNX graph keeps weights in it; try another `--revision`, or `--graph packed`";

/// A checkpoint on its way from the hub.
pub(super) struct Checkpoint<'a> {
    pub hub: &'a Hub,
    pub id: &'a str,
    pub listing: &'a Listing,
    pub commit: &'a str,
    /// Where its files go.
    pub directory: &'a Path,
}

impl Checkpoint<'_> {
    /// Brings what an import needs: `descriptions`, config.json first, and the weights.
    pub(super) async fn fetch(
        &self,
        descriptions: Vec<RemoteFile>,
        wanted: Wanted<'_>,
        progress: &impl Fn(&str, u64, u64),
    ) -> Result<(), HubError> {
        let mut descriptions = descriptions.into_iter();
        if let Some(config) = descriptions.next() {
            self.bring(&config, progress).await?;
        }
        // A refusal costs one small file; the tokenizer alone may have twenty megabytes.
        let graph = self.graph(wanted)?;
        for file in descriptions {
            self.bring(&file, progress).await?;
        }
        let Some(graph) = graph else {
            return self.bring(&self.listing.file(self.id, SAFETENSORS, NO_WEIGHTS)?, progress).await;
        };
        self.bring(&self.listing.file(self.id, graph, NO_GRAPH)?, progress).await?;
        for name in self.external_data(graph).await? {
            self.bring(&self.listing.file(self.id, &name, NO_DATA)?, progress).await?;
        }
        Ok(())
    }

    /// The graph to take over, or none if the weights are to be compiled.
    fn graph<'a>(&self, wanted: Wanted<'a>) -> Result<Option<&'a str>, HubError> {
        if wanted.onnx_file.is_some() {
            return Ok(wanted.onnx_file);
        }
        let path = self.directory.join(CONFIG);
        let config: Value = json(self.directory, &path).map_err(Box::new)?.unwrap_or_default();
        let missing =
            |file: &str, help| HubError::Missing { id: self.id.to_owned(), file: file.to_owned(), help };
        let (weights, export) = (self.listing.has(SAFETENSORS), self.listing.graph());
        match plan(wanted.graph, Encoder::from_config(&path, &config), weights, export.is_some()) {
            Ok(Plan::Compile(_)) => Ok(None),
            Ok(Plan::TakeOver(_)) => Ok(export),
            Err(NoPlan::Encoder(error)) => Err(Box::new(error).into()),
            Err(NoPlan::NoWeights) => Err(missing(SAFETENSORS, NO_WEIGHTS)),
            Err(NoPlan::NoExport) => Err(missing("model.onnx", NO_GRAPH)),
        }
    }

    /// Names of the files in which `graph`, already here, keeps weights.
    async fn external_data(&self, graph: &str) -> Result<Vec<String>, HubError> {
        let path = self.directory.join(graph);
        // It may have two gigabytes.
        let read = tokio::task::spawn_blocking({
            let path = path.clone();
            move || Export::read(&path)
        });
        let read = read.await.unwrap_or_else(|error| Err(ImportError::malformed(&path, error)));
        let export = read.map_err(Box::new)?;
        let folder = Path::new(graph).parent().map(Path::to_owned).unwrap_or_default();
        Ok(export.weights().map(|file| name(&folder.join(file))).collect())
    }

    async fn bring(&self, file: &RemoteFile, progress: &impl Fn(&str, u64, u64)) -> Result<(), HubError> {
        let &Checkpoint { hub, id, commit, directory, .. } = self;
        let url = hub.url(id.split('/').chain(["resolve", commit]).chain(file.name.split('/')));
        let subject = Subject { id, what: &format!("`{}` of `{id}`", file.name) };
        hub.download(&url, file, &directory.join(&file.name), subject, progress).await
    }
}

/// A path as hubs write it, on every system.
fn name(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}
