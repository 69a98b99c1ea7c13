//! Hostile and mistaken input: the right status, the dialect's envelope, and the next request works.

mod words;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sextant::config::Settings;

use crate::support::app::{Answer, TestApp, settings, until};
use crate::support::fake::DIMENSIONS;

const INFER: &str = "/v2/models/tiny/infer";

/// Panics unless the answer is a refusal in its dialect's envelope, with all keys and a message.
fn check_envelope(path: &str, answer: &Answer) {
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(!answer.header("x-request-id").is_empty());
    let body = answer.json();
    if path.starts_with("/v1") {
        let error = body["error"].as_object().unwrap();
        let mut keys: Vec<&str> = error.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "message", "param", "type"], "{path}: {body}");
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    } else {
        assert!(!body["error"].as_str().unwrap().is_empty(), "{path}: {body}");
        let keys = body.as_object().unwrap().len();
        assert_eq!(
            (keys, body["error_type"].is_string()),
            if path.starts_with("/v2") { (1, false) } else { (2, true) }
        );
    }
}

async fn works(app: &TestApp) {
    let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a" })).await;
    assert_eq!(answer.status, 200, "the next request: {}", answer.text());
}

/// `{"model": "tiny", "input": "a"}` with one field changed.
fn openai(field: &str, value: Value) -> Value {
    let mut body = json!({ "model": "tiny", "input": "a" });
    body[field] = value;
    body
}

fn tei(field: &str, value: Value) -> Value {
    let mut body = json!({ "inputs": "a" });
    body[field] = value;
    body
}

