//! TLS between services, to their servers, and at the gateway.

use crate::distributed::OWN_SERVERS;
use anyhow::{Context as _, Result, bail, ensure};
use client::{Client, Event, Events, Options, Server, State, Trust, http::Api, text, tokens::SessionTokens};
use std::{fs, path::Path};
use tests::{
    PATIENCE, eventually,
    process::Process,
    system::{Distributed, Embedded, Instance, OwnServers, System, unique},
    world::PASSWORD,
};
use tokio::time::timeout;
use utils::certificates::{Authority, Files, Validity};

pub(crate) async fn p8_services_and_servers_use_tls_and_a_foreign_certificate_is_refused() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let folder = tempfile::tempdir()?;
    let ours = Authority::new(folder.path(), "ca");
    let server = ours.issue(&["127.0.0.1", "localhost"], Validity::Current);
    fs::copy(&server.certificate, folder.path().join("server.pem"))?;
    fs::copy(&server.key, folder.path().join("server.key"))?;
    let servers = OwnServers::start_tls(folder.path())?;
    let services = ours.issue(&["db-service", "pusher", "consumer", "ws-gateway"], Validity::Current);
    let settings = [
        service_tls(&ours, &services).to_vec(),
        gateway_tls(&server).to_vec(),
        vec![
            format!("redis.ca={}", ours.ca),
            format!("discovery.consul_ca={}", ours.ca),
            format!("discovery.consul_token={}", OwnServers::CONSUL_TOKEN),
            format!("kafka.tls_ca={}", ours.ca),
            "kafka.sasl_username=godwit".into(),
            "kafka.sasl_password=godwit".into(),
        ],
    ]
    .concat();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut system = Distributed::start_on(servers.addresses(), &settings).await?;
    let trust = Trust::file(Path::new(&ours.ca))?;
    let gateways = system.gateways().to_vec();
    check_conversation(&gateways[0], &gateways[1], &trust).await?;

    // A consumer with a certificate from another authority, and with that authority as its own.
    let other_folder = tempfile::tempdir()?;
    let theirs = Authority::new(other_folder.path(), "theirs");
    let own = theirs.issue(&["consumer"], Validity::Current);
    let consumer = system.instances("consumer").next().context("there are two")?;
    let settings = consumer.settings().iter().cloned().chain(service_tls(&theirs, &own)).collect();
    let foreign = Instance::start_unready("consumer", settings, "127.0.0.1:0").await?;
    eventually("the foreign consumer cannot reach db-service", async || {
        let (status, body) = foreign.readiness().await?;
        ensure!(
            status == 503 && body.contains("db-service") && body.contains("UnknownIssuer"),
            "{status} {body}"
        );
        Ok(())
    })
    .await
}

pub(crate) async fn p8_clients_verify_the_certificate_of_the_gateway() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let settings = gateway_tls(&ours.issue(&["127.0.0.1"], Validity::Current));
    let system = Embedded::start(&settings.each_ref().map(String::as_str)).await?;
    let address = &system.gateways()[0];
    let (trust, port) = (Trust::file(Path::new(&ours.ca))?, address.rsplit_once(':').context("no port")?.1);
    check_conversation(address, address, &trust).await?;

    let by_name = Server::parse(&format!("https://localhost:{port}"))?.trusting(&trust);
    check_refused(by_name, "not valid for name").await?;
    let others = Trust::file(Path::new(&theirs.ca))?;
    check_refused(
        Server::parse(&format!("https://{address}"))?.trusting(&others),
        "no known authority has signed its certificate",
    )
    .await?;
    check_refused(
        Server::parse(&format!("https://{address}"))?,
        "no known authority has signed its certificate",
    )
    .await?;
    // The gateway refuses plain HTTP, and the client refuses a server without TLS.
    ensure!(log_in(Server::parse(&format!("http://{address}"))?).await.is_err(), "it answers plain HTTP");
    let plain = Embedded::start(&[]).await?;
    let plain = Server::parse(&format!("https://{}", plain.gateways()[0]))?.trusting(&trust);
    check_refused(plain, "does not speak TLS").await
}

pub(crate) async fn p9_a_gateways_certificate_is_renewed_without_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ours = Authority::new(folder.path(), "ours");
    let files = ours.issue(&["127.0.0.1"], Validity::Seconds(18));
    let settings = gateway_tls(&files);
    let system = Embedded::start(&settings.each_ref().map(String::as_str)).await?;
    let address = &system.gateways()[0];
    let server = || -> Result<Server> {
        Ok(Server::parse(&format!("https://{address}"))?.trusting(&Trust::file(Path::new(&ours.ca))?))
    };
    let alice = device(server()?, "alice").await?;
    eventually("the certificate expires", async || check_refused(server()?, "xpired").await).await?;

    ours.issue(&["127.0.0.1"], Validity::Current);
    eventually("the new certificate is used", async || log_in(server()?).await).await?;
    let mut bob = device(server()?, "bob").await?;
    send_and_receive(&alice, &mut bob, "over the connection from before the renewal").await
}

