//! The page at `/docs`: everything that it loads comes from this server, at whatever path it lies. Its looks are tests/docs.

use reqwest::header::HeaderMap;
use sextant::config::Settings;

use crate::keys::{bearer, entry, key};
use crate::support::app::{Answer, TestApp, client, settings};

const FILES: [(&str, &str); 3] = [
    ("page.js", "text/javascript"),
    ("swagger-ui-bundle.js", "text/javascript"),
    ("swagger-ui.css", "text/css"),
];

fn check_headers(answer: &Answer) {
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    for loose in ["unsafe", "http", "*"] {
        assert!(!policy.contains(loose), "{policy}");
    }
}

/// The values of `src` and `href` in a page.
fn addresses(page: &str) -> Vec<&str> {
    let parts = page.split(['<', ' ']).filter_map(|part| {
        part.strip_prefix("src=\"")
            .or_else(|| part.strip_prefix("href=\""))
            .and_then(|rest| rest.split('"').next())
    });
    parts.collect()
}

#[tokio::test]
async fn the_page_loads_its_files_and_nothing_else() {
    let (app, _) = TestApp::fake().await;
    let page = app.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    check_headers(&page);
    let files = FILES.map(|(name, _)| format!("docs/{name}"));
    let mut loaded = addresses(page.text());
    loaded.retain(|address| !["data:,", "openapi.yaml"].contains(address));
    loaded.sort_unstable();
    assert_eq!(loaded, files, "relative to the page, and no other host's");
    let script = app.get("/docs/page.js").await;
    assert!(script.text().contains("url: \"openapi.yaml\"") && script.text().contains("validatorUrl: null"));
    for text in [page.text(), script.text()] {
        assert!(!text.contains("://"), "another host: {text}");
    }
}

#[tokio::test]
async fn the_files_are_of_their_kinds_and_sent_once() {
    let (app, _) = TestApp::fake().await;
    for (name, kind) in FILES {
        let path = format!("/docs/{name}");
        let file = app.get(&path).await;
        assert_eq!(file.status, 200);
        assert_eq!(file.header("content-type"), format!("{kind}; charset=utf-8"));
        assert!(!file.body.is_empty());
        check_headers(&file);
        let tag = file.header("etag");
        for (known, status) in [
            (tag.to_owned(), 304),
            (format!("W/{tag}"), 304),
            (format!("\"other\", {tag}"), 304),
            ("\"other\"".to_owned(), 200),
        ] {
            let headers = HeaderMap::from_iter([("if-none-match".parse().unwrap(), known.parse().unwrap())]);
            let again = app.send("GET", &path, headers, Vec::new()).await;
            assert_eq!((again.status, again.body.is_empty()), (status, status == 304), "{known}");
            assert_eq!(again.header("etag"), tag);
        }
    }
}

#[tokio::test]
async fn what_the_page_does_not_load_is_not_there() {
    let (app, _) = TestApp::fake().await;
    for name in ["index.html", "page.html", "swagger-ui-bundle.js.map", "..%2fopenapi.yaml"] {
        let answer = app.get(&format!("/docs/{name}")).await;
        assert_eq!((answer.status, &answer.json()["error_type"]), (404, &"NotFound".into()), "{name}");
    }
    assert_eq!(
        app.metric("sextant_http_requests_total", &["route=\"/docs/{file}\"", "status=\"404\""]).await,
        4.0
    );
}

#[tokio::test]
async fn the_page_is_served_with_the_data_routes() {
    let apart = Settings { admin_listen: Some("127.0.0.1:0".into()), ..settings() };
    let (app, _) = TestApp::fake_with(&apart, |_| ()).await;
    assert_eq!(app.get("/docs").await.status, 200);
    let there = format!("http://{}/docs", app.admin.unwrap());
    assert_eq!(client().get(there).send().await.unwrap().status().as_u16(), 404);
}

#[tokio::test]
async fn where_there_are_keys_the_page_says_what_a_browser_can_do() {
    let keys = Some(entry("search", &["embed"], ""));
    let (app, _) = TestApp::fake_with(&Settings { keys, ..settings() }, |_| ()).await;
    for path in ["/docs".to_owned()].into_iter().chain(FILES.map(|(name, _)| format!("/docs/{name}"))) {
        let refused = app.get(&path).await;
        let error = refused.json()["error"].to_string();
        assert!(
            refused.status == 401 && error.contains("through a proxy"),
            "{path}: {} {error}",
            refused.status
        );
        // As a proxy passes it on.
        assert_eq!(app.send("GET", &path, bearer(&key("search")), Vec::new()).await.status, 200, "{path}");
    }
}