#[tokio::test]
async fn every_wrong_value_is_refused_in_its_envelope_and_the_field_is_named() {
    let (app, fake) = TestApp::fake().await;
    let wide = DIMENSIONS + 1;
    // Path, body, status, the field that must be named: in OpenAI's envelope by `param`, in the other before the message.
    let table: Vec<(&str, Value, u16, Option<&str>)> = vec![
        ("/v1/embeddings", json!([]), 400, None),
        // The fields in a list, in the order of the code.
        ("/v1/embeddings", json!(["a", "tiny"]), 400, None),
        ("/embed", json!(["a"]), 422, None),
        ("/similarity", json!({ "inputs": ["a", ["b"]] }), 422, Some("inputs")),
        ("/v1/embeddings", json!({ "model": "tiny" }), 400, None),
        ("/v1/embeddings", json!({ "input": "a" }), 400, None),
        ("/v1/embeddings", openai("input", json!("")), 400, Some("input")),
        ("/v1/embeddings", openai("input", json!(["a", ""])), 400, Some("input")),
        ("/v1/embeddings", openai("input", json!([])), 400, Some("input")),
        ("/v1/embeddings", openai("input", json!([[]])), 400, Some("input[0]")),
        ("/v1/embeddings", openai("input", json!(3)), 400, Some("input")),
        ("/v1/embeddings", openai("input", json!(null)), 400, Some("input")),
        ("/v1/embeddings", openai("input", json!({ "text": "a" })), 400, Some("input")),
        ("/v1/embeddings", openai("input", json!([1.5])), 400, Some("input[0]")),
        ("/v1/embeddings", openai("input", json!([true])), 400, Some("input[0]")),
        ("/v1/embeddings", openai("input", json!(["a", 1])), 400, Some("input")),
        ("/v1/embeddings", openai("input", json!([[[1]]])), 400, Some("input[0][0]")),
        // In range, but not framed by the special tokens.
        ("/v1/embeddings", openai("input", json!([7, 8])), 400, Some("input[0]")),
        ("/v1/embeddings", openai("input", json!([2, 1_000_000, 3])), 400, Some("input[0]")),
        ("/v1/embeddings", openai("input", json!([2, -1, 3])), 400, Some("input[0]")),
        ("/v1/embeddings", openai("input", json!([2, u64::MAX, 3])), 400, Some("input[0]")),
        ("/v1/embeddings", openai("input", json!(vec!["a"; 2049])), 413, Some("input")),
        ("/v1/embeddings", openai("model", json!(7)), 400, Some("model")),
        ("/v1/embeddings", openai("model", json!("other")), 404, Some("model")),
        ("/v1/embeddings", openai("model", json!("tiny@9")), 404, Some("model")),
        ("/v1/embeddings", openai("model", json!("")), 404, Some("model")),
        ("/v1/embeddings", openai("encoding_format", json!("hex")), 400, Some("encoding_format")),
        ("/v1/embeddings", openai("encoding_format", json!(1)), 400, Some("encoding_format")),
        ("/v1/embeddings", openai("dimensions", json!(0)), 400, Some("dimensions")),
        ("/v1/embeddings", openai("dimensions", json!(wide)), 400, Some("dimensions")),
        ("/v1/embeddings", openai("dimensions", json!(-1)), 400, Some("dimensions")),
        ("/v1/embeddings", openai("dimensions", json!(1.5)), 400, Some("dimensions")),
        ("/v1/embeddings", openai("dimensions", json!("8")), 400, Some("dimensions")),
        ("/v1/embeddings", openai("user", json!(1)), 400, Some("user")),
        ("/v1/embeddings", openai("input_type", json!("passage")), 400, Some("input_type")),
        ("/v1/embeddings", openai("input_type", json!(1)), 400, Some("input_type")),
        ("/v1/embeddings", openai("prompt_name", json!(1)), 400, Some("prompt_name")),
        ("/v1/embeddings", openai("truncate", json!("middle")), 400, Some("truncate")),
        ("/v1/embeddings", openai("truncate", json!(true)), 400, Some("truncate")),
        // What is not given is no float either: that would spoil an index.
        ("/v1/embeddings", openai("output_dtype", json!("int4")), 400, Some("output_dtype")),
        ("/v1/embeddings", openai("dimensions", json!(DIMENSIONS - 1)), 400, Some("dimensions")),
        ("/v1/embeddings", openai("input", json!("a".repeat((1 << 20) + 1))), 413, Some("input[0]")),
        ("/tokenize", json!({ "inputs": vec!["a".repeat(1 << 10); 1025] }), 413, None),
        ("/embed", json!({}), 422, None),
        ("/embed", tei("inputs", json!("")), 400, None),
        ("/embed", tei("inputs", json!([])), 400, None),
        ("/embed", tei("inputs", json!(1.5)), 422, Some("inputs")),
        ("/embed", tei("inputs", json!([7, 8])), 422, None),
        ("/embed", tei("inputs", json!([2, 1_000_000, 3])), 422, None),
        ("/embed", tei("inputs", json!(vec!["a"; 2049])), 413, None),
        ("/embed", tei("truncate", json!("yes")), 422, Some("truncate")),
        ("/embed", tei("truncation_direction", json!("up")), 422, Some("truncation_direction")),
        ("/embed", tei("prompt_name", json!("none")), 422, None),
        ("/embed", tei("prompt_name", json!(3)), 422, Some("prompt_name")),
        ("/embed", tei("normalize", json!(1)), 422, Some("normalize")),
        ("/embed", tei("dimensions", json!(0)), 422, None),
        ("/embed", tei("dimensions", json!(wide)), 422, None),
        ("/embed", tei("dimensions", json!(DIMENSIONS - 1)), 422, None),
        ("/embed", tei("model", json!("other")), 404, None),
        ("/embed", tei("model", json!(1)), 422, Some("model")),
        ("/embed_all", json!({ "inputs": [] }), 400, None),
        ("/embed_all", json!({ "inputs": 1 }), 422, Some("inputs")),
        ("/", json!({ "inputs": null }), 422, Some("inputs")),
        ("/similarity", json!({ "inputs": { "source_sentence": "a", "sentences": [] } }), 400, None),
        (
            "/similarity",
            json!({ "inputs": { "source_sentence": "a", "sentences": "b" } }),
            422,
            Some("inputs.sentences"),
        ),
        (
            "/similarity",
            json!({ "inputs": { "source_sentence": 1, "sentences": ["b"] } }),
            422,
            Some("inputs.source_sentence"),
        ),
        ("/similarity", json!({ "inputs": { "sentences": ["b"] } }), 422, Some("inputs")),
        ("/similarity", json!({ "inputs": "a" }), 422, Some("inputs")),
        (
            "/similarity",
            json!({ "inputs": { "source_sentence": "a", "sentences": vec!["b"; 2048] } }),
            413,
            None,
        ),
        (
            "/similarity",
            json!({ "inputs": { "source_sentence": "a", "sentences": ["b"] }, "parameters": { "truncate": 1 } }),
            422,
            Some("parameters.truncate"),
        ),
        ("/tokenize", json!({ "inputs": [] }), 400, None),
        ("/tokenize", json!({ "inputs": 1 }), 422, Some("inputs")),
        ("/tokenize", json!({ "inputs": "a", "add_special_tokens": 1 }), 422, Some("add_special_tokens")),
        ("/tokenize", json!({ "inputs": "a", "prompt_name": "none" }), 422, None),
        ("/tokenize", json!({ "inputs": vec!["a"; 2049] }), 413, None),
        ("/tokenize", json!({ "inputs": [1] }), 422, Some("inputs")),
        ("/tokenize", json!({ "inputs": ["a", [1]] }), 422, Some("inputs")),
        // More than are read at all, by any server.
        ("/v1/embeddings", openai("input", json!(vec!["a"; 65_537])), 413, Some("input")),
        ("/embed", tei("inputs", json!(vec!["a"; 65_537])), 413, None),
        ("/tokenize", json!({ "inputs": vec!["a"; 65_537] }), 413, None),
        (
            "/similarity",
            json!({ "inputs": { "source_sentence": "a", "sentences": vec!["b"; 65_537] } }),
            413,
            None,
        ),
        ("/decode", json!({ "ids": vec![[(); 0]; 65_537] }), 413, None),
        ("/decode", json!({ "ids": vec![1; (1 << 20) + 1] }), 413, None),
        ("/decode", json!({ "ids": vec![vec![1; 1 << 19]; 3] }), 413, None),
        ("/rerank", json!({ "query": "a", "texts": ["b"] }), 424, None),
        ("/predict", json!({ "inputs": "a" }), 424, None),
        ("/embed_sparse", json!({ "inputs": "a" }), 424, None),
        ("/decode", json!({ "ids": [] }), 400, None),
        ("/decode", json!({ "ids": "a" }), 422, Some("ids")),
        ("/decode", json!({ "ids": [[1], "a"] }), 422, Some("ids")),
        ("/decode", json!({ "ids": [-1] }), 422, None),
        ("/decode", json!({ "ids": [u64::MAX] }), 422, None),
        ("/decode", json!({ "ids": [1_000_000] }), 422, None),
        ("/decode", json!({ "ids": [1], "skip_special_tokens": "no" }), 422, Some("skip_special_tokens")),
        ("/decode", json!({ "ids": [1], "model": "other" }), 404, None),
    ];
    for (path, body, status, param) in table {
        let answer = app.post(path, body.clone()).await;
        let shown: String = body.to_string().chars().take(120).collect();
        assert_eq!(answer.status, status, "{path} {shown}: {}", answer.text());
        check_envelope(path, &answer);
        if path.starts_with("/v1") {
            assert_eq!(answer.json()["error"]["param"].as_str(), param, "{path} {shown}: {}", answer.text());
        } else if let Some(param) = param {
            let error = answer.json()["error"].as_str().unwrap().to_owned();
            assert!(error.starts_with(&format!("{param}: ")), "{path} {shown}: {error}");
        }
        works(&app).await;
    }
    assert!(fake.rows() > 0);
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let small = Settings { max_body_bytes: Some(4096), ..settings() };
    let (app, _) = TestApp::fake_with(&small, |_| ()).await;
    let long = format!(r#"{{"model": "tiny", "input": "{}"}}"#, "a".repeat(5000));
    let deep = format!(r#"{{"model": "tiny", "input": {}}}"#, "[".repeat(2000));
    let table: [(&str, &[u8], u16); 9] = [
        ("nothing", b" ", 400),
        ("cut short", br#"{"model": "tiny", "input": "a"#, 400),
        ("more behind it", br#"{"model": "tiny", "input": "a"} {}"#, 400),
        ("a lone surrogate", br#"{"model": "tiny", "input": "\ud800"}"#, 400),
        ("the other lone surrogate", br#"{"model": "tiny", "input": "\udc00 a"}"#, 400),
        ("invalid UTF-8", b"{\"model\": \"tiny\", \"input\": \"\xff\xfe\"}", 400),
        ("a raw control character", b"{\"model\": \"tiny\", \"input\": \"\x00\"}", 400),
        ("too deep", deep.as_bytes(), 400),
        ("too large", long.as_bytes(), 413),
    ];
    for (what, body, status) in table {
        for (path, status) in [
            ("/v1/embeddings", status),
            (INFER, status),
            ("/embed", if status == 400 { 422 } else { status }),
        ] {
            let answer = app.send("POST", path, HeaderMap::new(), body.to_vec()).await;
            assert_eq!(answer.status, status, "{path}, {what}: {}", answer.text());
            check_envelope(path, &answer);
            works(&app).await;
        }
    }
    let text = HeaderMap::from_iter([("content-type".parse().unwrap(), "text/plain".parse().unwrap())]);
    for path in ["/v1/embeddings", "/embed", INFER, "/v2/repository/index"] {
        let answer = app.send("POST", path, text.clone(), b"{}".to_vec()).await;
        assert_eq!(answer.status, 415);
        check_envelope(path, &answer);
    }
}

#[tokio::test]
async fn odd_texts_are_texts() {
    let (app, _) = TestApp::fake().await;
    for text in ["\0", "a\0b", "\u{feff}", "\u{202e}abc", "🧭", "\u{10ffff}", " ", "\r\n\t"] {
        for (path, body) in [
            ("/v1/embeddings", json!({ "model": "tiny", "input": text })),
            ("/embed", json!({ "inputs": text })),
        ] {
            let answer = app.post(path, body).await;
            assert_eq!(answer.status, 200, "{text:?}: {}", answer.text());
        }
    }
    let long = "abc def ".repeat(12_500);
    let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": long })).await;
    assert_eq!((answer.status, answer.header("x-sextant-truncated")), (200, "1"), "100,000 characters");
}

#[tokio::test]
async fn more_requests_than_there_are_places_for_are_refused_before_their_bodies() {
    let few = Settings { max_requests: Some(1), ..settings() };
    let (app, fake) = TestApp::fake_with(&few, |_| ()).await;
    fake.hold();
    let refused = async {
        until("the first is in", async || fake.waiting() == 1).await;
        let refused = app.send("POST", "/embed", HeaderMap::new(), b"no json".to_vec()).await;
        assert_eq!(app.get("/v1/models").await.status, 200, "what costs nothing needs no place");
        fake.release();
        refused
    };
    let body = json!({ "model": "tiny", "input": "a" });
    let (first, refused) = tokio::join!(app.post("/v1/embeddings", body), refused);
    assert_eq!((first.status, refused.status), (200, 429));
    check_envelope("/embed", &refused);
    assert_eq!(app.metric("sextant_rejected_total", &["requests"]).await, 1.0);
    works(&app).await;
}

/// A text is tokenized no further than it is kept, and the vector is the one that the whole text would give.
#[tokio::test]
async fn of_a_long_text_only_what_is_kept_is_tokenized() {
    let (app, _) = TestApp::fake().await;
    let words: Vec<String> = (0..40_000).map(|index| format!("w{}", index % 977)).collect();
    let (long, first) = (words.join(" "), words[..60].join(" "));
    let last = words[words.len() - 60..].join(" ");
    let ask = async |text: &str, truncate: &str| {
        let body = json!({ "model": "tiny", "input": text, "truncate": truncate });
        app.post("/v1/embeddings", body).await
    };
    assert_eq!(ask(&long, "end").await.json()["data"], ask(&first, "end").await.json()["data"]);
    assert_eq!(ask(&long, "start").await.json()["data"], ask(&last, "start").await.json()["data"]);
    assert_eq!(ask(&long, "error").await.status, 400);
    let one_word = "w".repeat(300_000);
    assert_eq!(ask(&one_word, "end").await.status, 200);
}

#[tokio::test]
async fn wrong_methods_and_paths_are_told() {
    let (app, _) = TestApp::fake().await;
    for (method, path, status) in [
        ("GET", "/v1/embeddings", 405),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/embed", 405),
        ("GET", "/", 405),
        ("POST", "/metrics", 405),
        ("POST", "/livez", 405),
        ("GET", INFER, 405),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v1/completions", 404),
        ("GET", "/v2/", 404),
        ("GET", "/v2/nope", 404),
        ("POST", "/v2/repository/models/tiny/load", 404),
        ("GET", "/v2/models/tiny/versions/2", 404),
        ("GET", "/v2/models/%ff", 400),
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("POST", "/v1/embeddings/", 404),
        ("GET", "/nope", 404),
        ("GET", "/v1/models/%ff", 400),
        ("GET", "/%00", 404),
    ] {
        let answer = app.send(method, path, HeaderMap::new(), Vec::new()).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        check_envelope(path, &answer);
        if status == 405 {
            assert!(!answer.header("allow").is_empty());
        }
    }
    works(&app).await;
}

#[tokio::test]
async fn a_full_queue_is_429_with_a_time_to_come_back() {
    let tight = Settings { max_queue_tokens: Some(10), ..settings() };
    let (app, fake) = TestApp::fake_with(&tight, |_| ()).await;
    fake.hold();
    // Of different texts: equal ones would share a place.
    let ask = async |word: &str| {
        let body = json!({ "model": "tiny", "input": [format!("{word} b c d e f g h i j")] });
        app.post("/v1/embeddings", body).await
    };
    // The first runs, the second waits, the third finds the queue full.
    let others = async {
        until("the first runs", async || fake.waiting() == 1).await;
        let refused = async {
            until("the second waits", async || app.metric("sextant_queue_tokens", &["tiny"]).await > 0.0)
                .await;
            let refused = ask("c").await;
            fake.release();
            refused
        };
        tokio::join!(ask("b"), refused)
    };
    let (first, (second, refused)) = tokio::join!(ask("a"), others);
    assert_eq!((first.status, second.status, refused.status), (200, 200, 429), "{}", refused.text());
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    check_envelope("/v1/embeddings", &refused);
    assert_eq!(app.metric("sextant_rejected_total", &["overloaded"]).await, 1.0);
}
