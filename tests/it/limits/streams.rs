//! HTTP/2 clients that do what no library lets one do: their frames are written by hand.

use h2::Reason;
use sextant::config::ConnectionsSettings;

use super::{connect, get, with, works};
use crate::support::app::{TestApp, until};
use crate::support::frames::{
    END_HEADERS, GO_AWAY, HEADERS, POST, RESET, SETTINGS, frame, next, open, streams,
};

/// SETTINGS_MAX_CONCURRENT_STREAMS.
const MAX_STREAMS: u16 = 3;

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_their_connection_and_no_other() {
    let (app, fake) = TestApp::fake().await;
    let (mut honest, connection) = h2::client::handshake(connect(&app).await).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(get(&mut honest, "/health").await, Ok(200.try_into().unwrap()));
    let cancel = u32::from(Reason::CANCEL).to_be_bytes();
    let taken_back = |number| [frame(HEADERS, END_HEADERS, number, POST), frame(RESET, 0, number, &cancel)];
    let rapid: Vec<Vec<u8>> = streams(1000).flat_map(taken_back).collect();
    let mut rapid = open(app.address, &rapid.concat()).await;
    let told = next(&mut rapid, GO_AWAY).await;
    assert_eq!(Reason::from(told.number(4)), Reason::ENHANCE_YOUR_CALM);
    assert_eq!(get(&mut honest, "/health").await, Ok(200.try_into().unwrap()));
    assert_eq!(fake.rows(), 0);
    until("it is gone", async || {
        // The honest one, and the one that asks.
        app.metric("sextant_connections", &["listener=\"public\""]).await == 2.0
    })
    .await;
    works(&app).await;
}

#[tokio::test]
async fn a_connection_has_no_more_streams_than_the_server_says() {
    let few = ConnectionsSettings { max_streams: Some(3), ..ConnectionsSettings::default() };
    let (app, _) = TestApp::fake_with(&with(few), |_| ()).await;
    let posts: Vec<Vec<u8>> = streams(4).map(|number| frame(HEADERS, END_HEADERS, number, POST)).collect();
    let mut greedy = open(app.address, &posts.concat()).await;
    let settings = next(&mut greedy, SETTINGS).await;
    let mut said = settings.payload.chunks(6).filter(|pair| pair[..2] == MAX_STREAMS.to_be_bytes());
    assert_eq!(said.next().unwrap()[2..], 3u32.to_be_bytes());
    let refused = next(&mut greedy, RESET).await;
    assert_eq!((refused.stream, Reason::from(refused.number(0))), (7, Reason::REFUSED_STREAM));
    works(&app).await;
}
