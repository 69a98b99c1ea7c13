//! The table of routes and roles in docs/security.md, tried out on a real server. It must have every route: a new one fails here until it
//! has its row.

use std::collections::BTreeSet;

use reqwest::header::HeaderMap;
use serde_json::json;
use sextant::config::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{bearer, entry, key};
use crate::command::{imported, path};
use crate::support::app::{Answer, TestApp, client, settings};

const ROLES: [&str; 3] = ["embed", "admin", "metrics"];

/// A row of the table.
struct Row {
    method: String,
    path: String,
    /// Without a key, and with one of each role.
    may: [bool; 4],
    /// How `models` of a key holds: `refused`, `listed`, or nothing.
    models: String,
}

fn table() -> Vec<Row> {
    let document = include_str!("../../../docs/security.md");
    let (_, section) = document.split_once("## Who may do what").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    let rows = section.lines().filter(|line| line.starts_with("| `")).map(cells).map(|cells| {
        let (method, path) = cells[1].trim_matches('`').split_once(' ').unwrap();
        let may = [2, 3, 4, 5].map(|column| match cells[column].as_str() {
            "yes" => true,
            "" => false,
            other => panic!("{other}: expected yes or nothing"),
        });
        Row { method: method.into(), path: path.into(), may, models: cells[6].clone() }
    });
    rows.collect()
}

async fn serve(models: &str, admin_listen: bool) -> TestApp {
    let mut keys: String = ROLES.iter().map(|role| entry(role, &[role], "")).collect();
    keys += &entry("elsewhere", &["embed", "admin"], "models = ['other']");
    let (models, admin_listen) = (Some(models.to_owned()), admin_listen.then(|| "127.0.0.1:0".to_owned()));
    TestApp::with(&Settings { models, admin_listen, keys: Some(keys), ..settings() }).await
}

async fn ask(app: &TestApp, row: &Row, key: Option<&str>) -> Answer {
    let body = json!({
        "model": "tiny", "input": "a", "ids": [5],
        "inputs": if row.path == "/similarity" { json!({ "source_sentence": "a", "sentences": ["b"] }) } else { json!("a") },
    });
    // The administrators' routes refuse that body with 400: whoever gets so far is let in.
    let body = if row.method == "POST" { body.to_string().into_bytes() } else { Vec::new() };
    let path = row.path.replace("{model}", "tiny").replace("{version}", "1").replace("{file}", "page.js")
        + if row.path == "/info" { "?model=tiny" } else { "" };
    app.send(&row.method, &path, key.map(bearer).unwrap_or_default(), body).await
}

