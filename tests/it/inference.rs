//! The Open Inference Protocol.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sextant::config::Settings;

use crate::openai::{expected, ids};
use crate::support::app::{Answer, TestApp, settings};
use crate::support::fake::DIMENSIONS;
use crate::support::floats;

const INFER: &str = "/v2/models/tiny/infer";

/// A request for the vectors of texts.
fn texts(data: Value) -> Value {
    let count = data.as_array().unwrap().len();
    json!({ "inputs": [{ "name": "text", "shape": [count], "datatype": "BYTES", "data": data }] })
}

fn tensor(name: &str, shape: Value, data: Value) -> Value {
    json!({ "name": name, "shape": shape, "datatype": "INT64", "data": data })
}

/// Sends JSON with bytes behind it.
async fn send_binary(app: &TestApp, json: Value, binary: &[u8]) -> Answer {
    let json = json.to_string().into_bytes();
    let headers = HeaderMap::from_iter([
        ("inference-header-content-length".parse().unwrap(), json.len().into()),
        ("content-type".parse().unwrap(), "application/octet-stream".parse().unwrap()),
    ]);
    app.send("POST", INFER, headers, [json, binary.to_vec()].concat()).await
}

/// The JSON of an answer, and the vectors behind it.
fn split(answer: &Answer) -> (Value, Vec<f32>) {
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    let length: usize = answer.header("inference-header-content-length").parse().unwrap();
    let (json, binary) = answer.body.split_at(length);
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], binary.len());
    (json, binary.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

#[tokio::test]
async fn texts_become_vectors_and_the_answer_says_whose() {
    let (app, _) = TestApp::fake().await;
    let mut request = texts(json!(["a b", "c"]));
    request["id"] = json!("42");
    let answer = app.post(INFER, request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let output = json!([{ "name": "embedding", "datatype": "FP32", "shape": [2, DIMENSIONS] }]);
    let mut body = answer.json();
    let data = body["outputs"][0].as_object_mut().unwrap().remove("data").unwrap();
    let expected = [expected(&app, "a b").await, expected(&app, "c").await].concat();
    assert_eq!(floats(&data), expected);
    assert_eq!(body, json!({ "model_name": "tiny", "model_version": "1", "id": "42", "outputs": output }));
    assert_eq!(answer.header("x-sextant-version"), "tiny@1");
    assert_eq!(answer.header("x-sextant-space"), "0123456789abcdef");
    assert_eq!(answer.header("x-sextant-truncated"), "0");
    assert!(answer.header("server-timing").contains("infer;dur="));
    for (path, status) in [
        ("/v2/models/tiny/versions/1/infer", 200),
        ("/v2/models/tiny/versions/stable/infer", 200),
        ("/v2/models/tiny@stable/infer", 200),
        ("/v2/models/tiny/versions/2/infer", 404),
        ("/v2/models/tiny@1/versions/1/infer", 404),
    ] {
        assert_eq!(app.post(path, texts(json!(["a"]))).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn token_ids_are_taken_without_their_padding() {
    let (app, _) = TestApp::fake().await;
    let (long, short) = (ids(&app, "a b c").await, ids(&app, "a").await);
    let width = long.len();
    let pad = vec![0; width - short.len()];
    let (behind, before) = ([short.clone(), pad.clone()].concat(), [pad.clone(), short.clone()].concat());
    let ones = vec![1; short.len()];
    let expected = [expected(&app, "a b c").await, expected(&app, "a").await].concat();
    for (row, mask) in
        [(&behind, [ones.clone(), pad.clone()].concat()), (&before, [pad.clone(), ones.clone()].concat())]
    {
        let masks = json!([vec![1; width], mask]);
        let request = json!({ "inputs": [
            tensor("attention_mask", json!([2, width]), masks),
            tensor("input_ids", json!([2, width]), json!([&long, row].map(Vec::as_slice).concat())),
        ] });
        let answer = app.post(INFER, request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(floats(&answer.json()["outputs"][0]["data"]), expected);
    }
    // Without a mask the padding would be tokens.
    let padded = json!({ "inputs": [tensor("input_ids", json!([1, width]), json!(behind))] });
    let answer = app.post(INFER, padded).await;
    assert!(answer.status == 400 && answer.text().contains("not framed"), "{}", answer.text());
}

#[tokio::test]
async fn tensors_may_be_bytes_both_ways() {
    let (app, _) = TestApp::fake().await;
    let expected = [expected(&app, "a b").await, expected(&app, "é").await].concat();
    let size = |size: usize| json!({ "binary_data_size": size });
    let bytes = b"\x03\0\0\0a b\x02\0\0\0\xc3\xa9";
    let text =
        json!({ "name": "text", "shape": [2, 1], "datatype": "BYTES", "parameters": size(bytes.len()) });
    let request = json!({ "parameters": { "binary_data_output": true }, "inputs": [text] });
    let answer = send_binary(&app, request, bytes).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("x-sextant-version"), "tiny@1");
    let (json, vectors) = split(&answer);
    assert_eq!((&json["outputs"][0]["shape"], vectors), (&json!([2, DIMENSIONS]), expected.clone()));
    assert!(json["outputs"][0].get("data").is_none());

    let row = ids(&app, "a b").await;
    let bytes: Vec<u8> = row.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
    let input = json!({
        "name": "input_ids", "shape": [1, row.len()], "datatype": "INT64", "parameters": size(bytes.len())
    });
    let outputs = json!([{ "name": "embedding", "parameters": { "binary_data": true } }]);
    let answer = send_binary(&app, json!({ "inputs": [input], "outputs": outputs }), &bytes).await;
    assert_eq!(split(&answer).1, expected[..DIMENSIONS]);
    // What an output says goes before what the request says.
    let mut mixed = texts(json!(["a b"]));
    mixed["parameters"] = json!({ "binary_data_output": true });
    mixed["outputs"] = json!([{ "name": "embedding", "parameters": { "binary_data": false } }]);
    assert_eq!(floats(&app.post(INFER, mixed).await.json()["outputs"][0]["data"]), expected[..DIMENSIONS]);
}

#[tokio::test]
async fn parameters_are_those_of_the_other_dialects() {
    let (app, _) = TestApp::fake_with(&settings(), |manifest| {
        manifest.max_tokens = 5;
        manifest.matryoshka_dimensions = vec![4];
        manifest.prompts = [("query".to_owned(), "b ".to_owned())].into();
        manifest.default_query_prompt = Some("query".into());
    })
    .await;
    let ask = async |text: &str, parameters: Value| {
        let mut request = texts(json!([text]));
        request["parameters"] = parameters;
        app.post(INFER, request).await
    };
    let vector = |answer: &Answer| floats(&answer.json()["outputs"][0]["data"]);
    for parameters in [json!({ "input_type": "query" }), json!({ "prompt_name": "query" })] {
        assert_eq!(vector(&ask("a", parameters).await), expected(&app, "b a").await);
    }
    let cut = ask("a b c d", json!({ "truncate": "start", "something": ["else"] })).await;
    assert_eq!((vector(&cut), cut.header("x-sextant-truncated")), (expected(&app, "b c d").await, "1"));
    let short = ask("a", json!({ "dimensions": 4 })).await;
    assert_eq!(short.json()["outputs"][0]["shape"], json!([1, 4]));
    for parameters in [
        json!({ "dimensions": 3 }),
        json!({ "dimensions": "4" }),
        json!({ "truncate": "error" }),
        json!({ "truncate": "middle" }),
        json!({ "prompt_name": "none" }),
    ] {
        assert_eq!(ask("a b c d", parameters.clone()).await.status, 400, "{parameters}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_says_why() {
    let (app, fake) = TestApp::fake().await;
    let text = |change: Value| {
        let mut tensor = json!({ "name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"] });
        tensor.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({ "inputs": [tensor] })
    };
    let with = |field: &str, value: Value| {
        let mut request = texts(json!(["a"]));
        request[field] = value;
        request
    };
    let shape = json!([1, 2]);
    let row = tensor("input_ids", shape.clone(), json!([2, 3]));
    for (request, status, expected) in [
        (json!([]), 400, "must be an object, and is a list"),
        (json!({ "inputs": [["text", [1], "BYTES", null, ["a"]]] }), 400, "must be an object, and is a list"),
        (with("parameters", json!([])), 400, "must be an object, and is a list"),
        (json!({}), 400, "missing field `inputs`"),
        (json!({ "inputs": [] }), 400, "must be text alone"),
        (json!({ "inputs": vec![row.clone(); 17] }), 400, "at most 16"),
        (json!({ "inputs": [row, row] }), 400, "is there twice"),
        (text(json!({ "name": "texts" })), 400, "there is no input `texts`"),
        (text(json!({ "shape": [2] })), 400, "data of the shape [1]"),
        (text(json!({ "shape": [1, 1, 1] })), 400, "must have [n] or [n, 1]"),
        (text(json!({ "shape": [-1] })), 400, "inputs[0].shape[0]: "),
        (text(json!({ "shape": [4_294_967_296_u64, 4_294_967_296_u64] })), 400, "larger than any"),
        (text(json!({ "datatype": "INT64" })), 400, "are not INT64"),
        (text(json!({ "datatype": "INT64", "data": [1] })), 400, "`text` must be BYTES"),
        (text(json!({ "parameters": { "binary_data_size": 1 } })), 400, "send one"),
        (text(json!({ "data": null })), 400, "neither data"),
        (text(json!({ "data": [""] })), 400, "empty string"),
        (text(json!({ "data": [], "shape": [0] })), 400, "nothing to do"),
        (texts(json!(vec!["a"; 2049])), 413, "at most 2048"),
        // More than are read at all, by any server.
        (texts(json!(vec!["a"; 65_537])), 413, "65537 elements, at most 65536"),
        (json!({ "inputs": [tensor("input_ids", json!([2]), json!([2, 3]))] }), 400, "[n, length]"),
        (json!({ "inputs": [tensor("input_ids", json!([0, 5]), json!([]))] }), 400, "nothing to do"),
        (json!({ "inputs": [tensor("input_ids", json!([5, 0]), json!([]))] }), 400, "rows of `input_ids`"),
        (json!({ "inputs": [tensor("input_ids", json!([1, 2]), json!([7, 8]))] }), 400, "not framed"),
        (json!({ "inputs": [tensor("input_ids", json!([1, 2]), json!([-1, 3]))] }), 400, "out of range"),
        (
            json!({ "inputs": [tensor("input_ids", json!([3000, 1]), json!(vec![2; 3000]))] }),
            413,
            "at most 2048",
        ),
        (
            json!({ "inputs": [row, tensor("attention_mask", json!([2]), json!([1, 1]))] }),
            400,
            "of the shape [1, 2]",
        ),
        (json!({ "inputs": [row, tensor("attention_mask", shape.clone(), json!([1, 2]))] }), 400, "row 0"),
        (json!({ "inputs": [tensor("attention_mask", shape, json!([1, 1]))] }), 400, "must be text alone"),
        (with("outputs", json!([{ "name": "logits" }])), 400, "[\"logits\"]"),
        (with("outputs", json!([{ "name": "embedding" }, { "name": "embedding" }])), 400, "there is one"),
        (
            with("outputs", json!([{ "name": "embedding", "parameters": { "classification": 3 } }])),
            400,
            "no classification",
        ),
        (
            with("outputs", json!([{ "name": "embedding", "parameters": { "shared_memory_region": "x" } }])),
            400,
            "no shared memory",
        ),
    ] {
        let answer = app.post(INFER, request.clone()).await;
        let shown: String = request.to_string().chars().take(120).collect();
        assert_eq!(answer.status, status, "{shown}: {}", answer.text());
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(expected), "{shown}: {error}");
    }
    assert_eq!(fake.rows(), 0);
}

#[tokio::test]
async fn bytes_that_belong_to_nothing_are_refused() {
    let (app, _) = TestApp::fake().await;
    let input = |size: u64| {
        let parameters = json!({ "binary_data_size": size });
        json!({ "inputs": [{ "name": "text", "shape": [1], "datatype": "BYTES", "parameters": parameters }] })
    };
    for (shape, datatype) in [(65_537, "BYTES"), (4_194_305, "INT64")] {
        let parameters = json!({ "binary_data_size": 0 });
        let tensor =
            json!({ "name": "text", "shape": [shape], "datatype": datatype, "parameters": parameters });
        let answer = send_binary(&app, json!({ "inputs": [tensor] }), b"").await;
        assert_eq!(answer.status, 413, "{}", answer.text());
    }
    for (json, binary, expected) in [
        (input(5), &b"\x01\0\0\0ab"[..], "1 bytes of the body belong to no input"),
        (input(6), b"\x01\0\0\0a", "5 bytes are left"),
        (input(u64::MAX), b"", "0 bytes are left"),
        (texts(json!(["a"])), b"\x01", "1 bytes of the body belong to no input"),
    ] {
        let answer = send_binary(&app, json, binary).await;
        assert!(answer.status == 400 && answer.text().contains(expected), "{}", answer.text());
    }
    for (length, body) in
        [("0", "{}"), ("3", "{}"), ("-1", "{}"), ("x", "{}"), ("18446744073709551616", "{}")]
    {
        let headers = HeaderMap::from_iter([(
            "inference-header-content-length".parse().unwrap(),
            length.parse().unwrap(),
        )]);
        let answer = app.send("POST", INFER, headers, body.into()).await;
        assert!(
            answer.status == 400 && answer.text().contains("1 to the 2 bytes"),
            "{length}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn health_and_metadata_are_told_until_the_server_stops() {
    let hasty = Settings { liveness_deadline: Some("2s".into()), ..settings() };
    let (app, fake) = TestApp::fake_with(&hasty, |_| ()).await;
    for path in
        ["/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready", "/v2/models/tiny/versions/1/ready"]
    {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    for path in ["/v2/models/other/ready", "/v2/models/tiny/versions/9/ready", "/v2/models/tiny/versions/9"] {
        assert_eq!(app.get(path).await.status, 404, "{path}");
    }
    let model = app.get("/v2/models/tiny").await.json();
    assert_eq!((&model["name"], &model["versions"]), (&json!("tiny"), &json!(["1"])));
    assert_eq!(model["outputs"][0]["shape"], json!([-1, DIMENSIONS]));
    assert_eq!(app.get("/v2/models/tiny/versions/1").await.json(), model);
    let index = json!([{ "name": "tiny", "version": "1", "state": "READY", "reason": "" }]);
    assert_eq!(app.post("/v2/repository/index", json!({ "ready": true })).await.json(), index);
    assert_eq!(app.send("POST", "/v2/repository/index", HeaderMap::new(), Vec::new()).await.json(), index);
    assert_eq!(app.post("/v2/repository/index", json!({ "ready": 1 })).await.status, 400);
    fake.hold();
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(app.get("/v2/health/live").await.status, 503);
    fake.release();
}
