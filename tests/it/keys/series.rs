//! Series are of names in the keys file, however many keys there are and are tried.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use sextant::config::Settings;
use tower::ServiceExt as _;

use super::{entry, key};
use crate::support::app::{fake_app, settings};

async fn get(router: &Router, path: &str, authorization: &str) -> (u16, String) {
    let request =
        Request::builder().uri(path).header("authorization", authorization).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Every series, without its value.
async fn series(router: &Router) -> BTreeSet<String> {
    let (_, page) = get(router, "/metrics", &format!("Bearer {}", key("watch"))).await;
    let lines = page.lines().filter(|line| line.starts_with("sextant_"));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn ten_thousand_bogus_keys_add_no_series() {
    let keys = entry("watch", &["metrics"], "") + &entry("a", &["embed"], "");
    let (app, ..) = fake_app(&Settings { keys: Some(keys), ..settings() }, |_| ());
    let router = sextant::http::public(&app, true);
    let ask = async |given: String| get(&router, "/v1/models", &given).await.0;
    assert_eq!((ask("Bearer nonsense".into()).await, ask(format!("Bearer {}", key("a"))).await), (401, 200));
    let before = series(&router).await;
    for number in 0..10_000 {
        assert_eq!(ask(format!("Bearer {}", key(&number.to_string()))).await, 401);
    }
    let after = series(&router).await;
    assert_eq!(before, after);
    let (_, page) = get(&router, "/metrics", &format!("Bearer {}", key("watch"))).await;
    assert!(page.contains(r#"sextant_key_requests_total{key="none",status="401"} 10001"#), "{page}");
    assert!(page.contains(r#"sextant_key_requests_total{key="a",status="200"} 1"#), "{page}");
}

#[tokio::test]
async fn a_long_file_has_series_of_its_first_names_and_one_for_the_rest() {
    let name = |number: usize| format!("key-{number}");
    let entries = (0..300).map(|number| entry(&name(number), &["embed"], ""));
    let keys = [entry("watch", &["metrics"], "")].into_iter().chain(entries).collect::<String>();
    let (app, ..) = fake_app(&Settings { keys: Some(keys), ..settings() }, |_| ());
    let router = sextant::http::public(&app, true);
    for number in 0..300 {
        assert_eq!(get(&router, "/v1/models", &format!("Bearer {}", key(&name(number)))).await.0, 200);
    }
    let labels: BTreeSet<String> = series(&router)
        .await
        .into_iter()
        .filter_map(|line| {
            Some(line.strip_prefix("sextant_key_requests_total{key=\"")?.split('"').next()?.to_owned())
        })
        .collect();
    // 256 names, and none and other.
    assert_eq!(labels.len(), 258, "{labels:?}");
    assert!(labels.contains("other") && labels.contains("key-254") && !labels.contains("key-255"));
}
