use super::*;
use std::net::Ipv4Addr;
use tokio::io::AsyncBufReadExt as _;

/// How long to wait for an answer, or for the absence of one.
const SOON: Duration = Duration::from_millis(300);

/// An echo server and its proxy.
async fn echo() -> (Proxy, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    (Proxy::start((Ipv4Addr::LOCALHOST, 0).into(), target).await.unwrap(), tasks)
}

async fn connect(proxy: &Proxy) -> std::io::Result<TcpStream> {
    TcpStream::connect(proxy.address()).await
}

/// Sends a line and returns the answer; `None` if there is none.
async fn send_line(stream: &mut TcpStream, line: &str) -> Option<std::io::Result<String>> {
    if let Err(error) = stream.write_all(format!("{line}\n").as_bytes()).await {
        return Some(Err(error));
    }
    let mut answer = String::new();
    let mut reader = tokio::io::BufReader::new(stream);
    let read = timeout(SOON, reader.read_line(&mut answer)).await.ok()?;
    Some(read.map(|_| answer.trim().to_owned()))
}

#[tokio::test]
async fn pass_forwards_bytes_and_the_end_of_the_stream() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(send_line(&mut stream, "hello").await.unwrap().unwrap(), "hello");
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn cut_closes_open_connections_and_refuses_new_ones() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(send_line(&mut stream, "hello").await.unwrap().unwrap(), "hello");
    proxy.set(Mode::Cut);
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    ::tests::eventually("a refusal", async || {
        let refused = connect(&proxy).await.err().map(|error| error.kind());
        anyhow::ensure!(refused == Some(std::io::ErrorKind::ConnectionRefused), "{refused:?}");
        Ok(())
    })
    .await
    .unwrap();
    proxy.set(Mode::Pass);
    let mut stream = ::tests::eventually("a connection", async || Ok(connect(&proxy).await?)).await.unwrap();
    assert_eq!(send_line(&mut stream, "again").await.unwrap().unwrap(), "again");
}

#[tokio::test]
async fn reset_resets_open_and_new_connections() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await.unwrap();
    assert_eq!(send_line(&mut stream, "hello").await.unwrap().unwrap(), "hello");
    proxy.set(Mode::Reset);
    let reset = std::io::ErrorKind::ConnectionReset;
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), reset);
    if let Ok(mut stream) = connect(&proxy).await {
        assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), reset);
    }
}

#[tokio::test]
async fn half_open_drops_bytes_and_never_resumes_a_stream_with_a_gap() {
    let (proxy, _server) = echo().await;
    let mut old = connect(&proxy).await.unwrap();
    let mut silent = connect(&proxy).await.unwrap();
    for stream in [&mut old, &mut silent] {
        assert_eq!(send_line(stream, "hello").await.unwrap().unwrap(), "hello");
    }
    proxy.set(Mode::HalfOpen);
    assert!(send_line(&mut old, "lost").await.is_none());
    let mut new = connect(&proxy).await.unwrap();
    assert!(send_line(&mut new, "lost").await.is_none());
    proxy.set(Mode::Pass);
    for mut dead in [old, new] {
        assert!(
            send_line(&mut dead, "still there?").await.unwrap().is_err(),
            "a stream with a gap was resumed"
        );
    }
    assert_eq!(send_line(&mut silent, "no bytes lost").await.unwrap().unwrap(), "no bytes lost");
}

#[tokio::test]
async fn delay_is_added_in_each_direction() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await.unwrap();
    proxy.set(Mode::Delay(Duration::from_millis(50)));
    let begun = std::time::Instant::now();
    assert_eq!(send_line(&mut stream, "slow").await.unwrap().unwrap(), "slow");
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn balance_skips_a_target_that_refuses_connections() {
    let (running, _server) = echo().await;
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let proxy = Proxy::balance((Ipv4Addr::LOCALHOST, 0).into(), vec![gone, running.address()]).await.unwrap();
    for _ in 0..4 {
        let mut stream = connect(&proxy).await.unwrap();
        assert_eq!(send_line(&mut stream, "hello").await.unwrap().unwrap(), "hello");
    }
}
