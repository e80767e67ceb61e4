//! `todo`: a service whose state is built from events. Guards P1 and P9.

use crate::support::{Example, brokers, unique};

/// Starts a server and waits until it listens and reads. Returns it with its URL.
async fn serve(address: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (Example, String) {
    let serve = ["serve", "--address", address, "--listen", "127.0.0.1:0"];
    let server = Example::start("todo", &[&serve[..], arguments].concat(), variables);
    server.wait_for_line("partition assigned").await;
    server.wait_for_line("listening").await;
    let lines = server.lines();
    let address = lines.iter().find_map(|line| line.split("listening address=").nth(1)).unwrap();
    let url = format!("http://{address}");
    (server, url)
}

/// Returns the output of a command: `Ok` if it succeeds, `Err` if it fails.
async fn run(url: &str, command: &[&str]) -> Result<Vec<String>, Vec<String>> {
    let mut client = Example::start("todo", command, &[("TODO_SERVER", url)]);
    if client.ended().await.success() { Ok(client.lines()) } else { Err(client.lines()) }
}

async fn add(url: &str, title: &str) -> String {
    run(url, &["add", title]).await.unwrap().join("")
}

async fn lists(server: &Example, url: &str, expected: &[String]) {
    let holds = async || run(url, &["list"]).await.unwrap() == expected;
    server.eventually(&format!("a list of {expected:?}"), holds).await;
}

async fn stop(server: Example) {
    let (status, lines) = server.stop().await;
    assert!(status.success(), "{status}: {}", lines.join("\n"));
}

async fn the_list_is_built_from_events(address: &str) {
    let (server, url) = serve(address, &[], &[]).await;
    let (tea, walk) = (add(&url, "buy tea").await, add(&url, "go for a walk").await);
    let line = |id: &str, done: char, title: &str| format!("{id} [{done}] {title}");
    let walk_open = line(&walk, ' ', "go for a walk");
    lists(&server, &url, &[line(&tea, ' ', "buy tea"), walk_open.clone()]).await;
    assert_eq!(run(&url, &["complete", &tea]).await, Ok(Vec::new()));
    let all = [line(&tea, 'x', "buy tea"), walk_open];
    lists(&server, &url, &all).await;
    let error = run(&url, &["complete", "nothing"]).await.unwrap_err().join("\n");
    assert!(error.contains("no item has this id"), "{error}");
    stop(server).await;

    let (server, url) = serve(address, &["--offset", "oldest"], &[("TODO_OFFSET", "newest")]).await;
    lists(&server, &url, &all).await;
    stop(server).await;

    let (server, url) = serve(address, &[], &[("TODO_OFFSET", "newest")]).await;
    assert_eq!(run(&url, &["list"]).await, Ok(Vec::new()));
    // The list shows only new events.
    let rest = add(&url, "rest").await;
    lists(&server, &url, &[line(&rest, ' ', "rest")]).await;
    stop(server).await;

    let (server, url) = serve(address, &[], &[]).await;
    lists(&server, &url, &[&all[..], &[line(&rest, ' ', "rest")]].concat()).await;
    stop(server).await;
}

#[tokio::test]
async fn todo_builds_its_list_from_events_on_kafka() {
    let address = format!("kafka://{}?topics={}&partitions=1", brokers(), unique("todo"));
    the_list_is_built_from_events(&address).await;
}

#[tokio::test]
async fn todo_builds_its_list_from_events_on_the_embedded_log() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("log:{}?topics=todo&log.keep=1000", folder.path().display());
    the_list_is_built_from_events(&address).await;
}
