//! What a model on the hub has: a function of the hub's file list.

use serde::Deserialize;

use super::super::checkpoint::SENTENCE_CONFIGS;
use super::super::export::PLACES;
use super::HubError;
use super::checksum::Digest;

/// Small files that say how a model is used; taken where they are, beside those of [`SENTENCE_CONFIGS`].
const DESCRIPTIONS: [&str; 8] = [
    CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "modules.json",
    "config_sentence_transformers.json",
    "README.md",
];

/// What the model is, and with it which of its weights are fetched.
pub(super) const CONFIG: &str = "config.json";

/// Weights that can be compiled, if the encoder can.
pub(super) const SAFETENSORS: &str = "model.safetensors";

/// Weights that are recognised and not read, by a file that shows them.
const UNREADABLE: [(&str, &str); 6] = [
    ("model.safetensors.index.json", "safetensors in several shards (`model.safetensors.index.json`)"),
    ("pytorch_model.bin", "a pickle (`pytorch_model.bin`)"),
    ("pytorch_model.bin.index.json", "pickles in several shards (`pytorch_model.bin.index.json`)"),
    ("tf_model.h5", "TensorFlow weights (`tf_model.h5`)"),
    ("flax_model.msgpack", "Flax weights (`flax_model.msgpack`)"),
    ("openvino/openvino_model.xml", "an OpenVINO export (`openvino/openvino_model.xml`)"),
];

/// The answer of `/api/models/{id}/revision/{revision}?blobs=true`, as far as it is used.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<LargeFile>,
}

#[derive(Debug, Deserialize)]
struct LargeFile {
    sha256: String,
    size: u64,
}

/// A file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// Path within the model, checked: relative, plain components only.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// What the bytes must hash to, where the hub says so.
    pub digest: Option<Digest>,
}

impl Listing {
    /// Reads the hub's answer for model `id`.
    pub fn parse(id: &str, body: &[u8]) -> Result<Self, HubError> {
        let refuse = |reason| HubError::Listing { id: id.to_owned(), reason };
        let listing: Self = serde_json::from_slice(body).map_err(|error| refuse(error.to_string()))?;
        // It becomes a directory's name and a part of addresses, so nothing but a commit will do.
        if !matches!(listing.sha.len(), 40 | 64) || !listing.sha.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Err(refuse(format!("its commit is {:?}", listing.sha)));
        }
        Ok(listing)
    }

    /// The commit, in lower-case hexadecimal.
    pub fn commit(&self) -> String {
        self.sha.to_ascii_lowercase()
    }

    /// The small files an import needs, config.json first.
    ///
    /// # Errors
    /// If any name in the list is unsafe, also that of a file not needed: such a model is not to be trusted. If one that
    /// every import needs is missing, or there are weights in no readable form: before anything is fetched.
    pub fn descriptions(&self, id: &str, onnx_file: Option<&str>) -> Result<Vec<RemoteFile>, HubError> {
        let owned = || id.to_owned();
        if let Some(bad) = self.siblings.iter().find(|sibling| !is_safe(&sibling.rfilename)) {
            return Err(HubError::FileName { id: owned(), name: bad.rfilename.clone() });
        }
        let help = "a model saved by transformers or sentence-transformers with a fast tokenizer has it";
        let config = self.file(id, CONFIG, help)?;
        self.file(id, "tokenizer.json", help)?;
        let no_export = |file: &str| {
            let (id, file, others) = (owned(), file.to_owned(), self.exports());
            Err(HubError::NoSuchExport { id, file, others })
        };
        if let Some(named) = onnx_file.filter(|named| !self.has(named)) {
            return no_export(named);
        }
        if onnx_file.is_none() && !self.has(SAFETENSORS) && self.graph().is_none() {
            if !self.exports().is_empty() {
                return no_export("onnx/model.onnx");
            }
            return Err(match UNREADABLE.iter().find(|(file, _)| self.has(file)) {
                Some((_, found)) => HubError::Weights { id: owned(), found },
                None => HubError::Missing {
                    id: owned(),
                    file: SAFETENSORS.to_owned(),
                    help: "nor a `model.onnx` or `onnx/model.onnx`; is it a model that makes embeddings?",
                },
            });
        }
        let described = self.siblings.iter().filter(|Sibling { rfilename: name, .. }| {
            let known = DESCRIPTIONS.contains(&name.as_str()) || SENTENCE_CONFIGS.contains(&name.as_str());
            name != CONFIG && (known || is_module_config(name))
        });
        let described = described.map(|sibling| sibling.to_file(id));
        std::iter::once(Ok(config)).chain(described).collect()
    }

    /// Whether the model has a file.
    pub fn has(&self, name: &str) -> bool {
        self.siblings.iter().any(|sibling| sibling.rfilename == name)
    }

    /// The names of its ONNX files, for a message.
    fn exports(&self) -> String {
        let names = self.siblings.iter().map(|sibling| sibling.rfilename.as_str());
        names.filter(|name| name.ends_with(".onnx")).collect::<Vec<_>>().join(", ")
    }

    /// The ONNX export that an import takes over, if the model has one.
    pub fn graph(&self) -> Option<&'static str> {
        PLACES.into_iter().find(|name| self.has(name))
    }

    /// A file, which is missing if it is not there; `help` says then what would work.
    pub fn file(&self, id: &str, name: &str, help: &'static str) -> Result<RemoteFile, HubError> {
        let found = self.siblings.iter().find(|sibling| sibling.rfilename == name);
        let missing = || HubError::Missing { id: id.to_owned(), file: name.to_owned(), help };
        found.ok_or_else(missing)?.to_file(id)
    }
}

