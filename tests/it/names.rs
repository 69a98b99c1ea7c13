//! Other names of a model, aliases and hub ids, and versions on standby: over every route that names a model.

use std::fs;
use std::path::Path;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sextant::config::Settings;
use sextant::repository::manifest::Source;
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::command::{imported, path, run};
use crate::keys::{bearer, entry, key};
use crate::support::app::{Answer, TestApp, settings, until};

const HUB_ID: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// Runs a command on the repository; what it prints, and whether it succeeded.
fn change(directory: &TempDir, arguments: &[&str]) -> (bool, String) {
    let why = ["--models", &path(directory, "models"), "--reason", "a test"];
    let output = block_in_place(|| run(&[arguments, &why[..]].concat()));
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

async fn embed(app: &TestApp, model: &str) -> Answer {
    app.post("/v1/embeddings", json!({ "model": model, "input": "the red house" })).await
}

fn infer() -> Value {
    json!({ "inputs": [{ "name": "text", "datatype": "BYTES", "shape": [1], "data": ["the red house"] }] })
}

/// Every route that names a model, asked for `name`.
async fn answered_everywhere(app: &TestApp, name: &str) {
    let quoted = name.replace('/', "%2F");
    let answer = embed(app, name).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.header("x-sextant-version").contains('/'), "the answer names the version itself");
    assert_eq!(answer.json()["model"], name);
    assert_eq!(embed(app, &format!("{name}@1")).await.status, 200);
    assert_eq!(embed(app, &format!("{name}@stable")).await.status, 200);
    assert_eq!(embed(app, &format!("{name}@9")).await.status, 404);
    assert_eq!(app.post("/embed", json!({ "model": name, "inputs": "a" })).await.status, 200);
    assert_eq!(app.post("/tokenize", json!({ "model": name, "inputs": "a" })).await.status, 200);
    for name in [name, &quoted] {
        assert_eq!(app.get(&format!("/info?model={name}")).await.status, 200);
        assert_eq!(app.get(&format!("/v1/models/{name}")).await.status, 200, "{name}");
        for of in ["", "/versions/1"] {
            let path = format!("/v2/models/{name}{of}");
            assert_eq!(app.get(&path).await.status, 200, "{path}");
            assert_eq!(app.get(&format!("{path}/ready")).await.status, 200, "{path}");
            assert_eq!(app.post(&format!("{path}/infer"), infer()).await.status, 200, "{path}");
        }
    }
    let listed = app.get("/v1/models").await.json();
    let ids: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|entry| &entry["id"]).collect();
    assert_eq!(ids.iter().filter(|id| **id == name).count(), 1, "{ids:?}");
}