#[test]
fn the_table_has_every_route_and_no_other() {
    let rows: BTreeSet<(String, String)> = table().into_iter().map(|row| (row.method, row.path)).collect();
    let routes = sextant::http::known_routes().into_iter();
    assert_eq!(rows, routes.map(|(method, path)| (method.to_owned(), path.to_owned())).collect());
    assert_eq!(rows.len(), table().len(), "a route is there twice");
    let open = table().into_iter().filter(|row| row.may[0]).map(|row| row.path);
    assert_eq!(open.collect::<Vec<_>>(), ["/livez", "/readyz"], "the issue names these and no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_gets_its_routes_and_nobody_else_any() {
    let directory = imported();
    let app = serve(&path(&directory, "models"), false).await;
    for row in table() {
        let at = format!("{} {}", row.method, row.path);
        let keys = [None].into_iter().chain(ROLES.map(Some));
        for (role, may) in keys.zip(row.may) {
            let answer = ask(&app, &row, role.map(key).as_deref()).await;
            let expected = if role.is_none() { 401 } else { 403 };
            assert_eq!(
                answer.status == expected,
                !may,
                "{at} with {role:?}: {} {}",
                answer.status,
                answer.text()
            );
            assert!(!may || !matches!(answer.status, 401 | 403), "{at} with {role:?}: {}", answer.status);
            if answer.status == 401 {
                assert_eq!(answer.header("www-authenticate"), "Bearer", "{at}");
            }
        }
        // What is no key is as good as none.
        for wrong in [key("nobody"), key("embed") + "-", key("embed")[1..].to_owned(), String::new()] {
            assert_eq!(ask(&app, &row, Some(&wrong)).await.status == 401, !row.may[0], "{at} with {wrong}");
        }
        let elsewhere = ask(&app, &row, Some(&key("elsewhere"))).await;
        match row.models.as_str() {
            "refused" => assert_eq!(elsewhere.status, 403, "{at}: {}", elsewhere.text()),
            "listed" => assert!(elsewhere.status == 200 && !elsewhere.text().contains("tiny"), "{at}"),
            // By its roles, embed and admin, alone.
            "" => assert_eq!(elsewhere.status == 403, !(row.may[1] || row.may[2]), "{at}"),
            other => panic!("{at}: {other}: expected refused, listed or nothing"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_route_is_not_told_to_strangers_and_refusals_are_in_the_dialect() {
    let directory = imported();
    let app = serve(&path(&directory, "models"), true).await;
    let none = app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a" })).await;
    assert_eq!((none.status, &none.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    let embed = bearer(&key("embed"));
    // Of a body that is not read: it may be anything.
    let large = app.send("POST", "/embed", HeaderMap::new(), vec![b'['; 1 << 20]).await;
    assert_eq!((large.status, &large.json()["error_type"]), (401, &json!("Unauthorized")));
    let named = |model: &str| json!({ "model": model, "input": "a" }).to_string().into_bytes();
    let refused = async |model| {
        let answer = app.send("POST", "/v1/embeddings", bearer(&key("elsewhere")), named(model)).await;
        let error = answer.json()["error"].clone();
        (answer.status, error["param"].clone(), error["message"].as_str().unwrap().replace(model, "NAME"))
    };
    let there = refused("tiny").await;
    assert_eq!((there.0, &there.1), (403, &json!("model")));
    assert_eq!(there, refused("nowhere").await, "whether there is such a model is not told");
    assert_eq!(there, refused("nowhere").await);
    let other = app.send("POST", "/v1/embeddings", bearer(&key("elsewhere")), named("other")).await;
    assert!(other.status == 404 && !other.text().contains("tiny"), "{}", other.text());
    // A key for one model has it as its default.
    let unnamed = app.send("POST", "/embed", bearer(&key("elsewhere")), br#"{"inputs": "a"}"#.to_vec()).await;
    assert!(unnamed.status == 404 && unnamed.text().contains("`other`"), "{}", unnamed.text());

    for address in [app.address, app.admin.unwrap()] {
        for path in [
            "/nowhere",
            "/v1",
            "/admin",
            "/livez/",
            "//livez",
            "/livez/..%2fmetrics",
            "/readyz/../metrics",
            "/LIVEZ",
            "/livez%00",
            "/livez;/metrics",
            "http://x/metrics",
            "*",
        ] {
            for method in ["GET", "HEAD", "POST", "OPTIONS", "DELETE", "BREW"] {
                let head = raw(address, &format!("{method} {path} HTTP/1.1")).await;
                let refused = head.starts_with("HTTP/1.1 401 ") || head.starts_with("HTTP/1.1 400 ");
                assert!(refused, "{method} {path}: {head}");
            }
        }
    }
    assert_eq!(app.send("GET", "/nowhere", embed, Vec::new()).await.status, 404);

    // The operators' own listener asks for the same keys.
    let url = format!("http://{}", app.admin.unwrap());
    for (path, key_name, expected) in [
        ("/livez", None, 200),
        ("/readyz", None, 200),
        ("/metrics", None, 401),
        ("/metrics", Some("embed"), 403),
        ("/metrics", Some("metrics"), 200),
        ("/admin/v1/models", None, 401),
        ("/admin/v1/models", Some("admin"), 200),
    ] {
        let mut request = client().get(format!("{url}{path}"));
        if let Some(name) = key_name {
            request = request.bearer_auth(key(name));
        }
        assert_eq!(request.send().await.unwrap().status(), expected, "{path} with {key_name:?}");
    }
    let ready = async |request: reqwest::RequestBuilder| request.send().await.unwrap().text().await.unwrap();
    let address = format!("{url}/readyz");
    assert!(!ready(client().get(&address)).await.contains("tiny"), "models are not for strangers");
    assert!(ready(client().get(&address).bearer_auth(key("embed"))).await.contains("tiny@1"));
    assert!(!ready(client().get(&address).bearer_auth(key("elsewhere"))).await.contains("tiny"));
}

/// The head of what is answered to a line that no client would send.
async fn raw(address: std::net::SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{line}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
