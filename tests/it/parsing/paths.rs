//! Ways to write a path, and a model's name in one: a key opens its own routes and models by none of them.

use serde_json::json;
use sextant::config::Settings;

use crate::command::{imported, path};
use crate::keys::{entry, key};
use crate::support::app::{TestApp, settings};
use crate::support::wire::{Reply, exchange};

const ROLES: [&str; 3] = ["embed", "admin", "metrics"];

/// A server of `tiny` with a key for each role, and one for another model that has two roles.
async fn serve(models: &str, admin_listen: bool) -> TestApp {
    let keys: String = ROLES.iter().map(|role| entry(role, &[role], "")).collect();
    let keys = keys + &entry("elsewhere", &["embed", "admin"], "models = ['other']");
    let admin_listen = admin_listen.then(|| "127.0.0.1:0".to_owned());
    let settings = Settings { models: Some(models.to_owned()), admin_listen, keys: Some(keys), ..settings() };
    TestApp::with(&settings).await
}

/// The answer to one request, whose target is sent as it is.
async fn ask(app: &TestApp, method: &str, target: &str, name: Option<&str>, body: &str) -> Reply {
    let authorization =
        name.map(|name| format!("authorization: Bearer {}\r\n", key(name))).unwrap_or_default();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: test\r\n{authorization}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut replies = exchange(app.address, head.as_bytes()).await;
    assert_eq!(replies.len(), 1, "{method} {target}: {replies:?}");
    replies.remove(0)
}

