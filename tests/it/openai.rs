//! The OpenAI dialect.

use base64::Engine as _;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::app::{TestApp, settings, until};
use crate::support::fake::{DIMENSIONS, Fake};
use crate::support::floats;

/// The token ids of a text.
pub async fn ids(app: &TestApp, text: &str) -> Vec<u32> {
    let tokens = app.post("/tokenize", json!({ "inputs": text })).await.json();
    tokens[0].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap() as u32).collect()
}

/// The unit vector that the fake engine's model gives for a text.
pub async fn expected(app: &TestApp, text: &str) -> Vec<f32> {
    let mut vector = Fake::vector(&ids(app, text).await);
    sextant::engine::pooling::normalise(&mut vector);
    vector
}

#[tokio::test]
async fn an_input_becomes_a_unit_vector_and_the_answer_says_whose() {
    let (app, _) = TestApp::fake().await;
    let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a cab" })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(floats(&body["data"][0]["embedding"]), expected(&app, "a cab").await);
    assert_eq!(body["model"], "tiny");
    assert_eq!(body["usage"]["prompt_tokens"], body["usage"]["total_tokens"]);
    assert_eq!(answer.header("x-sextant-version"), "tiny@1");
    assert_eq!(answer.header("x-sextant-space"), "0123456789abcdef");
    assert_eq!(answer.header("x-sextant-truncated"), "0");
    for stage in ["tokenize", "queue", "infer", "finish"] {
        assert!(answer.header("server-timing").contains(&format!("{stage};dur=")), "{stage}");
    }
}

#[tokio::test]
async fn inputs_of_every_shape_come_back_in_order() {
    let (app, _) = TestApp::fake().await;
    let (a, b) = (expected(&app, "abc").await, expected(&app, "d e f").await);
    let (a_ids, b_ids) = (ids(&app, "abc").await, ids(&app, "d e f").await);
    for (input, expected) in [
        (json!("abc"), vec![&a]),
        (json!(["abc", "d e f", "abc"]), vec![&a, &b, &a]),
        (json!(a_ids), vec![&a]),
        (json!([b_ids, a_ids]), vec![&b, &a]),
        (json!(["abc", b_ids, "d e f"]), vec![&a, &b, &b]),
    ] {
        let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": input })).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let data = answer.json()["data"].as_array().unwrap().clone();
        assert_eq!(data.len(), expected.len());
        for (index, (item, expected)) in data.iter().zip(expected).enumerate() {
            assert_eq!(item["index"], index);
            assert_eq!(&floats(&item["embedding"]), expected, "{input}");
        }
    }
}