pub(crate) async fn every_config_error_about_certificates_is_reported_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ours = Authority::new(folder.path(), "ours");
    let (past, other) = (ours.issue(&["past"], Validity::Expired), ours.issue(&["other"], Validity::Current));
    let wrong = [
        service_tls(
            &ours,
            &Files { certificate: "/nonexistent/certificate.pem".into(), key: other.key.clone() },
        )
        .to_vec(),
        gateway_tls(&Files { certificate: past.certificate, key: other.key.clone() }).to_vec(),
        vec![
            format!("redis.ca={}", other.key),
            "redis.url=rediss://127.0.0.1".into(),
            "kafka.tls_ca=/nonexistent/kafka.pem".into(),
            "discovery.consul_ca=/nonexistent/consul.pem".into(),
        ],
    ]
    .concat();
    let arguments = wrong.iter().flat_map(|setting| ["--set", setting]).chain(["--check-config"]);
    let mut process = Process::start("ws-gateway", arguments)?;
    let status = process.ended().await?;
    let output = process.output().join("\n");
    assert_eq!(status.code(), Some(64), "{output}");
    for error in [
        "tls.certificate: /nonexistent/certificate.pem cannot be read",
        "past.pem has expired at 2001-01-01T00:00:00Z",
        "is not the key of the certificate in",
        "redis.ca: ",
        "kafka.tls_ca: ",
        "discovery.consul_ca: /nonexistent/consul.pem cannot be read",
    ] {
        ensure!(output.contains(error), "it does not report {error}: {output}");
    }
    Ok(())
}

/// Settings for TLS between services.
fn service_tls(authority: &Authority, files: &Files) -> [String; 3] {
    [
        format!("tls.ca={}", authority.ca),
        format!("tls.certificate={}", files.certificate),
        format!("tls.key={}", files.key),
    ]
}

/// Settings for TLS at the gateway.
fn gateway_tls(files: &Files) -> [String; 2] {
    [format!("gateway.tls_certificate={}", files.certificate), format!("gateway.tls_key={}", files.key)]
}

/// A user with one device.
struct Device {
    user: String,
    client: Client,
    events: Events,
}

/// A new user with one device.
async fn device(server: Server, name: &str) -> Result<Device> {
    let api = Api::new(server.clone());
    let tokens = log_in_as(&api, name).await?;
    let user = tokens.user.clone();
    let tokens = SessionTokens::new(api, tokens);
    let (client, events) = Client::connect(server, tokens, Options::default(), State::default()).await?;
    Ok(Device { user, client, events })
}

async fn log_in_as(api: &Api, name: &str) -> Result<client::http::Tokens> {
    Ok(api.register(&format!("{name}-{}", unique()), PASSWORD, "sdk").await?)
}

async fn log_in(server: Server) -> Result<()> {
    log_in_as(&Api::new(server), "nobody").await.map(|_| ())
}

/// Checks that the client refuses the server, over HTTP and over WebSocket, with this reason.
async fn check_refused(server: Server, reason: &str) -> Result<()> {
    let http = log_in(server.clone()).await.err().context("HTTP was not refused")?;
    let socket = client::Connection::open(&server, "token", None)
        .await
        .err()
        .context("a WebSocket was not refused")?;
    for error in [http.to_string(), socket.to_string()] {
        ensure!(error.contains(reason), "'{error}' does not contain {reason}");
    }
    Ok(())
}

/// Two users at two gateways exchange messages.
async fn check_conversation(one: &str, other: &str, trust: &Trust) -> Result<()> {
    let server =
        |address: &str| Server::parse(&format!("https://{address}")).map(|server| server.trusting(trust));
    let mut alice = device(server(one)?, "alice").await?;
    let mut bob = device(server(other)?, "bob").await?;
    for number in 0..10 {
        send_and_receive(&alice, &mut bob, &format!("message {number}")).await?;
        send_and_receive(&bob, &mut alice, &format!("re: message {number}")).await?;
    }
    alice.client.close().await;
    bob.client.close().await;
    Ok(())
}

/// Sends a text and waits until the other device has it.
async fn send_and_receive(sender: &Device, receiver: &mut Device, content: &str) -> Result<()> {
    sender.client.send(&abi::ids::direct(&sender.user, &receiver.user), text(content)).await?;
    receive(&mut receiver.events, content).await
}

async fn receive(events: &mut Events, expected: &str) -> Result<()> {
    let next = async {
        loop {
            match events.next().await {
                Some(Event::Entry(entry)) if tests::device::text(&entry) == expected => return Ok(()),
                Some(_) => {}
                None => bail!("the events ended"),
            }
        }
    };
    timeout(PATIENCE, next).await.with_context(|| format!("'{expected}' did not arrive"))?
}