/// Ways to write `path` by which some server or proxy reads it as that path, or another as it.
fn ways(path: &str) -> Vec<String> {
    let rest = &path[1..];
    let first = char::from(rest.as_bytes()[0]);
    let hidden = rest.replace('/', "%2f");
    let mut ways: Vec<String> = [
        "{path}",
        "{path}?",
        "{path}?x=y",
        "{path}#x",
        "{path}/",
        "{path}//",
        "{path}/.",
        "{path}/./",
        "{path}/x/..",
        "{path}/%2e",
        "{path};",
        "{path};x=y",
        "{path}%00",
        "{path}%20",
        "{path}%09",
        "{path}%0d%0ax:%20y",
        "{path}%3f",
        "{path}%23",
        "{path}.json",
        "{path}\\",
        "//{rest}",
        "///{rest}",
        "/./{rest}",
        "/.//{rest}",
        "/;/{rest}",
        "/;x=y/{rest}",
        "/%2e/{rest}",
        "/%2f{rest}",
        "/%5c{rest}",
        "/\\{rest}",
        "/%252f{rest}",
        "/x/../{rest}",
        "/livez/../{rest}",
        "/livez/%2e%2e/{rest}",
        "/livez/..%2f{rest}",
        "/livez/..;/{rest}",
        "/livez;/../{rest}",
        "/livez%00/../{rest}",
        "/livez?/../{rest}",
        "/livez//{rest}",
        "/docs/..%2f{rest}",
        "/docs/../{rest}",
        "/embed/../{rest}",
        "/v1/models/../../{rest}",
        "/v1/models/..%2f..%2f{rest}",
        "/v2/models/x/../../../{rest}",
        "/{hidden}",
        "//test/{rest}",
        "//livez@test/{rest}",
        "http://test{path}",
        "HTTP://test{path}",
        "https://test{path}",
        "http://127.0.0.1{path}",
        "http://x@127.0.0.1{path}",
        "http://livez{path}",
        "http://test/livez/..{path}",
        "http:{path}",
        "file://{path}",
    ]
    .map(|way| way.replace("{path}", path).replace("{rest}", rest).replace("{hidden}", &hidden))
    .into();
    ways.push(path.to_uppercase());
    ways.push(format!("/{}{}", first.to_ascii_uppercase(), &rest[1..]));
    ways.push(format!("/%{:02x}{}", u32::from(first), &rest[1..]));
    ways.push(format!("/%{:02X}{}", u32::from(first), &rest[1..]));
    ways
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_to_write_a_path_opens_what_a_key_is_not_for() {
    let directory = imported();
    let app = serve(&path(&directory, "models"), false).await;
    let rollback = json!({ "reason": "x", "to": 1 }).to_string();
    let vector = json!({ "model": "tiny", "input": "a", "inputs": "a" }).to_string();
    let mut asked = 0;
    for (method, path, owner, body) in [
        ("GET", "/metrics", "metrics", ""),
        ("GET", "/admin/v1/models", "admin", ""),
        ("POST", "/admin/v1/models/tiny/rollback", "admin", &rollback),
        ("POST", "/v1/embeddings", "embed", &vector),
        ("GET", "/v1/models", "embed", ""),
    ] {
        let own = ask(&app, method, path, Some(owner), body).await;
        assert!(![401, 403].contains(&own.status), "{path}: {own:?}");
        for way in ways(path) {
            for name in [None, Some("embed"), Some("admin"), Some("metrics")]
                .into_iter()
                .filter(|name| *name != Some(owner))
            {
                let reply = ask(&app, method, &way, name, body).await;
                asked += 1;
                // Only what is behind the question mark is no part of a path.
                let is_livez = way.starts_with("/livez?") && method == "GET";
                let expected = if is_livez { &[200][..] } else { &[400, 401, 403, 404, 405] };
                assert!(expected.contains(&reply.status), "{method} {way} with {name:?}: {reply:?}");
                let is_stranger = name.is_none() && !is_livez;
                assert!(
                    !is_stranger || way.starts_with("/livez?") || [400, 401].contains(&reply.status),
                    "{method} {way}: {reply:?}"
                );
                let told = ["sextant_", "documents", "embedding\":", "\"object\":\"list\"", "\"versions\""]
                    .iter()
                    .any(|own| reply.body.contains(own));
                assert!(!told, "{method} {way} with {name:?}: {reply:?}");
            }
        }
    }
    assert!(asked > 800, "{asked}");
}

/// What is rolled out, and what a key for another model is told of it.
#[tokio::test(flavor = "multi_thread")]
async fn no_way_to_write_a_models_name_opens_a_model_that_a_key_is_not_for() {
    let directory = imported();
    // A directory beside the repository, with the files of a model.
    std::fs::rename(directory.path().join("checkpoint"), directory.path().join("secret")).unwrap();
    let app = serve(&path(&directory, "models"), false).await;
    let names = [
        "tiny",
        "tiny@1",
        "tiny@stable",
        "tiny%401",
        "%74iny",
        "t%69ny",
        "TINY",
        "Tiny",
        "tiny%20",
        "%20tiny",
        "tiny%00",
        "tiny/",
        "./tiny",
        "tiny/.",
        "..%2ftiny",
        "other/../tiny",
        "other%2f..%2ftiny",
        "other/tiny",
        "tiny/other",
        "tiny%2fother",
        "tiny;other",
        "tiny,other",
        "other,tiny",
        "%ff",
        "%ff%2ftiny",
        "tiny%ff",
        "tiny?model=other",
        "tiny#other",
        "*",
        "%2a",
        "@1",
        "other@1/tiny",
        "../models/tiny",
        "..%2fmodels%2ftiny",
        "..%2fsecret",
        "%2e%2e%2fsecret",
        "../../etc",
        "tiny%0d%0ax:y",
    ];
    let body = json!({ "input": "a", "inputs": [{ "name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"] }], "reason": "x" }).to_string();
    for name in names {
        for (method, path) in [
            ("GET", "/v1/models/{}"),
            ("GET", "/info?model={}"),
            ("GET", "/v2/models/{}"),
            ("GET", "/v2/models/{}/ready"),
            ("GET", "/v2/models/{}/versions/1"),
            ("POST", "/v2/models/{}/infer"),
            ("POST", "/v2/models/{}/versions/1/infer"),
            ("GET", "/admin/v1/models/{}"),
            ("GET", "/admin/v1/models/{}/rollouts"),
            ("GET", "/admin/v1/models/{}/drift"),
            ("POST", "/admin/v1/models/{}/rollback"),
            ("POST", "/admin/v1/models/{}/verify"),
        ] {
            let target = path.replace("{}", name);
            let reply =
                ask(&app, method, &target, Some("elsewhere"), if method == "POST" { &body } else { "" })
                    .await;
            assert!([400, 403, 404, 405].contains(&reply.status), "{method} {target}: {reply:?}");
            let told = ["\"spaces\"", "dimensions", "tiny@1\"", "documents"]
                .iter()
                .any(|own| reply.body.contains(own));
            assert!(!told, "{method} {target}: {reply:?}");
            // Nor does a name lead an administrator out of the repository.
            if path.starts_with("/admin/")
                && !name.to_lowercase().starts_with("tiny")
                && !name.contains("74iny")
                && !name.contains("69ny")
            {
                let reply =
                    ask(&app, method, &target, Some("admin"), if method == "POST" { &body } else { "" })
                        .await;
                assert!(
                    (400..500).contains(&reply.status),
                    "{method} {target} by an administrator: {reply:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_to_name_a_model_in_a_body_opens_one_that_a_key_is_not_for() {
    let directory = imported();
    let app = serve(&path(&directory, "models"), false).await;
    let body = |model: &str| format!(r#"{{"input": "a", "inputs": "a", {model}}}"#);
    let good = ask(&app, "POST", "/v1/embeddings", Some("embed"), &body(r#""model": "\u0074iny""#)).await;
    assert_eq!(good.status, 200, "{good:?}");
    for model in [
        r#""model": "tiny""#,
        r#""model": "\u0074iny""#,
        r#""model": "tiny@1""#,
        r#""model": "tiny@stable""#,
        r#""model": "other", "model": "tiny""#,
        r#""model": "tiny", "model": "other""#,
        r#""model": "other", "mode\u006c": "tiny""#,
        r#""model": "other", "Model": "tiny""#,
        r#""model": ["other", "tiny"]"#,
        r#""model": ["tiny"]"#,
        r#""model": {"other": "tiny"}"#,
        r#""model": "other\u0000tiny""#,
        r#""model": "tiny\u0000""#,
        r#""model": "tiny ""#,
        r#""model": "TINY""#,
        r#""model": "../other/../tiny""#,
        r#""model": "other,tiny""#,
        r#""model": """#,
        r#""model": null"#,
        r#""deployment": "tiny""#,
        r#""model_id": "tiny""#,
    ] {
        for path in [
            "/v1/embeddings",
            "/v1/embeddings?model=tiny",
            "/embed",
            "/embed?model=tiny",
            "/embed_all",
            "/tokenize",
        ] {
            let reply = ask(&app, "POST", path, Some("elsewhere"), &body(model)).await;
            assert!([400, 403, 404, 422].contains(&reply.status), "{path} {model}: {reply:?}");
            assert!(
                !reply.body.contains("dimensions") && !reply.body.contains("tiny@1\""),
                "{path} {model}: {reply:?}"
            );
        }
    }
}

/// 39 routes by four callers at two listeners: a route of one listener is none at the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_at_its_own_listener_alone_whatever_the_key() {
    let directory = imported();
    let app = serve(&path(&directory, "models"), true).await;
    let (mut cells, admin) = (0, app.admin.unwrap());
    let operators = ["/livez", "/readyz", "/metrics"];
    for (method, route) in sextant::http::known_routes() {
        let target = route.replace("{model}", "tiny").replace("{version}", "1").replace("{file}", "page.js");
        let is_operators = operators.contains(&route) || route.starts_with("/admin/");
        for (address, is_own) in [(app.address, !is_operators), (admin, is_operators)] {
            for name in [None].into_iter().chain(ROLES.map(Some)) {
                let authorization =
                    name.map(|name| format!("authorization: Bearer {}\r\n", key(name))).unwrap_or_default();
                let head = format!(
                    "{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{authorization}content-length: 0\r\n\r\n"
                );
                let replies = exchange(address, head.as_bytes()).await;
                let [only] = replies.as_slice() else { panic!("{head:?}: {replies:?}") };
                cells += 1;
                if !is_own {
                    let expected = if name.is_none() { 401 } else { 404 };
                    assert_eq!(only.status, expected, "{method} {target} with {name:?} at {address}");
                }
            }
        }
    }
    assert_eq!(cells, 8 * sextant::http::known_routes().len());
}
