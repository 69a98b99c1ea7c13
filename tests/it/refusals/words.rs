//! A value of the wrong type, or of no name that a field takes, is refused in words that name the field, the values that it takes and what came.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::{INFER, check_envelope, works};
use crate::support::app::TestApp;

/// What a field takes, and with it which values are wrong.
#[derive(Clone, Copy)]
enum Takes {
    Bool,
    Number,
    Text,
    Name(&'static str),
    List,
    Object,
    Inputs,
}

use Takes::{Bool, Inputs, List, Name, Number, Object, Text};

/// Values of each type.
fn values() -> [(&'static str, Value); 6] {
    [
        ("bool", json!(true)),
        ("number", json!(7)),
        ("fraction", json!(0.5)),
        ("text", json!("zz")),
        ("list", json!(["zz"])),
        ("object", json!({ "zz": 1 })),
    ]
}

impl Takes {
    /// Whether a value of this type is not wrong by its type.
    fn is(self, kind: &str) -> bool {
        match self {
            Bool => kind == "bool",
            Number => kind == "number",
            Text => kind == "text",
            Name(_) => false,
            List => kind == "list",
            Object => kind == "object",
            Inputs => kind == "text" || kind == "list",
        }
    }

    /// What the refusal says of the values that are taken.
    fn words(self) -> &'static str {
        match self {
            Bool => "must be true or false",
            Number => "must be a whole number",
            Text => "must be a string",
            Name(names) => names,
            List => "must be a list",
            Object => "must be an object",
            Inputs => "must be a ",
        }
    }
}

/// Every field of every route's body, by its path in the body, as the refusal names it.
fn fields() -> Vec<(&'static str, &'static str, Takes)> {
    let openai = "/v1/embeddings";
    let truncate = Name("must be one of `end`, `start`, `error`");
    let input_type = Name("must be `query` or `document`");
    vec![
        (openai, "input", Inputs),
        (openai, "model", Text),
        (openai, "encoding_format", Name("must be `float` or `base64`")),
        (openai, "dimensions", Number),
        (openai, "user", Text),
        (openai, "input_type", input_type),
        (openai, "prompt_name", Text),
        (openai, "truncate", truncate),
        (openai, "ood", Bool),
        (openai, "output_dtype", Name("must be one of `float`, `int8`, `uint8`, `binary`, `ubinary`")),
        ("/embed", "inputs", Inputs),
        ("/embed", "truncate", Bool),
        ("/embed", "truncation_direction", Name("must be one of `")),
        ("/embed", "prompt_name", Text),
        ("/embed", "normalize", Bool),
        ("/embed", "dimensions", Number),
        ("/embed", "model", Text),
        ("/embed", "ood", Bool),
        ("/similarity", "inputs", Object),
        ("/similarity", "inputs.source_sentence", Text),
        ("/similarity", "inputs.sentences", List),
        ("/similarity", "parameters", Object),
        ("/similarity", "parameters.truncate", Bool),
        ("/similarity", "parameters.truncation_direction", Name("must be one of `")),
        ("/similarity", "parameters.prompt_name", Text),
        ("/similarity", "model", Text),
        ("/tokenize", "inputs", Inputs),
        ("/tokenize", "add_special_tokens", Bool),
        ("/tokenize", "prompt_name", Text),
        ("/tokenize", "model", Text),
        ("/decode", "ids", Inputs),
        ("/decode", "skip_special_tokens", Bool),
        ("/decode", "model", Text),
        (INFER, "id", Text),
        (INFER, "parameters", Object),
        (INFER, "parameters.binary_data_output", Bool),
        (INFER, "parameters.dimensions", Number),
        (INFER, "parameters.input_type", input_type),
        (INFER, "parameters.prompt_name", Text),
        (INFER, "parameters.truncate", truncate),
        (INFER, "parameters.user", Text),
        (INFER, "inputs", List),
        (INFER, "inputs[0]", Object),
        (INFER, "inputs[0].name", Text),
        (INFER, "inputs[0].shape", List),
        (INFER, "inputs[0].shape[0]", Number),
        (INFER, "inputs[0].datatype", Text),
        (INFER, "inputs[0].data", List),
        (INFER, "inputs[0].parameters", Object),
        (INFER, "inputs[0].parameters.binary_data_size", Number),
        (INFER, "outputs", List),
        (INFER, "outputs[0]", Object),
        (INFER, "outputs[0].name", Text),
        (INFER, "outputs[0].parameters", Object),
        (INFER, "outputs[0].parameters.binary_data", Bool),
        (INFER, "outputs[0].parameters.classification", Number),
        (INFER, "outputs[0].parameters.shared_memory_region", Text),
        ("/v2/repository/index", "ready", Bool),
    ]
}

/// A body that the route takes, with one field changed.
fn body(path: &str, field: &str, value: Value) -> Value {
    let mut body = match path {
        "/v1/embeddings" => json!({ "model": "tiny", "input": "a" }),
        "/similarity" => {
            json!({ "inputs": { "source_sentence": "a", "sentences": ["b"] }, "parameters": {} })
        }
        "/decode" => json!({ "ids": [5] }),
        "/v2/repository/index" => json!({}),
        INFER => json!({
            "inputs": [{ "name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"], "parameters": {} }],
            "outputs": [{ "name": "embedding", "parameters": {} }],
            "parameters": {},
        }),
        _ => json!({ "inputs": "a" }),
    };
    let mut place = &mut body;
    for part in field.split('.') {
        let (name, index) = part.split_once("[0]").map_or((part, None), |(name, _)| (name, Some(0)));
        place = &mut place[name];
        if let Some(index) = index {
            place = &mut place[index];
        }
    }
    *place = value;
    body
}

