//! The edge towards devices and load balancers: heads of requests, probes, handshakes, silent connections.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use std::{net::SocketAddr, time::Duration};
use tests::{
    PATIENCE, eventually,
    http::{self, Answer},
    world::World,
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// Sends the head of a request and reads the response.
async fn head(address: &str, lines: &[&str]) -> Result<Answer> {
    let head = format!("{}\r\nhost: {address}\r\nconnection: close\r\n\r\n", lines.join("\r\n"));
    http::raw(address, head.as_bytes()).await
}

pub(crate) async fn p7_a_large_request_head_is_refused(world: World) -> Result<()> {
    let fits = format!("x: {}", "x".repeat(15 << 10));
    let answer = head(world.gateway(), &["GET /health HTTP/1.1", &fits]).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let exceeds = format!("x: {}", "x".repeat(17 << 10));
    let path = format!("GET /{} HTTP/1.1", "x".repeat(17 << 10));
    for lines in [vec!["GET /health HTTP/1.1", &exceeds], vec![&path]] {
        let answer = head(world.gateway(), &lines).await?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (431, "too_large"));
    }
    let huge = format!("x: {}", "x".repeat(200 << 10));
    assert_eq!(head(world.gateway(), &["GET /health HTTP/1.1", &huge]).await?.status, 431);
    Ok(())
}

pub(crate) async fn p9_the_device_port_answers_load_balancers(world: World) -> Result<()> {
    let answer = head(world.gateway(), &["GET /health HTTP/1.1"]).await?;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"status":"ready"}"#));
    let answer = head(world.gateway(), &["HEAD /health HTTP/1.1"]).await?;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    for (request, status, allow) in [
        ("OPTIONS /health HTTP/1.1", 204, "GET,HEAD"),
        ("OPTIONS /v1/accounts HTTP/1.1", 204, "POST"),
        ("OPTIONS /v1/ws HTTP/1.1", 204, "GET,HEAD"),
        ("POST /health HTTP/1.1", 405, "GET,HEAD"),
        ("HEAD /v1/accounts HTTP/1.1", 405, "POST"),
        ("OPTIONS /nowhere HTTP/1.1", 404, ""),
        ("HEAD /nowhere HTTP/1.1", 404, ""),
    ] {
        let answer = head(world.gateway(), &[request, "content-length: 0"]).await?;
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{request}");
    }
    Ok(())
}

pub(crate) async fn a_handshake_of_another_websocket_version_is_told_the_right_one(
    world: World,
) -> Result<()> {
    let common = [
        "GET /v1/ws HTTP/1.1",
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    ];
    for version in ["sec-websocket-version: 8", "sec-websocket-version: 14", "x: no version"] {
        let gateway = world.gateway();
        let lines = [common.as_slice(), &[version]].concat();
        let head = format!("{}\r\nhost: {gateway}\r\n\r\n", lines.join("\r\n"));
        let mut stream = TcpStream::connect(gateway).await?;
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await?;
        let mut answer = vec![0; 4_096];
        let length = timeout(PATIENCE, stream.read(&mut answer)).await??;
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        ensure!(answer.starts_with("http/1.1 426 "), "{version}: {answer}");
        ensure!(answer.contains("\r\nsec-websocket-version: 13\r\n"), "{version}: {answer}");
        ensure!(answer.contains("\r\nupgrade: websocket\r\n"), "{version}: {answer}");
    }
    Ok(())
}

/// Opens a connection from an address of its own, so that limits per address affect no other test.
async fn connect_from(from: &str, to: &str) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse()?, 0))?;
    Ok(socket.connect(to.parse()?).await?)
}

/// On a system with `limits.http_connections_per_address` = 50.
pub(crate) async fn p7_silent_connections_of_an_address_are_limited(world: World) -> Result<()> {
    const STRANGER: &str = "127.0.0.9";
    const LIMIT: usize = 50;
    let alice = world.user("alice").await?;
    let mut device = world.connect(&alice).await?;
    let gateway = world.first_gateway();
    let mut silent = Vec::new();
    for _ in 0..3 * LIMIT {
        silent.push(connect_from(STRANGER, gateway).await?);
    }
    // A connection beyond the limit is closed at once, without an answer.
    let is_open = async |stream: &mut TcpStream| {
        timeout(Duration::from_millis(500), stream.read(&mut [0; 1])).await.is_err()
    };
    let open = join_all(silent.iter_mut().map(is_open)).await.into_iter().filter(|open| *open).count();
    assert_eq!(open, LIMIT, "silent connections of one address that stay open");
    device.ping().await.context("another device was affected")?;
    world.connect(&alice).await.context("another address was affected")?;
    drop(silent);
    eventually("closed connections no longer count", async || {
        let mut stream = connect_from(STRANGER, gateway).await?;
        let request = format!("GET /health HTTP/1.1\r\nhost: {gateway}\r\nconnection: close\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        Ok(())
    })
    .await
}
