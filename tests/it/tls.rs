//! Certificates: shown, changed while they are shown, asked of clients.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Identity};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use sextant::config::{ConnectionsSettings, Settings, TlsSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::block_in_place;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::command::{path, run};
use crate::support::app::{TestApp, client, settings, until};
use crate::support::certificates::{Authority, Pair};
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::load::Load;

/// Seconds from 1970 to the beginning of the last day of the year.
const END_OF_2080: f64 = 3_502_828_800.0;
const END_OF_2081: f64 = 3_534_364_800.0;

pub fn tls(files: &(std::path::PathBuf, std::path::PathBuf)) -> TlsSettings {
    TlsSettings { cert: Some(files.0.clone()), key: Some(files.1.clone()), ..TlsSettings::default() }
}

/// A client that trusts the authority, with a certificate of its own if it is given.
pub fn trusting(authority: &Authority, own: Option<&Pair>) -> reqwest::Client {
    drop(client());
    let root = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let mut builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60));
    // Each request looks at the certificate anew.
    builder = builder.tls_certs_only([root]).pool_max_idle_per_host(0);
    if let Some(Pair { cert, key }) = own {
        builder = builder.identity(Identity::from_pem(format!("{cert}{key}").as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

/// The value of a metric on a page; none if it is not there.
async fn metric(client: &reqwest::Client, page: &str, series: &str) -> Option<f64> {
    let text = client.get(page).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)).map(str::to_owned);
    line.map(|line| line.trim().parse().unwrap())
}

async fn handshake(app: &TestApp, authority: &Authority, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(app.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn requests_are_answered_over_tls_by_either_protocol_and_not_without() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let files = authority.server(2080).write(directory.path(), "server");
    let (app, _) = TestApp::fake_with(&Settings { tls: tls(&files), ..settings() }, |_| ()).await;
    let url = format!("https://{}", app.address);
    let answer = trusting(&authority, None).get(format!("{url}/v1/models")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    for (offered, expected) in
        [(&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let stream = handshake(&app, &authority, offered).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), expected);
        assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    }
    let stream = handshake(&app, &authority, &[b"h2"]).await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = axum::http::Request::get(format!("{url}/v1/models")).body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);

    assert!(client().get(format!("{url}/v1/models")).send().await.is_err(), "a stranger's authority");
    let mut plain = TcpStream::connect(app.address).await.unwrap();
    plain.write_all(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"));
    let failed = r#"sextant_connections_closed_total{listener="public",reason="handshake"}"#;
    let trusting = trusting(&authority, None);
    until("both are counted", async || {
        metric(&trusting, &format!("{url}/metrics"), failed).await == Some(2.0)
    })
    .await;
}

#[tokio::test]
async fn who_says_nothing_is_left() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let files = authority.server(2080).write(directory.path(), "server");
    let connections =
        ConnectionsSettings { handshake_timeout: Some("200ms".into()), ..ConnectionsSettings::default() };
    let hasty = Settings { tls: tls(&files), connections, ..settings() };
    let (app, _) = TestApp::fake_with(&hasty, |_| ()).await;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "closed");
}

/// Replaces both files of a pair, each by one rename.
fn rename_over(pair: &Pair, directory: &Path) {
    let (cert, key) = pair.write(directory, "next");
    fs::rename(key, directory.join("server.key")).unwrap();
    fs::rename(cert, directory.join("server.crt")).unwrap();
}

