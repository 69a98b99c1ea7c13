//! Two operators at two servers of one repository: what each is told is what the log says, and both servers serve it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sextant::rollout::Log;

use super::sync::ask;
use crate::admin::Tiny;
use crate::command::imported;
use crate::support;
use crate::support::app::{TestApp, until};

const ROUNDS: u32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_at_two_servers_make_one_log_and_are_told_what_is_in_it() {
    let directory = imported();
    let models = directory.path().join("models");
    let tiny = Tiny::beside(directory);
    let (one, two) = (tiny.serve().await, tiny.serve().await);
    let change = async |app: &TestApp, action: &str, body: Value| {
        let answer = app.post(&format!("/admin/v1/models/tiny/{action}"), body).await;
        assert!([200, 409].contains(&answer.status), "{}", answer.text());
        (answer.status == 200).then(|| answer.json()["rollout"].clone())
    };
    let mut told = BTreeMap::new();
    for round in 0..ROUNDS {
        let forward =
            json!({ "version": 2 - round % 2, "force": true, "reason": format!("forward {round}") });
        let other = match round % 3 {
            0 => ("rollout", json!({ "version": 3, "force": true, "reason": format!("other {round}") })),
            1 => ("rollback", json!({ "reason": format!("other {round}") })),
            _ => (
                "rollout",
                json!({ "version": 2 - round % 2, "force": true, "reason": format!("other {round}") }),
            ),
        };
        let both = tokio::join!(change(&one, "rollout", forward), change(&two, other.0, other.1));
        for document in [both.0, both.1].into_iter().flatten() {
            let number = document["number"].as_u64().unwrap();
            let twice = told.insert(number, (document["stable"].clone(), document["reason"].clone()));
            assert_eq!(twice, None, "each was told a number of its own");
        }
    }
    assert!(told.len() >= ROUNDS as usize / 2, "{told:?}");
    let repository = support::open(&models);
    let history = Log::open(&repository, "tiny").unwrap().history().await.unwrap();
    let history: Vec<_> = history.into_iter().map(Result::unwrap).collect();
    assert_eq!(history.len(), told.len() + 1, "a refused change writes nothing");
    let (mut before, mut stable) = (None, 0);
    for (document, number) in history.iter().zip(1..) {
        assert_eq!((document.number, document.from), (number, before), "one line");
        if let Some((stable, reason)) = told.get(&number) {
            assert_eq!((&json!(document.stable), &json!(document.reason)), (stable, reason));
        }
        (before, stable) = (Some(number), document.stable);
    }
    for app in [&one, &two] {
        let expected = (200, format!("tiny@{stable}"));
        until("both serve what the log says", async || ask(app, "tiny").await == expected).await;
    }
}
