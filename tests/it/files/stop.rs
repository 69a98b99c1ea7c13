//! A stop is bounded, whatever the server is at, and SIGHUP is one.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::command::{Server, imported, path, run, sextant};
use crate::support;
use crate::support::app::{client, until};
use crate::support::load::Load;

/// Holds what every load needs to bring a version into the cache: a load then blocks inside of the system, as at a disk that does not
/// answer.
fn block_loads(cache: &Path) -> File {
    fs::create_dir_all(cache).unwrap();
    fs::set_permissions(cache, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let lock = File::create(cache.join(".room.lock")).unwrap();
    lock.lock().unwrap();
    lock
}

fn is_coming(cache: &Path, version: &str) -> bool {
    let name = format!(".incoming-{version}-");
    let mut entries = cache.read_dir().unwrap();
    entries.any(|entry| entry.unwrap().file_name().to_str().unwrap().starts_with(&name))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_load_that_blocks() {
    let directory = imported();
    let models = path(&directory, "models");
    let cache = support::cache(Path::new(&models));
    // When it starts.
    let lock = block_loads(&cache);
    let mut command = sextant(&["serve", "--models", &models, "--listen", "127.0.0.1:0"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { child, address: String::new() };
    until("the load has begun", async || is_coming(&cache, "tiny@1")).await;
    server.signal("TERM");
    assert_eq!(server.exit_code().await, Some(0));
    drop(lock);

    // When it serves: another version is rolled out.
    let server = Server::start(&models, &["--drain-delay", "0s", "--sync-interval", "20ms"]);
    let lock = block_loads(&cache);
    let checkpoint = path(&directory, "checkpoint");
    let import =
        ["import", &checkpoint, "--models", &models, "--name", "tiny", "--activate", "--reason", "x"];
    assert!(run(&import).status.success());
    until("the load has begun", async || is_coming(&cache, "tiny@2")).await;
    server.signal("TERM");
    assert_eq!(server.exit_code().await, Some(0));
    drop(lock);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_under_load_loses_no_request_and_exits_with_0() {
    let directory = imported();
    let server = Server::start(&path(&directory, "models"), &["--drain-delay", "300ms"]);
    let url = format!("http://{}/v1/embeddings", server.address);
    let load = Load::start(&url, 4, |_| json!({ "model": "tiny", "input": "a cat sleeps" }));
    until("requests flow", async || load.answered() > 20).await;
    load.expect_a_stop();
    server.signal("HUP");
    load.all_answered().await;
    assert_eq!(server.exit_code().await, Some(0));
}

/// As `nohup` starts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_started_with_sighup_ignored_goes_on_ignoring_it() {
    let directory = imported();
    let models = path(&directory, "models");
    let direct = sextant(&["serve", "--models", &models, "--drain-delay", "0s"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(direct.get_program()).args(direct.get_args());
    for (name, value) in direct.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let server = Server::start_command(command);
    server.signal("HUP");
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(mask, 16).unwrap() & 1, 1, "{mask}");
    let ready = client().get(format!("http://{}/readyz", server.address)).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    server.signal("TERM");
    assert_eq!(server.exit_code().await, Some(0));
}