impl Sibling {
    fn to_file(&self, id: &str) -> Result<RemoteFile, HubError> {
        let refuse = |reason| HubError::Listing { id: id.to_owned(), reason };
        let name = &self.rfilename;
        let (size, digest) = match &self.lfs {
            // The blob id of such a file is that of its pointer, not of its bytes.
            Some(large) => (Some(large.size), Some((large.sha256.as_str(), Digest::sha256(&large.sha256)))),
            None => (self.size, self.blob_id.as_ref().map(|blob| (blob.as_str(), Digest::git_blob(blob)))),
        };
        let size = size.ok_or_else(|| refuse(format!("it has no size for `{name}`")))?;
        let digest = match digest {
            None => None,
            Some((_, Some(digest))) => Some(digest),
            Some((text, None)) => return Err(refuse(format!("the digest of `{name}` is {text:?}"))),
        };
        Ok(RemoteFile { name: name.clone(), size, digest })
    }
}

/// Whether a name stays below the directory it is joined to, on every system, and can be shown on a terminal.
fn is_safe(name: &str) -> bool {
    !name.contains('\\')
        && !name.contains(char::is_control)
        && name.split('/').all(|component| !matches!(component, "" | "." | ".."))
        // `C:x` is a path of its own on Windows.
        && name.as_bytes().get(1) != Some(&b':')
}

/// `1_Pooling/config.json` and the like: the settings of a sentence-transformers module.
fn is_module_config(name: &str) -> bool {
    let Some((number, module)) = name.strip_suffix("/config.json").and_then(|folder| folder.split_once('_'))
    else {
        return false;
    };
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && !module.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn listing(names: &[&str]) -> Listing {
        let siblings: Vec<_> = names
            .iter()
            .map(|name| serde_json::json!({ "rfilename": name, "size": 1, "blobId": COMMIT }))
            .collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings, "unknown": 1 }).to_string();
        Listing::parse("o/n", body.as_bytes()).unwrap()
    }

    fn descriptions(names: &[&str]) -> Result<Vec<String>, HubError> {
        let files = listing(names).descriptions("o/n", None)?;
        Ok(files.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn only_what_an_import_needs_is_wanted() {
        let all = [
            ".gitattributes",
            "1_Pooling/config.json",
            "2_Dense/pytorch_model.bin",
            "README.md",
            "config.json",
            "model.safetensors",
            "modules.json",
            "onnx/model.onnx",
            "onnx/config.json",
            "pytorch_model.bin",
            "sentence_roberta_config.json",
            "tokenizer.json",
            "vocab.txt",
            "x_Pooling/config.json",
            "1_a/b/config.json",
        ];
        let needed = [
            "config.json",
            "1_Pooling/config.json",
            "README.md",
            "modules.json",
            "sentence_roberta_config.json",
            "tokenizer.json",
        ];
        assert_eq!(descriptions(&all).unwrap(), needed);
    }

    #[test]
    fn the_export_is_the_one_that_a_directory_import_takes() {
        assert_eq!(listing(&["onnx/model.onnx", "model.onnx"]).graph(), Some("model.onnx"));
        assert_eq!(listing(&["onnx/model.onnx", "onnx/other.onnx"]).graph(), Some("onnx/model.onnx"));
        assert_eq!(listing(&["onnx/other.onnx"]).graph(), None);
        // Shards and pickles do not matter beside something readable.
        assert!(
            descriptions(&["config.json", "tokenizer.json", "model.safetensors.index.json", "model.onnx"])
                .is_ok()
        );
    }

    #[test]
    fn what_cannot_be_imported_is_refused_by_name() {
        let refusal = |more| descriptions(&["config.json", "tokenizer.json", more]).unwrap_err().to_string();
        assert!(refusal("model.safetensors.index.json").contains("several shards"));
        assert!(refusal("pytorch_model.bin").contains("a pickle"));
        assert!(refusal("model.gguf").contains("no `model.safetensors`"));
        for missing in ["config.json", "tokenizer.json"] {
            let others = ["config.json", "tokenizer.json", "model.safetensors"];
            let others: Vec<_> = others.into_iter().filter(|name| *name != missing).collect();
            let refusal = descriptions(&others).unwrap_err().to_string();
            assert!(refusal.contains(&format!("has no `{missing}`")), "{refusal}");
        }
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in
            ["../x", "a/../../x", "/etc/x", "a//b", "", ".", "a\\..\\b", "C:x", "a\0b", "a\u{1b}[2Jb", "a/"]
        {
            let refused = descriptions(&["config.json", "tokenizer.json", "model.safetensors", name]);
            assert!(matches!(refused, Err(HubError::FileName { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_list_without_commit_size_or_digest_is_refused() {
        let parse = |body: serde_json::Value| {
            Listing::parse("o/n", body.to_string().as_bytes()).and_then(|listing| {
                listing.descriptions("o/n", None)?;
                listing.file("o/n", SAFETENSORS, "")
            })
        };
        let list = |file: serde_json::Value| {
            let name = |name| serde_json::json!({ "rfilename": name, "size": 1 });
            serde_json::json!({ "sha": COMMIT, "siblings": [name("config.json"), name("tokenizer.json"), file] })
        };
        assert!(parse(serde_json::json!({ "sha": "../../x", "siblings": [] })).is_err());
        assert!(parse(serde_json::json!({ "error": "no" })).is_err());
        assert!(parse(list(serde_json::json!({ "rfilename": "model.safetensors" }))).is_err());
        let large = |sha256: &str| serde_json::json!({ "rfilename": "model.safetensors", "lfs": { "sha256": sha256, "size": 3 } });
        assert!(parse(list(large("abc"))).is_err());
        assert_eq!(parse(list(large(&"ab".repeat(32)))).unwrap().digest, Some(Digest::Sha256([0xab; 32])));
    }
}
