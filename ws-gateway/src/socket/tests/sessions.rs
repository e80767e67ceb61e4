//! The end of a session during a connection.

use super::*;

#[tokio::test]
async fn p8_a_session_that_ends_during_the_handshake_is_refused() {
    let gateway = Gateway::start().await;
    let mut device = gateway.connect().await;
    // The first check succeeds. The session ends before a route tells other gateways about this connection.
    gateway.answers.add_permits(1);
    gateway.calls.acquire().await.unwrap().forget();
    gateway.is_logged_out.store(true, Ordering::Relaxed);
    gateway.answers.add_permits(100);
    assert!(receive(&mut device).await.contains("REVOKED"));
}

#[tokio::test]
async fn p8_an_unanswered_recheck_delays_no_frame_and_its_answer_counts() {
    let mut config = Config::default();
    config.auth.access_token_life = Duration::from_secs(1);
    let gateway = Gateway::start_with(config, HistoryPage::default()).await;
    let mut device = gateway.connect().await;
    gateway.answers.add_permits(2);
    assert!(receive(&mut device).await.contains("welcome"));
    gateway.calls.acquire().await.unwrap().forget();
    // The third call is the recheck.
    gateway.calls.acquire().await.unwrap().forget();
    send_json(&mut device, r#"{"id":2,"ping":{}}"#).await;
    assert!(receive(&mut device).await.contains("pong"));
    gateway.is_logged_out.store(true, Ordering::Relaxed);
    gateway.answers.add_permits(1);
    assert!(receive(&mut device).await.contains("REVOKED"));
}

#[tokio::test]
async fn p8_a_log_out_closes_the_connection_even_if_its_client_disconnects() {
    let gateway = Gateway::start().await;
    let mut device = gateway.connect().await;
    gateway.answers.add_permits(2);
    assert!(receive(&mut device).await.contains("welcome"));
    gateway.calls.acquire().await.unwrap().forget();
    let request = gateway.request("DELETE /v1/sessions/current").await;
    // The token is valid; now the session is being ended.
    gateway.calls.acquire().await.unwrap().forget();
    gateway.answers.add_permits(1);
    gateway.calls.acquire().await.unwrap().forget();
    drop(request);
    // Time to notice that the client has disconnected.
    tokio::time::sleep(Duration::from_millis(50)).await;
    gateway.answers.add_permits(1);
    let closed =
        timeout(Duration::from_secs(10), receive(&mut device)).await.expect("the connection is still open");
    assert!(closed.contains("REVOKED"), "{closed}");
}
