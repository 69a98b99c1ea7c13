//! Ten thousand connections that do nothing, and a client beside them.

use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::floods::Target;
use crate::support::app::{client, until};

const CONNECTIONS: u64 = 10_000;
/// Files that this process and the server have beside.
const OTHERS: u64 = 1000;
/// Bytes that the server may need for each: hyper alone has 16 KiB for reading and writing.
const MOST_BYTES: u64 = 48 << 10;

/// So many connections may this process have, and the server that it starts.
fn connections() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    limit.maximum.map_or(CONNECTIONS, |most| CONNECTIONS.min(most.saturating_sub(OTHERS)))
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_ten_thousand_idle_connections_a_client_is_answered_and_memory_is_bounded() {
    let count = connections();
    if count < CONNECTIONS {
        let line = format!("{count} connections of {CONNECTIONS}: the limit of open files is too low\n");
        // Past the capture of the test's output.
        let _nobody_to_tell = std::io::stderr().write_all(line.as_bytes());
    }
    let most = (count + 100).to_string();
    let target =
        Target::start(&["--max-connections", &most, "--head-timeout", "1h", "--idle-timeout", "1h"]).await;
    // Made by the system alone: this task need not wait for the server with each of them.
    let open_one = |index| {
        let mut stream = TcpStream::connect(target.address).unwrap();
        // Nothing, a part of a head, or a request whose answer is not taken.
        let sent: &[u8] = match index % 3 {
            0 => b"",
            1 => b"GET /health HTTP/1.1\r\nhost: te",
            _ => super::GET,
        };
        stream.write_all(sent).unwrap();
        stream
    };
    let idle: Vec<TcpStream> = (0..count).map(open_one).collect();
    let client = client();
    let open = async || {
        let page = client
            .get(format!("http://{}/metrics", target.address))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let series = "sextant_connections{listener=\"public\"} ";
        page.lines().find_map(|line| line.strip_prefix(series)).unwrap().parse::<u64>().unwrap()
    };
    until("all are open", async || open().await >= count).await;
    for _ in 0..20 {
        target.works().await;
    }
    assert!(open().await >= count, "none gave way, since there is room for all");
    let each = target.growth() / count;
    assert!(each < MOST_BYTES, "{each} bytes for each");
    drop(idle);
    until("all are gone", async || open().await < 10).await;
    target.works().await;
}