fn message(path: &str, answer: &Value) -> String {
    let told = if path.starts_with("/v1") { &answer["error"]["message"] } else { &answer["error"] };
    told.as_str().unwrap().to_owned()
}

fn status(path: &str) -> u16 {
    if path.starts_with("/v") { 400 } else { 422 }
}

#[tokio::test]
async fn a_wrong_type_or_name_in_any_field_is_told_with_what_is_taken_and_what_came() {
    let (app, _) = TestApp::fake().await;
    let mut sent = 0;
    for (path, field, takes) in fields() {
        for (kind, value) in values().into_iter().filter(|(kind, _)| !takes.is(kind)) {
            let answer = app.post(path, body(path, field, value.clone())).await;
            let at = format!("{path} {field} {value}: {}", answer.text());
            assert_eq!(answer.status, status(path), "{at}");
            check_envelope(path, &answer);
            let told = message(path, &answer.json());
            assert!(told.starts_with(&format!("{field}: ")), "{at}");
            assert!(told.contains(takes.words()), "{at}");
            assert!(!told.contains(" at line "), "{at}");
            let came = match kind {
                "text" if matches!(takes, Name(_)) => "\"zz\"",
                "text" => "a string",
                "list" => "a list",
                "object" => "an object",
                _ => &value.to_string(),
            };
            assert!(told.ends_with(&format!(", and is {came}")), "{at}");
            if path.starts_with("/v1") {
                assert_eq!(answer.json()["error"]["param"], field, "{at}");
            }
            sent += 1;
        }
    }
    assert!(sent > 250, "{sent}");
    works(&app).await;
}

#[tokio::test]
async fn half_a_character_is_called_a_lone_surrogate_in_its_field() {
    let (app, _) = TestApp::fake().await;
    let tensor =
        r#"{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a \ud83d b"]}]}"#;
    for (path, body, field) in [
        ("/v1/embeddings", r#"{"model": "tiny", "input": "a \ud83d b"}"#, "input"),
        ("/v1/embeddings", r#"{"model": "tiny", "input": ["a", "\ud83d"]}"#, "input[1]"),
        ("/v1/embeddings", r#"{"model": "tiny", "input": "\ude00"}"#, "input"),
        ("/v1/embeddings", r#"{"model": "\ud83d", "input": "a"}"#, "model"),
        ("/embed", r#"{"inputs": "a \ud83d b"}"#, "inputs"),
        ("/tokenize", r#"{"inputs": ["a \ud83d b"]}"#, "inputs[0]"),
        (INFER, tensor, "inputs[0].data[0]"),
    ] {
        let answer = app.send("POST", path, HeaderMap::new(), body.as_bytes().to_vec()).await;
        assert_eq!(answer.status, status(path), "{path} {body}: {}", answer.text());
        let told = message(path, &answer.json());
        assert!(told.starts_with(&format!("{field}: a lone surrogate at line 1 ")), "{path} {body}: {told}");
        if path.starts_with("/v1") {
            assert_eq!(answer.json()["error"]["param"], field, "{body}");
        }
    }
    works(&app).await;
}