#[tokio::test]
async fn base64_carries_the_same_floats() {
    let (app, _) = TestApp::fake().await;
    let body = json!({ "model": "tiny@1", "input": ["a b"], "encoding_format": "base64", "user": "someone" });
    let answer = app.post("/v1/embeddings", body).await.json();
    let text = answer["data"][0]["embedding"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let vector: Vec<f32> = bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
    assert_eq!(vector, expected(&app, "a b").await);
}

#[tokio::test]
async fn dimensions_cut_and_normalise_again() {
    let (app, _) = TestApp::fake_with(&settings(), |manifest| manifest.matryoshka_dimensions = vec![3]).await;
    let full = expected(&app, "abc").await;
    let body = json!({ "model": "tiny@stable", "input": "abc", "dimensions": 3 });
    let answer = app.post("/v1/embeddings", body).await.json();
    let cut = floats(&answer["data"][0]["embedding"]);
    assert_eq!(cut.len(), 3);
    assert!((cut.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-6);
    assert!((cut[0] / cut[2] - full[0] / full[2]).abs() < 1e-5, "the direction is kept");
    let body = json!({ "model": "tiny", "input": "abc", "dimensions": DIMENSIONS });
    let whole = app.post("/v1/embeddings", body).await.json();
    assert_eq!(floats(&whole["data"][0]["embedding"]), full);
}

#[tokio::test]
async fn declared_matryoshka_widths_are_the_only_ones() {
    let (app, _) = TestApp::fake_with(&settings(), |manifest| manifest.matryoshka_dimensions = vec![4]).await;
    for (dimensions, status) in [(4, 200), (DIMENSIONS, 200), (3, 400)] {
        let body = json!({ "model": "tiny", "input": "a", "dimensions": dimensions });
        assert_eq!(app.post("/v1/embeddings", body).await.status, status, "{dimensions}");
    }
    let (app, _) = TestApp::fake().await;
    for (dimensions, status) in [(DIMENSIONS, 200), (4, 400)] {
        let body = json!({ "model": "tiny", "input": "a", "dimensions": dimensions });
        let answer = app.post("/v1/embeddings", body).await;
        assert_eq!(answer.status, status, "{dimensions}, where none is declared");
        assert!(status == 200 || answer.text().contains("--matryoshka"), "{}", answer.text());
    }
}

#[tokio::test]
async fn vectors_come_as_bytes_and_bits_where_asked() {
    let (app, _) = TestApp::fake_with(&settings(), |manifest| manifest.normalise = false).await;
    let unit = expected(&app, "a b").await;
    let ask = async |dtype: &str, format: &str| {
        let body =
            json!({ "model": "tiny", "input": "a b", "output_dtype": dtype, "encoding_format": format });
        app.post("/v1/embeddings", body).await.json()["data"][0]["embedding"].clone()
    };
    // The scale is that of unit vectors, of a model that does not make them too.
    let bytes: Vec<i64> = unit.iter().map(|value| (f64::from(*value) * 127.0).round() as i64).collect();
    assert_eq!(ask("int8", "float").await, json!(bytes));
    let unsigned: Vec<u8> = bytes.iter().map(|byte| u8::try_from(byte + 128).unwrap()).collect();
    assert_eq!(ask("uint8", "float").await, json!(unsigned));
    // OpenAI's clients ask for base64 unasked, and make floats of the text.
    assert_eq!(ask("uint8", "base64").await, json!(unsigned));
    let bits = unit.iter().fold(0, |bits, value| bits << 1 | i64::from(*value > 0.0));
    assert!(bytes.iter().any(|byte| *byte < 0) && (1..255).contains(&bits), "of both signs: {unit:?}");
    assert_eq!(ask("ubinary", "float").await, json!([bits]));
    assert_eq!(ask("ubinary", "base64").await, json!([bits]));
    assert_eq!(ask("binary", "float").await, json!([bits - 128]));
    assert_eq!(floats(&ask("float", "float").await), Fake::vector(&ids(&app, "a b").await));
}

#[tokio::test]
async fn prompts_go_before_the_text() {
    let (app, _) = TestApp::fake_with(&settings(), |manifest| {
        manifest.prompts = [("query".to_owned(), "b c ".to_owned())].into();
        manifest.default_query_prompt = Some("query".into());
    })
    .await;
    let with = expected(&app, "b c a").await;
    for extra in [json!({ "input_type": "query" }), json!({ "prompt_name": "query" })] {
        let mut body = json!({ "model": "tiny", "input": "a" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let answer = app.post("/v1/embeddings", body).await.json();
        assert_eq!(floats(&answer["data"][0]["embedding"]), with, "{extra}");
    }
    let plain = json!({ "model": "tiny", "input": "a", "input_type": "document" });
    let answer = app.post("/v1/embeddings", plain).await.json();
    assert_eq!(floats(&answer["data"][0]["embedding"]), expected(&app, "a").await);
    let ids = json!({ "model": "tiny", "input": [[2, 7, 3]], "input_type": "query" });
    assert_eq!(app.post("/v1/embeddings", ids).await.status, 400, "no prompt goes before a token array");
    let unknown = json!({ "model": "tiny", "input": "a", "prompt_name": "nope" });
    let answer = app.post("/v1/embeddings", unknown).await;
    assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some("prompt_name")));
}

#[tokio::test]
async fn long_inputs_are_cut_where_asked_counted_and_told() {
    let (app, _) = TestApp::fake_with(&settings(), |manifest| manifest.max_tokens = 5).await;
    let ask = async |truncate: &str| {
        let body = json!({ "model": "tiny", "input": ["a b c d", "a"], "truncate": truncate });
        app.post("/v1/embeddings", body).await
    };
    let vector = |answer: &crate::support::app::Answer| floats(&answer.json()["data"][0]["embedding"]);
    let (end, start) = (ask("end").await, ask("start").await);
    assert_eq!(end.header("x-sextant-truncated"), "1");
    assert_eq!(end.json()["usage"]["total_tokens"], 5 + 3);
    assert_eq!(vector(&end), expected(&app, "a b c").await);
    assert_eq!(vector(&start), expected(&app, "b c d").await);
    let refused = ask("error").await;
    assert_eq!(refused.status, 400);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("6 tokens") && message.contains("takes 5"), "{message}");
    assert_eq!(app.metric("sextant_truncated_inputs_total", &["tiny"]).await, 2.0);
}

#[tokio::test]
async fn another_space_is_a_conflict_and_the_right_one_is_not() {
    let (app, _) = TestApp::fake().await;
    let ask = async |space: &str| {
        let headers = HeaderMap::from_iter([("x-sextant-space".parse().unwrap(), space.parse().unwrap())]);
        let body = serde_json::to_vec(&json!({ "model": "tiny", "input": "a" })).unwrap();
        app.send("POST", "/v1/embeddings", headers, body).await
    };
    assert_eq!(ask("0123456789abcdef").await.status, 200);
    let refused = ask("fedcba9876543210").await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (409, Some("space_mismatch")));
}