#[tokio::test]
async fn a_certificate_that_changes_is_shown_and_one_that_is_broken_is_not() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let files = authority.server(2080).write(directory.path(), "server");
    let (app, _) = TestApp::fake_with(&Settings { tls: tls(&files), ..settings() }, |_| ()).await;
    let page = format!("https://{}/metrics", app.address);
    let trusting = trusting(&authority, None);
    let expiry = r#"sextant_tls_certificate_expiry_timestamp_seconds{listener="public"}"#;
    let reloads = |outcome| format!(r#"sextant_tls_reloads_total{{listener="public",outcome="{outcome}"}}"#);
    assert_eq!(metric(&trusting, &page, expiry).await, Some(END_OF_2080));
    assert_eq!(metric(&trusting, &page, &reloads("refused")).await, Some(0.0));
    let loaded_before = metric(&trusting, &page, &reloads("loaded")).await.unwrap();
    assert_eq!(loaded_before, 0.0);

    rename_over(&authority.server(2081), directory.path());
    until("the new one is shown", async || metric(&trusting, &page, expiry).await == Some(END_OF_2081)).await;

    let refused = async || metric(&trusting, &page, &reloads("refused")).await.unwrap();
    let before = refused().await;
    fs::write(&files.0, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    until("it is refused", async || refused().await == before + 1.0).await;
    // Some looks later it has been told once, and the last one is still shown.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(refused().await, before + 1.0);
    assert_eq!(metric(&trusting, &page, expiry).await, Some(END_OF_2081));

    rename_over(&authority.server(2080), directory.path());
    until("a whole one is shown", async || metric(&trusting, &page, expiry).await == Some(END_OF_2080)).await;
}

/// As the kubelet does it: `server.crt` leads through `..data`, which leads to another directory after one rename.
#[tokio::test]
async fn a_secret_of_kubernetes_changes_by_one_link() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let at = |name: &str| directory.path().join(name);
    for (name, year) in [("first", 2080), ("second", 2081)] {
        fs::create_dir(at(name)).unwrap();
        authority.server(year).write(&at(name), "server");
    }
    symlink("first", at("..data")).unwrap();
    for file in ["server.crt", "server.key"] {
        symlink(Path::new("..data").join(file), at(file)).unwrap();
    }
    let files = (at("server.crt"), at("server.key"));
    let (app, _) = TestApp::fake_with(&Settings { tls: tls(&files), ..settings() }, |_| ()).await;
    let page = format!("https://{}/metrics", app.address);
    let trusting = trusting(&authority, None);
    symlink("second", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    let expiry = r#"sextant_tls_certificate_expiry_timestamp_seconds{listener="public"}"#;
    until("it is shown", async || metric(&trusting, &page, expiry).await == Some(END_OF_2081)).await;
    // Both files were exchanged at once, and a look may fall between the reading of the two.
    let refused = r#"sextant_tls_reloads_total{listener="public",outcome="refused"}"#;
    assert!(metric(&trusting, &page, refused).await.unwrap() <= 1.0);
}

#[tokio::test]
async fn without_a_client_certificate_the_operators_listener_says_no_more_than_its_health() {
    let (directory, authority, stranger) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let files = authority.server(2080).write(directory.path(), "server");
    let ca = authority.write(directory.path());
    let settings = Settings {
        tls: TlsSettings { admin_client_ca: Some(ca), ..tls(&files) },
        admin_listen: Some("127.0.0.1:0".into()),
        ..settings()
    };
    let (app, _) = TestApp::fake_with(&settings, |_| ()).await;
    let admin = format!("https://{}", app.admin.unwrap());
    let bare = trusting(&authority, None);
    for (path, expected) in
        [("/livez", 200), ("/readyz", 200), ("/metrics", 403), ("/admin/v1/models", 403), ("/nothing", 403)]
    {
        let answer = bare.get(format!("{admin}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{path}");
        if expected == 403 {
            assert!(answer.text().await.unwrap().contains("tls.admin_client_ca"), "{path}");
        }
    }
    let known = trusting(&authority, Some(&authority.client()));
    assert_eq!(known.get(format!("{admin}/metrics")).send().await.unwrap().status(), 200);
    let unknown = trusting(&authority, Some(&stranger.client()));
    assert!(unknown.get(format!("{admin}/livez")).send().await.is_err(), "a certificate that is none");
    // Nobody is asked on the other listener.
    let url = format!("https://{}/v1/models", app.address);
    assert_eq!(bare.get(url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stop_loses_no_request_over_tls() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let files = authority.server(2080).write(directory.path(), "server");
    let stopping = Settings { tls: tls(&files), drain_delay: Some("200ms".into()), ..settings() };
    let (app, _) = TestApp::fake_with(&stopping, |_| ()).await;
    let url = format!("https://{}/v1/embeddings", app.address);
    let body = |index| serde_json::json!({ "model": "tiny", "input": format!("a b {index}") });
    let load = Load::start_with(trusting(&authority, None), &url, 8, body);
    until("requests flow", async || load.answered() > 50).await;
    load.expect_a_stop();
    assert!(app.stop().await, "every request was answered in time");
    load.all_answered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_ask_a_server_over_tls() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    TinyCheckpoint::bert().write(&directory.path().join("checkpoint"));
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    let imported = run(&["import", &checkpoint, "--models", &models, "--name", "tiny", "--activate"]);
    assert!(imported.status.success());
    let files = authority.server(2080).write(directory.path(), "server");
    let (cert, key) = authority.client().write(directory.path(), "client");
    let ca = authority.write(directory.path());
    let settings = Settings {
        models: Some(models),
        tls: TlsSettings { admin_client_ca: Some(ca.clone()), ..tls(&files) },
        admin_listen: Some("127.0.0.1:0".into()),
        ..settings()
    };
    let app = TestApp::with(&settings).await;
    let server = format!("https://{}", app.admin.unwrap());
    let [ca, cert, key] = [ca, cert, key].map(|path| path.to_str().unwrap().to_owned());
    let list = |more: &[&str]| {
        let output = block_in_place(|| run(&[&["list", "--server", &server], more].concat()));
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, told) = list(&["--ca", &ca, "--client-cert", &cert, "--client-key", &key]);
    assert!(code == Some(0) && told.contains("tiny"), "{told}");
    let (code, told) = list(&["--ca", &ca]);
    assert!(code == Some(1) && told.contains("client certificate"), "{told}");
    let (code, told) = list(&[]);
    assert!(code == Some(1) && told.contains("does not answer"), "{told}");
    for (more, expected) in [
        (&["--ca", &key][..], "has no certificate"),
        (&["--ca", "/nowhere"], "cannot read `/nowhere`"),
        (&["--client-cert", &cert], "--client-key"),
        (&["--client-cert", &key, "--client-key", &key], "no client certificate"),
    ] {
        let (code, told) = list(more);
        assert!(code == Some(2) && told.contains(expected), "{more:?}: {told}");
    }
}

#[test]
fn the_operators_listener_has_the_same_certificate_or_its_own_and_every_mistake_is_named() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let files = authority.server(2080).write(directory.path(), "server");
    let own = authority.server(2081).write(directory.path(), "own");
    let ca = authority.write(directory.path());
    let validate = |tls: TlsSettings, is_apart: bool| {
        let admin_listen = is_apart.then(|| "127.0.0.1:0".to_owned());
        let settings = Settings { tls, admin_listen, ..settings() };
        settings.validate(NonZeroUsize::MIN).map_err(|error| error.to_string())
    };
    let same = validate(tls(&files), true).unwrap().tls;
    assert_eq!(same.public.unwrap().files(), same.admin.unwrap().files());
    assert!(validate(tls(&files), false).unwrap().tls.admin.is_none());
    let full = TlsSettings {
        admin_cert: Some(own.0.clone()),
        admin_key: Some(own.1.clone()),
        admin_client_ca: Some(ca.clone()),
        ..tls(&files)
    };
    let config = validate(full.clone(), true).unwrap();
    assert_eq!(toml::from_str::<Settings>(&config.to_toml().unwrap()).unwrap().tls, full);
    let only_admin = TlsSettings { cert: None, key: None, ..full.clone() };
    assert!(validate(only_admin.clone(), true).unwrap().tls.public.is_none());

    let nothing = TlsSettings::default;
    let absent = directory.path().join("absent");
    for (settings, is_apart, expected) in [
        (TlsSettings { cert: None, ..tls(&files) }, false, vec!["`tls.cert` is missing: `tls.key` is given"]),
        (
            only_admin.clone(),
            false,
            vec![
                "`tls.admin_cert` is given, but there is no `admin_listen`",
                "`tls.admin_client_ca` is given, but there is no `admin_listen`",
            ],
        ),
        (
            TlsSettings { admin_client_ca: Some(ca.clone()), ..nothing() },
            true,
            vec!["`tls.admin_client_ca` is given, but no certificate of the server"],
        ),
        (TlsSettings { key: Some(own.1.clone()), ..tls(&files) }, true, vec!["own.key"]),
        (TlsSettings { cert: Some(absent), ..tls(&files) }, true, vec!["absent`: No such file"]),
        (TlsSettings { cert: Some(files.1.clone()), ..tls(&files) }, false, vec!["has no certificate in it"]),
        (TlsSettings { key: Some(files.0.clone()), ..tls(&files) }, false, vec!["has no private key in it"]),
        (
            TlsSettings { admin_client_ca: Some(files.1.clone()), ..tls(&files) },
            true,
            vec!["server.key` has no certificate"],
        ),
    ] {
        let error = validate(settings, is_apart).unwrap_err();
        let told: Vec<&str> = error.lines().collect();
        assert_eq!(told.len(), expected.len(), "{error}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told} instead of {expected}");
        }
    }
}
