//! The dialect of text-embeddings-inference.

use serde_json::json;

use crate::support::app::{TestApp, settings};
use crate::support::fake::{DIMENSIONS, Fake};
use crate::support::floats;

#[tokio::test]
async fn embed_answers_a_list_of_vectors_at_both_its_paths() {
    let (app, _) = TestApp::fake().await;
    for path in ["/embed", "/"] {
        let answer = app.post(path, json!({ "inputs": "a b" })).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json().as_array().unwrap().len(), 1);
        assert_eq!(answer.header("x-compute-characters"), "3");
        assert_eq!(answer.header("x-compute-tokens"), "4");
    }
    let many = app.post("/embed", json!({ "inputs": ["a", "b", "a"], "truncate": true })).await.json();
    assert_eq!(many[0], many[2]);
    assert_ne!(many[0], many[1]);
}

#[tokio::test]
async fn vectors_are_normalised_unless_asked_otherwise() {
    let (app, _) = TestApp::fake_with(&settings(), |manifest| manifest.matryoshka_dimensions = vec![2]).await;
    let tokens = app.post("/tokenize", json!({ "inputs": "a b" })).await.json();
    let ids: Vec<u32> =
        tokens[0].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap() as u32).collect();
    let raw = app.post("/embed", json!({ "inputs": "a b", "normalize": false })).await.json();
    assert_eq!(floats(&raw[0]), Fake::vector(&ids));
    let cut = app.post("/embed", json!({ "inputs": "a b", "dimensions": 2 })).await.json();
    let norm: f32 = floats(&cut[0]).iter().map(|value| value * value).sum();
    assert!((norm - 1.0).abs() < 1e-6 && cut[0].as_array().unwrap().len() == 2);
}

#[tokio::test]
async fn embed_all_gives_a_vector_for_each_token() {
    let (app, _) = TestApp::fake().await;
    let answer = app.post("/embed_all", json!({ "inputs": ["a b", "c"] })).await.json();
    assert_eq!(answer[0].as_array().unwrap().len(), 4, "two words and two special tokens");
    assert_eq!(answer[1].as_array().unwrap().len(), 3);
    assert_eq!(answer[1][2].as_array().unwrap().len(), DIMENSIONS);
    assert_eq!(answer[0][0], answer[1][0], "the same special token");
}

#[tokio::test]
async fn similarity_is_the_cosine() {
    let (app, _) = TestApp::fake().await;
    let vectors = app.post("/embed", json!({ "inputs": ["a", "b c"] })).await.json();
    let cosine: f32 = floats(&vectors[0]).iter().zip(floats(&vectors[1])).map(|(a, b)| a * b).sum();
    let inputs = json!({ "source_sentence": "a", "sentences": ["b c", "a"] });
    let answer = floats(&app.post("/similarity", json!({ "inputs": inputs })).await.json());
    assert!((answer[0] - cosine).abs() < 1e-6 && (answer[1] - 1.0).abs() < 1e-6, "{answer:?}");
}

#[tokio::test]
async fn tokens_have_places_in_characters_and_decode_to_their_text() {
    let (app, _) = TestApp::fake().await;
    let answer = app.post("/tokenize", json!({ "inputs": "é ab" })).await.json();
    let tokens = answer[0].as_array().unwrap();
    assert_eq!((&tokens[0]["text"], &tokens[0]["special"]), (&json!("[CLS]"), &json!(true)));
    assert_eq!(tokens[0]["start"], json!(null));
    assert_eq!((&tokens[2]["start"], &tokens[2]["stop"]), (&json!(2), &json!(3)), "{answer}");
    let ids: Vec<_> = tokens.iter().map(|token| token["id"].clone()).collect();
    let bare = app.post("/tokenize", json!({ "inputs": ["ab"], "add_special_tokens": false })).await.json();
    assert!(bare[0].as_array().unwrap().iter().all(|token| token["special"] == false));
    // The text as it came: not in the vocabulary's small letters, nor with its signs for what continues a word.
    let answer = app.post("/tokenize", json!({ "inputs": "É Cab" })).await.json();
    let texts: Vec<_> = answer[0].as_array().unwrap().iter().map(|token| token["text"].clone()).collect();
    assert_eq!(json!(texts), json!(["[CLS]", "É", "C", "a", "b", "[SEP]"]), "{answer}");
    let text = app.post("/decode", json!({ "ids": ids })).await.json();
    assert!(text[0].as_str().unwrap().ends_with("ab"), "{text}");
    let both = app.post("/decode", json!({ "ids": [ids, ids], "skip_special_tokens": false })).await.json();
    assert!(both[1].as_str().unwrap().starts_with("[CLS]"), "{both}");
}

#[tokio::test]
async fn similarity_calls_the_text_at_fault_by_its_field() {
    let refusing = sextant::config::Settings { truncate: Some("error".into()), ..settings() };
    let (app, _) = TestApp::fake_with(&refusing, |manifest| manifest.max_tokens = 4).await;
    let long = "a b c";
    for (source, sentences, status, expected) in [
        ("", json!(["b"]), 400, "`source_sentence` is an empty string"),
        ("a", json!(["b", ""]), 400, "`sentences[1]` is an empty string"),
        (long, json!(["b"]), 422, "source_sentence: the input has 5 tokens"),
        ("a", json!(["b", long]), 422, "sentences[1]: the input has 5 tokens"),
    ] {
        let inputs = json!({ "source_sentence": source, "sentences": sentences });
        let answer = app.post("/similarity", json!({ "inputs": inputs })).await;
        assert_eq!(answer.status, status, "{expected}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn truncation_follows_the_request_and_else_the_server() {
    let refusing = sextant::config::Settings { truncate: Some("error".into()), ..settings() };
    let (app, _) = TestApp::fake_with(&refusing, |manifest| manifest.max_tokens = 4).await;
    let long = "a b c";
    for (body, status) in [
        (json!({ "inputs": long }), 422),
        (json!({ "inputs": long, "truncate": true }), 200),
        (json!({ "inputs": long, "truncate": false }), 422),
    ] {
        assert_eq!(app.post("/embed", body.clone()).await.status, status, "{body}");
    }
    let ask = async |inputs: &str, side: &str| {
        let body = json!({ "inputs": inputs, "truncate": true, "truncation_direction": side });
        app.post("/embed", body).await.json()
    };
    assert_eq!(ask(long, "right").await, ask("a b", "right").await);
    assert_eq!(ask(long, "Left").await, ask("b c", "left").await);
}

#[tokio::test]
async fn info_says_what_is_served() {
    let (app, _) = TestApp::fake().await;
    let info = app.get("/info").await.json();
    assert_eq!(info["model_id"], "tiny@1");
    assert_eq!(info["max_client_batch_size"], 2048);
    assert_eq!(info["auto_truncate"], true);
    assert_eq!(info["model_type"]["embedding"]["pooling"], "mean");
}