#[tokio::test]
async fn the_hub_id_that_a_model_came_from_is_a_name_of_it() {
    let source = Source::Hub { id: HUB_ID.to_owned(), revision: "0".repeat(40) };
    let (app, _fake) = TestApp::fake_with(&settings(), |manifest| manifest.source = source).await;
    answered_everywhere(&app, HUB_ID).await;
    assert_eq!(
        embed(&app, "sentence-transformers/all-minilm-l6-v2").await.status,
        404,
        "names have one spelling"
    );
    let page = app.get("/metrics").await;
    assert!(!page.text().contains("sentence-transformers"), "series have the real name");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_is_given_and_taken_away_on_a_server_and_in_the_repository() {
    let directory = imported();
    let plain = fs::read_to_string(directory.path().join("models/tiny/rollouts/00000001.json")).unwrap();
    assert!(plain.contains("\"schema\": 1") && !plain.contains("aliases"), "{plain}");
    let (good, text) = change(&directory, &["alias", "tiny", HUB_ID]);
    assert!(good && text.contains(&format!("tiny answers to `{HUB_ID}` as well")), "{text}");
    let document = fs::read_to_string(directory.path().join("models/tiny/rollouts/00000002.json")).unwrap();
    assert!(document.contains("\"schema\": 2"), "older servers refuse it by its number: {document}");

    // From the first answer on, and as the default.
    let models = Some(path(&directory, "models"));
    let app = TestApp::with(&Settings { models, default_model: Some(HUB_ID.into()), ..settings() }).await;
    answered_everywhere(&app, HUB_ID).await;
    assert_eq!(app.post("/embed", json!({ "inputs": "a" })).await.status, 200);
    for name in [HUB_ID, &HUB_ID.replace('/', "%2F")] {
        let shown = app.get(&format!("/admin/v1/models/{name}")).await.json();
        assert_eq!((&shown["model"], &shown["aliases"]), (&json!("tiny"), &json!([HUB_ID])));
    }
    let given =
        app.post("/admin/v1/models/tiny/alias", json!({ "name": "Mini_LM.2", "reason": "a test" })).await;
    assert_eq!(given.status, 200, "{}", given.text());
    assert_eq!(embed(&app, "Mini_LM.2").await.header("x-sextant-version"), "tiny@1");
    let gone = json!({ "name": "Mini_LM.2", "remove": true, "reason": "a test" });
    assert_eq!(app.post(&format!("/admin/v1/models/{HUB_ID}/alias"), gone.clone()).await.status, 200);
    assert_eq!(embed(&app, "Mini_LM.2").await.status, 404);
    assert_eq!(app.post("/admin/v1/models/tiny/alias", gone).await.status, 409);
    for bad in ["a@1", "a/b/c", "/a", "a/", "", ".."] {
        let answer =
            app.post("/admin/v1/models/tiny/alias", json!({ "name": bad, "reason": "a test" })).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
    let (good, text) = change(&directory, &["alias", "tiny", HUB_ID, "--remove"]);
    assert!(good, "{text}");
    until("the alias is gone", async || embed(&app, HUB_ID).await.status == 404).await;
    let models = path(&directory, "models");
    let history = block_in_place(|| run(&["history", "tiny", "--models", &models]));
    let history = String::from_utf8(history.stdout).unwrap();
    assert!(history.contains(&format!("alias {HUB_ID}")), "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_means_two_models_is_refused_and_names_both() {
    let directory = imported();
    let checkpoint = path(&directory, "checkpoint");
    let (good, text) = change(&directory, &["import", &checkpoint, "--name", "twin"]);
    assert!(good, "{text}");
    for (model, alias) in [("tiny", "twin"), ("tiny", "tiny")] {
        let (good, text) = change(&directory, &["alias", model, alias]);
        assert!(!good && text.contains("is a name of the model"), "{text}");
    }
    assert!(change(&directory, &["alias", "tiny", "org/x"]).0);
    let (good, text) = change(&directory, &["alias", "twin", "org/x"]);
    assert!(!good && text.contains("`org/x` is a name of the model `tiny` already"), "{text}");
    assert!(change(&directory, &["alias", "tiny", "spare"]).0);
    let (good, text) = change(&directory, &["import", &checkpoint, "--name", "spare"]);
    assert!(!good && text.contains("`spare` is an alias of the model `tiny`"), "{text}");
    assert!(!directory.path().join("models/spare").exists());
    assert!(change(&directory, &["alias", "tiny", "spare", "--remove"]).0);

    // Two writers at the same moment do not see each other.
    let document = |model: &str| directory.path().join(format!("models/{model}/rollouts/00000002.json"));
    fs::copy(document("tiny"), document("twin")).unwrap();
    let (models, roles) = (Some(path(&directory, "models")), &["embed", "admin"][..]);
    let keys = entry("all", roles, "")
        + &entry("one", roles, "models = ['twin']")
        + &entry("stranger", roles, "models = ['x']");
    let app = TestApp::with(&Settings { models, keys: Some(keys), ..settings() }).await;
    let ask = async |who: &str, model: &str| {
        let body = json!({ "model": model, "input": "a" }).to_string().into_bytes();
        app.send("POST", "/v1/embeddings", bearer(&key(who)), body).await
    };
    let refused = ask("all", "org/x").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("tiny, twin"), "{}", refused.text());
    let refused = ask("one", "org/x").await;
    assert!(refused.status == 400 && !refused.text().contains("tiny"), "{}", refused.text());
    assert_eq!(ask("stranger", "org/x").await.status, 403);
    assert_eq!(ask("all", "tiny").await.status, 200);
    assert!(!app.send("GET", "/v1/models", bearer(&key("all")), Vec::new()).await.text().contains("org/x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_held_to_the_model_that_an_alias_stands_for() {
    let directory = imported();
    assert!(change(&directory, &["alias", "tiny", "org/x"]).0);
    // A key that is for a model of the alias' own name is not for the model that has the alias.
    assert!(change(&directory, &["alias", "tiny", "other"]).0);
    let roles = &["embed", "admin"][..];
    let keys = entry("tiny", roles, "models = ['tiny']") + &entry("second", roles, "models = ['other']");
    let models = Some(path(&directory, "models"));
    let app = TestApp::with(&Settings { models, keys: Some(keys), ..settings() }).await;
    let ask = async |who: &str, method: &str, path: &str, body: Value| {
        let body = if method == "POST" { body.to_string().into_bytes() } else { Vec::new() };
        app.send(method, path, bearer(&key(who)), body).await
    };
    for name in ["org/x", "other", "tiny", "org/x@1", "other@stable"] {
        for (who, expected) in [("tiny", 200), ("second", 403)] {
            let body = json!({ "model": name, "input": "a", "inputs": "a" });
            for (method, path) in [
                ("POST", "/v1/embeddings".to_owned()),
                ("POST", "/embed".to_owned()),
                ("POST", "/tokenize".to_owned()),
                ("GET", format!("/info?model={name}")),
                ("GET", format!("/v1/models/{name}")),
                ("GET", format!("/v2/models/{}/ready", name.replace('/', "%2F"))),
            ] {
                let answer = ask(who, method, &path, body.clone()).await;
                assert_eq!(answer.status, expected, "{who} {method} {path} {name}: {}", answer.text());
                assert!(expected == 200 || name.starts_with("tiny") || !answer.text().contains("tiny"));
            }
        }
    }
    for (who, expected) in [("tiny", 200), ("second", 403)] {
        assert_eq!(ask(who, "GET", "/admin/v1/models/org/x", json!(0)).await.status, expected);
        assert_eq!(ask(who, "POST", "/v2/models/org/x/infer", infer()).await.status, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_on_standby_answers_requests_that_name_it_or_its_space_and_no_other() {
    let directory = imported();
    let checkpoint = path(&directory, "checkpoint");
    let (good, text) = change(&directory, &["import", &checkpoint, "--name", "tiny", "--precision", "int8"]);
    assert!(good, "{text}");
    let app = TestApp::repository(Path::new(&path(&directory, "models"))).await;
    assert_eq!(embed(&app, "tiny@2").await.status, 404, "an idle version is not loaded");
    let (good, text) = change(&directory, &["rollout", "tiny@2", "--standby"]);
    assert!(good && text.contains("tiny@2 is on standby"), "{text}");
    until("the version on standby answers", async || embed(&app, "tiny@2").await.status == 200).await;
    assert_eq!(embed(&app, "tiny@standby").await.header("x-sextant-version"), "tiny@2");
    for _ in 0..50 {
        assert_eq!(embed(&app, "tiny").await.header("x-sextant-version"), "tiny@1");
    }
    assert_eq!(app.metric("sextant_version_role", &["\"2\"", "standby"]).await, 1.0);
    let shown = app.get("/admin/v1/models/tiny").await.json();
    assert_eq!(shown["versions"][1]["role"], "standby");
    let space = shown["versions"][1]["space"].as_str().unwrap();
    let headers = HeaderMap::from_iter([("x-sextant-space".parse().unwrap(), space.parse().unwrap())]);
    let body = json!({ "model": "tiny", "input": "a" }).to_string().into_bytes();
    let by_space = app.send("POST", "/v1/embeddings", headers, body).await;
    assert_eq!(by_space.header("x-sextant-version"), "tiny@2");

    // One that starts later has it, too.
    let later = TestApp::repository(Path::new(&path(&directory, "models"))).await;
    until("a server that starts has it", async || embed(&later, "tiny@2").await.status == 200).await;

    let route = |name: &str| format!("/admin/v1/models/tiny/{name}");
    let again = app.post(&route("rollout"), json!({ "version": 2, "standby": true, "reason": "a" })).await;
    assert_eq!(again.status, 409, "{}", again.text());
    let both = json!({ "version": 2, "standby": true, "force": true, "reason": "a" });
    assert_eq!(app.post(&route("rollout"), both).await.status, 400);
    let retired = app.post(&route("retire"), json!({ "version": 2, "reason": "a" })).await;
    assert_eq!(retired.status, 200, "{}", retired.text());
    assert_eq!(embed(&app, "tiny@2").await.status, 404);
    until("it is unloaded", async || {
        !app.get("/metrics").await.text().contains("role=\"standby\",version=\"2\"")
    })
    .await;
    let begun = app.post(&route("rollout"), json!({ "version": 2, "standby": true, "reason": "a" })).await;
    assert_eq!(begun.status, 200, "{}", begun.text());
    assert_eq!(embed(&app, "tiny@2").await.status, 200, "it is loaded when the answer says so");
    let rolled = app.post(&route("rollout"), json!({ "version": 2, "force": true, "reason": "a" })).await;
    assert_eq!(rolled.json()["rollout"]["schema"], 1, "{}", rolled.text());
    assert_eq!(embed(&app, "tiny@standby").await.status, 404, "it is stable now");
}
