//! Ways to send a key: one is right, and what a proxy may read otherwise is no key.

use axum::http::Request;

use super::BODY;
use crate::keys::{entry, key};
use crate::support::app::{TestApp, settings};
use crate::support::fake::Fake;
use crate::support::wire::exchange;

async fn with_keys() -> (TestApp, Fake) {
    let keys = entry("embed", &["embed"], "") + &entry("ops", &["admin"], "");
    TestApp::fake_with(&sextant::config::Settings { keys: Some(keys), ..settings() }, |_| ()).await
}

/// The status of a request for a vector with these headers, its target's query among them.
async fn status(app: &TestApp, query: &str, headers: &str) -> u16 {
    let head = format!(
        "POST /v1/embeddings{query} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        BODY.len()
    );
    let replies = exchange(app.address, (head.clone() + BODY).as_bytes()).await;
    let [only] = replies.as_slice() else { panic!("{head:?}: {replies:?}") };
    only.status
}

#[tokio::test]
async fn a_key_is_one_header_in_one_form() {
    let (app, fake) = with_keys().await;
    let good = key("embed");
    let mut answered = 0;
    for headers in [
        format!("authorization: Bearer {good}\r\n"),
        format!("AUTHORIZATION:bearer {good}\r\n"),
        format!("authorization: \t BEARER   {good} \t\r\n"),
    ] {
        assert_eq!(status(&app, "", &headers).await, 200, "{headers:?}");
        answered += 1;
    }
    let encoded = "c3h0X2VtYmVkOg==";
    for headers in [
        String::new(),
        "authorization:\r\n".to_owned(),
        "authorization: Bearer\r\n".to_owned(),
        "authorization: Bearer \r\n".to_owned(),
        format!("authorization: {good}\r\n"),
        format!("authorization: Bearer{good}\r\n"),
        format!("authorization: Bearer\t{good}\r\n"),
        format!("authorization: Bearer: {good}\r\n"),
        format!("authorization: Bearer \"{good}\"\r\n"),
        format!("authorization: Bearer {good},\r\n"),
        format!("authorization: Bearer {good} {good}\r\n"),
        format!("authorization: Bearer {good}, Bearer {good}\r\n"),
        format!("authorization: Bearer {good}x\r\n"),
        format!("authorization: Bearer {}\r\n", &good[..good.len() - 1]),
        format!("authorization: Bearer {}\r\n", good.to_uppercase()),
        format!("authorization: Bearer {}%2d\r\n", &good[..good.len() - 1]),
        format!("authorization: Bearer \u{a0}{good}\r\n"),
        format!("authorization: Basic {encoded}\r\n"),
        format!("authorization: Basic {good}\r\n"),
        format!("authorization: Token {good}\r\n"),
        // A proxy may look at the first or the last of two, whichever is the good one.
        format!("authorization: Bearer {good}\r\nauthorization: Bearer {good}\r\n"),
        format!("authorization: Bearer {good}\r\nAuthorization: Bearer x\r\n"),
        format!("authorization: Bearer x\r\nauthorization: Bearer {good}\r\n"),
        format!("authorization: Bearer {good}\r\nauthorization:\r\n"),
        format!("authorization: Bearer {good}\r\nauthorization: Basic {encoded}\r\n"),
        // Other names, as other servers have them.
        format!("authorization_: Bearer {good}\r\n"),
        format!("proxy-authorization: Bearer {good}\r\n"),
        format!("x-authorization: Bearer {good}\r\n"),
        format!("x-original-authorization: Bearer {good}\r\n"),
        format!("x-forwarded-authorization: Bearer {good}\r\n"),
        format!("api-key: {good}\r\nx-api-key: {good}\r\n"),
        format!("cookie: authorization=Bearer {good}; api_key={good}\r\n"),
    ] {
        assert_eq!(status(&app, "", &headers).await, 401, "{headers:?}");
    }
    for query in
        [format!("?api_key={good}"), format!("?authorization=Bearer%20{good}"), format!("?key={good}")]
    {
        assert_eq!(status(&app, &query, "").await, 401, "{query}");
    }
    for headers in [
        format!("authorization : Bearer {good}\r\n"),
        format!("authorization:\r\n Bearer {good}\r\n"),
        format!("authorization: Bearer\r\n {good}\r\n"),
        format!("x: y\r\n authorization: Bearer {good}\r\n"),
        format!("authorization: Bearer {good}\0\r\n"),
        format!("authorization: Bearer {good}\x0b\r\n"),
    ] {
        assert_eq!(status(&app, "", &headers).await, 400, "{headers:?}");
    }
    assert_eq!(fake.rows(), answered);
}

#[tokio::test]
async fn by_http_2_two_keys_are_none_as_well() {
    let (app, fake) = with_keys().await;
    let stream = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let good = format!("Bearer {}", key("embed"));
    for (given, expected) in [
        (&[good.as_str()][..], 200),
        (&[good.as_str(), good.as_str()], 401),
        (&[good.as_str(), "Bearer x"], 401),
        (&["Bearer x", good.as_str()], 401),
        (&[], 401),
    ] {
        let request = Request::post("http://test/v1/embeddings").header("content-type", "application/json");
        let request = given.iter().fold(request, |request, value| request.header("authorization", *value));
        let mut ready = sender.clone().ready().await.unwrap();
        let (response, mut body) = ready.send_request(request.body(()).unwrap(), false).unwrap();
        // What is refused may be refused before its body is there.
        let _refused = body.send_data(BODY.into(), true);
        assert_eq!(response.await.unwrap().status(), expected, "{given:?}");
    }
    assert_eq!(fake.rows(), 1);
}

/// What other servers and proxies obey, and a proxy in front may let through.
#[tokio::test]
async fn headers_that_name_another_path_or_method_change_nothing() {
    let (app, fake) = with_keys().await;
    let good = format!("authorization: Bearer {}\r\n", key("embed"));
    for name in [
        "x-original-url",
        "x-rewrite-url",
        "x-original-uri",
        "x-forwarded-uri",
        "x-forwarded-path",
        "x-forwarded-prefix",
        "x-envoy-original-path",
    ] {
        for path in ["/admin/v1/models", "/metrics", "/livez"] {
            let header = format!("{name}: {path}\r\n");
            assert_eq!(status(&app, "", &header).await, 401, "{header}");
            assert_eq!(status(&app, "", &(header.clone() + &good)).await, 200, "{header}");
            let open = format!("GET /livez HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{header}\r\n");
            let replies = exchange(app.address, open.as_bytes()).await;
            assert_eq!((replies.len(), replies[0].status), (1, 200), "{header}");
            assert_eq!(replies[0].body, app.get("/livez").await.text(), "{header}");
        }
    }
    let computed = fake.rows();
    for name in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-method",
        "x-forwarded-method",
    ] {
        for (method, path) in [("GET", "/v1/embeddings"), ("GET", "/embed"), ("DELETE", "/v1/embeddings")] {
            let head = format!(
                "{method} {path}?_method=POST HTTP/1.1\r\nhost: test\r\n{name}: POST\r\nconnection: close\r\n{good}content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
                BODY.len()
            );
            let replies = exchange(app.address, head.as_bytes()).await;
            assert_eq!((replies.len(), replies[0].status), (1, 405), "{name}: {method} {path}");
        }
    }
    assert_eq!(fake.rows(), computed);
}
