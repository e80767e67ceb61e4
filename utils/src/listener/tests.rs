use super::*;
use std::net::TcpStream as StdStream;
use tokio::task::JoinSet;

#[tokio::test]
async fn all_forms_of_an_address_can_be_bound_and_reached() {
    for (text, reach) in [
        ("0", vec!["127.0.0.1"]),
        ("localhost:0", vec![]),
        ("127.0.0.1:0", vec!["127.0.0.1"]),
        ("[::1]:0", vec!["[::1]"]),
        (":0", vec!["127.0.0.1", "[::1]"]),
        ("[::]:0", vec!["127.0.0.1", "[::1]"]),
    ] {
        let listener = bind(text).await.unwrap();
        let bound = listener.local_addr().unwrap();
        StdStream::connect(connectable(bound)).unwrap();
        for host in reach {
            StdStream::connect(format!("{host}:{}", bound.port()))
                .unwrap_or_else(|error| panic!("{text} {host}: {error}"));
        }
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_named() {
    let taken = bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let _holder = bind(&taken.to_string()).await.unwrap();
    for text in ["127.0.0.1", "example.invalid:7450", &taken.to_string()] {
        let error = bind(text).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn an_unspecified_address_is_reached_at_loopback() {
    for (listen, connect) in
        [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
    {
        assert_eq!(connectable(listen.parse().unwrap()).to_string(), connect);
    }
}

/// The longest queue that the system allows.
fn somaxconn() -> usize {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn p7_the_queue_of_new_connections_is_as_long_as_the_system_allows() {
    // Without the system's maximum the queue would hold 1,024 connections or fewer.
    let count = somaxconn().min(3_000);
    crate::descriptors::raise();
    let listener = bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut connects = JoinSet::new();
    for _ in 0..count {
        connects.spawn(TcpStream::connect(address));
    }
    // Nothing accepts. A connection that does not fit into the queue is not established.
    let all = tokio::time::timeout(Duration::from_secs(20), connects.join_all()).await;
    let open = all.expect("the queue is shorter").into_iter().filter(Result::is_ok).count();
    assert_eq!(open, count);
}

#[test]
fn p7_only_a_lack_of_descriptors_uses_the_spare_one() {
    let of = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
    assert!(is_out_of_descriptors(&of(Errno::MFILE)) && is_out_of_descriptors(&of(Errno::NFILE)));
    assert!(!is_out_of_descriptors(&of(Errno::CONNABORTED)) && is_connection_error(&of(Errno::CONNABORTED)));
}