#[tokio::test]
async fn two_spaces_in_one_request_are_none() {
    let (app, _) = TestApp::fake().await;
    let mut headers = HeaderMap::new();
    headers.append("x-sextant-space", "0123456789abcdef".parse().unwrap());
    headers.append("x-sextant-space", "0123456789abcdef".parse().unwrap());
    let body = serde_json::to_vec(&json!({ "model": "tiny", "input": "a" })).unwrap();
    assert_eq!(app.send("POST", "/v1/embeddings", headers.clone(), body.clone()).await.status, 200);
    headers.append("x-sextant-space", "another".parse().unwrap());
    assert_eq!(app.send("POST", "/v1/embeddings", headers, body).await.status, 409);
}

#[tokio::test]
async fn models_are_listed_by_name_and_found_by_version() {
    let (app, _) = TestApp::fake().await;
    let list = app.get("/v1/models").await.json();
    assert_eq!(list["data"][0]["id"], "tiny");
    assert_eq!(list["data"][0]["created"], 1_767_225_600);
    for (id, status) in [
        ("tiny", 200),
        ("tiny@1", 200),
        ("tiny@2", 404),
        ("tiny@01", 404),
        ("tiny@+1", 404),
        ("tiny@canary", 404),
        ("other", 404),
    ] {
        assert_eq!(app.get(&format!("/v1/models/{id}")).await.status, status, "{id}");
    }
}

#[tokio::test]
async fn a_vector_that_is_not_finite_is_an_error_not_an_answer() {
    let (app, fake) = TestApp::fake().await;
    fake.give_nan(true);
    let body = json!({ "model": "tiny", "input": "a" });
    assert_eq!(app.post("/v1/embeddings", body.clone()).await.status, 500);
    fake.give_nan(false);
    fake.fail(true);
    assert_eq!(app.post("/v1/embeddings", body.clone()).await.status, 500);
    fake.fail(false);
    assert_eq!(app.post("/v1/embeddings", body).await.status, 200);
}

#[tokio::test]
async fn an_input_whose_vector_is_not_finite_is_named_and_other_requests_of_the_batch_are_answered() {
    let (app, fake) = TestApp::fake().await;
    let of_z: Vec<u32> = ids(&app, "z").await;
    fake.give_nan_for(of_z[1]);
    fake.hold();
    let ask =
        async |input: Value| app.post("/v1/embeddings", json!({ "model": "tiny", "input": input })).await;
    let queued = async |tokens: f64| {
        until("the rows wait", async || app.metric("sextant_queue_tokens", &["tiny"]).await == tokens).await;
    };
    // The first runs alone; the others wait for it, and run together.
    let others = async {
        until("the first runs", async || fake.waiting() == 1).await;
        let third = async {
            queued(9.0).await;
            let third = async { ask(json!(["c", "d"])).await };
            let release = async {
                queued(15.0).await;
                fake.release();
            };
            tokio::join!(third, release).0
        };
        tokio::join!(ask(json!(["a", "z", "b"])), third)
    };
    let (first, (broken, whole)) = tokio::join!(ask(json!("x")), others);
    assert_eq!((first.status, broken.status, whole.status), (200, 500, 200), "{}", broken.text());
    assert_eq!(fake.longest().len(), 2, "two batches");
    let error = broken.json()["error"].clone();
    assert_eq!(error["message"], "input 1: the model made a vector that is not finite");
    assert_eq!(error["param"], "input[1]");
    let data = whole.json()["data"].clone();
    assert_eq!(floats(&data[0]["embedding"]), expected(&app, "c").await);
    assert_eq!(floats(&data[1]["embedding"]), expected(&app, "d").await);

    let tei = app.post("/embed", json!({ "inputs": ["a", "b", "z"] })).await;
    assert_eq!(
        (tei.status, tei.json()["error"].as_str()),
        (424, Some("input 2: the model made a vector that is not finite"))
    );
    let pairs = json!({ "inputs": { "source_sentence": "a", "sentences": ["b", "z"] } });
    let error = app.post("/similarity", pairs).await.json()["error"].clone();
    assert_eq!(error, "sentences[1]: the model made a vector that is not finite");
}
