//! Bodies in chunks whose sizes, extensions, ends or trailers can be read in two ways.

use super::End::{Alone, Both};
use super::{BODY, SMUGGLED, all_end, hasty, outer};
use crate::support::app::TestApp;

/// A request of these chunks.
fn request(chunks: &str) -> String {
    outer("transfer-encoding: chunked\r\n") + chunks
}

#[tokio::test]
async fn a_chunk_that_is_not_clear_is_refused_and_ends_the_connection() {
    let (app, fake) = TestApp::fake().await;
    let size = format!("{:x}", BODY.len());
    let sizes = [
        format!("+{size}"),
        format!("-{size}"),
        format!("0x{size}"),
        format!("{size}h"),
        format!("{size} 0"),
        format!(" {size}"),
        format!("\t{size}"),
        format!("\x0b{size}"),
        format!("{size}\0"),
        format!("{size},{size}"),
        format!("{size}\r"),
        format!("{size}\r\r"),
        format!("{size};a\nb"),
        format!("{size};a=\"\n\""),
        format!("{size}; {}", "a".repeat(20_000)),
        String::new(),
        ";a=b".to_owned(),
        "\r\n".to_owned(),
        // Of 64 bits and more, which others would count as this size.
        format!("10000000000000000{size}"),
        "fffffffffffffffffffff".to_owned(),
    ];
    let sized = sizes.iter().map(|size| format!("{size}\r\n{BODY}\r\n0\r\n\r\n{SMUGGLED}"));
    let others = [
        // Lines that end without CR.
        format!("{size}\n{BODY}\r\n0\r\n\r\n{SMUGGLED}"),
        format!("{size}\r\n{BODY}\n0\r\n\r\n{SMUGGLED}"),
        format!("{size}\r\n{BODY}\r\n0\n\r\n{SMUGGLED}"),
        // More and less than was said.
        format!("3\r\n{BODY}\r\n0\r\n\r\n{SMUGGLED}"),
        format!("{size}\r\n{BODY}0\r\n\r\n{SMUGGLED}"),
        format!("{size}\r\n{BODY}\r\n{:x}\r\n{SMUGGLED}xx0\r\n\r\n", SMUGGLED.len()),
        // What should be the end or a trailer, and is none.
        format!("{size}\r\n{BODY}\r\n-0\r\n\r\n{SMUGGLED}"),
        format!("{size}\r\n{BODY}\r\n0\r\n{SMUGGLED}"),
        format!("{size}\r\n{BODY}\r\n0\r\nx : y\r\n\r\n{SMUGGLED}"),
        format!("{size}\r\n{BODY}\r\n0\r\nx: y\r\n z\r\n\r\n{SMUGGLED}"),
        format!("{size}\r\n{BODY}\r\n0\r\nx: {}\r\n\r\n{SMUGGLED}", "y".repeat(80_000)),
        format!("{size}\r\n{BODY}\r\n0\r\n{}\r\n{SMUGGLED}", "x: y\r\n".repeat(200)),
    ];
    all_end(&app, sized.chain(others).map(|chunks| (request(&chunks), Alone(400)))).await;
    assert_eq!(fake.rows(), 0);
}

/// A body that never ends takes what follows for a part of it.
#[tokio::test]
async fn a_chunk_that_does_not_come_is_waited_for_and_what_follows_is_a_part_of_it() {
    let (app, fake) = hasty().await;
    let sizes = ["fffffff", "7fffffffffffffff", "8000000000000000", "ffffffffffffffff"];
    all_end(&app, sizes.map(|size| (request(&format!("{size}\r\n{BODY}{SMUGGLED}")), Alone(408)))).await;
    assert_eq!(fake.rows(), 0);
    // Behind a last chunk hyper takes all up to the next empty line for trailers, and drops it.
    let hidden = format!("{:x}\r\n{BODY}\r\n0\r\n\n{SMUGGLED}", BODY.len());
    all_end(&app, [(request(&hidden), Both(200))]).await;
}

#[tokio::test]
async fn extensions_and_trailers_change_nothing_of_a_request() {
    let (app, fake) = TestApp::fake().await;
    let size = format!("{:x}", BODY.len());
    let sizes = [
        size.to_uppercase(),
        format!("000{size}"),
        format!("{size};a=b;c"),
        format!("{size} ;a=\"b;c\""),
        format!("{size} \t"),
    ];
    let sized = sizes.iter().map(|size| format!("{size}\r\n{BODY}\r\n0\r\n\r\n"));
    let split =
        BODY.bytes().map(|byte| format!("1\r\n{}\r\n", char::from(byte))).collect::<String>() + "0\r\n\r\n";
    let ends = [
        "00000\r\n\r\n",
        "0;a=b\r\n\r\n",
        "0\r\ncontent-length: 5\r\ntransfer-encoding: identity\r\nconnection: close\r\n\r\n",
        "0\r\nauthorization: Bearer x\r\nx-forwarded-for: 10.0.0.1\r\nhost: elsewhere\r\nx-request-id: smuggled\r\n\r\n",
        "0\r\ncontent-encoding: gzip\r\ncontent-type: text/plain\r\n\r\n",
    ];
    let ended = ends.map(|end| format!("{size}\r\n{BODY}\r\n{end}"));
    let all: Vec<String> = sized.chain([split]).chain(ended).collect();
    let count = all.len();
    all_end(&app, all.iter().map(|chunks| (request(chunks), Both(200)))).await;
    assert_eq!(fake.rows(), count);
}
