//! TLS: between the services and to their servers, and at the gateway.

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

pub(crate) async fn p8_services_and_servers_talk_over_tls_and_a_stranger_is_refused() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let folder = tempfile::tempdir()?;
    let ours = Authority::new(folder.path(), "ca");
    let server = ours.issue(&["127.0.0.1", "localhost"], Validity::Current);
    fs::copy(&server.certificate, folder.path().join("server.pem"))?;
    fs::copy(&server.key, folder.path().join("server.key"))?;
    let servers = OwnServers::start_tls(folder.path())?;
    let services = ours.issue(&["db-service", "pusher", "consumer", "ws-gateway"], Validity::Current);
    let settings = [
        between(&ours, &services).to_vec(),
        at_the_gateway(&server).to_vec(),
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
    conversation(&gateways[0], &gateways[1], &trust).await?;

    // The same program with a certificate of another authority, which it takes for the right one.
    let strange = tempfile::tempdir()?;
    let theirs = Authority::new(strange.path(), "theirs");
    let own = theirs.issue(&["consumer"], Validity::Current);
    let known = system.instances("consumer").next().context("there are two")?;
    let settings = known.settings().iter().cloned().chain(between(&theirs, &own)).collect();
    let stranger = Instance::start_unready("consumer", settings, "127.0.0.1:0").await?;
    eventually("a stranger is told that db-service is missing", async || {
        let (status, body) = stranger.readiness().await?;
        ensure!(
            status == 503 && body.contains("db-service") && body.contains("UnknownIssuer"),
            "{status} {body}"
        );
        Ok(())
    })
    .await
}

pub(crate) async fn p8_a_gateway_is_known_by_its_certificate() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let settings = at_the_gateway(&ours.issue(&["127.0.0.1"], Validity::Current));
    let system = Embedded::start(&settings.each_ref().map(String::as_str)).await?;
    let address = &system.gateways()[0];
    let (trust, port) = (Trust::file(Path::new(&ours.ca))?, address.rsplit_once(':').context("no port")?.1);
    conversation(address, address, &trust).await?;

    let by_name = Server::parse(&format!("https://localhost:{port}"))?.trusting(&trust);
    refused(by_name, "not valid for name").await?;
    let others = Trust::file(Path::new(&theirs.ca))?;
    refused(
        Server::parse(&format!("https://{address}"))?.trusting(&others),
        "no authority that is known here",
    )
    .await?;
    refused(Server::parse(&format!("https://{address}"))?, "no authority that is known here").await?;
    // Nobody is served without TLS, and nobody is taken for a server of TLS who is none.
    ensure!(log_in(Server::parse(&format!("http://{address}"))?).await.is_err(), "it answers without TLS");
    let plain = Embedded::start(&[]).await?;
    let plain = Server::parse(&format!("https://{}", plain.gateways()[0]))?.trusting(&trust);
    refused(plain, "does not speak TLS").await
}

pub(crate) async fn p9_a_gateways_certificate_is_renewed_without_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ours = Authority::new(folder.path(), "ours");
    let files = ours.issue(&["127.0.0.1"], Validity::Seconds(18));
    let settings = at_the_gateway(&files);
    let system = Embedded::start(&settings.each_ref().map(String::as_str)).await?;
    let address = &system.gateways()[0];
    let server = || -> Result<Server> {
        Ok(Server::parse(&format!("https://{address}"))?.trusting(&Trust::file(Path::new(&ours.ca))?))
    };
    let alice = device(server()?, "alice").await?;
    eventually("it has expired", async || refused(server()?, "xpired").await).await?;

    ours.issue(&["127.0.0.1"], Validity::Current);
    eventually("it is renewed", async || log_in(server()?).await).await?;
    let mut bob = device(server()?, "bob").await?;
    tell(&alice, &mut bob, "the connection from before goes on").await
}

pub(crate) async fn every_fault_of_certificates_is_told_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ours = Authority::new(folder.path(), "ours");
    let (past, other) = (ours.issue(&["past"], Validity::Expired), ours.issue(&["other"], Validity::Current));
    let wrong = [
        between(&ours, &Files { certificate: "/nonexistent/certificate.pem".into(), key: other.key.clone() })
            .to_vec(),
        at_the_gateway(&Files { certificate: past.certificate, key: other.key.clone() }).to_vec(),
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
    let said = process.output().join("\n");
    assert_eq!(status.code(), Some(64), "{said}");
    for fault in [
        "tls.certificate: /nonexistent/certificate.pem can't be read",
        "past.pem has expired at 2001-01-01T00:00:00Z",
        "is not the key of the certificate in",
        "redis.ca: ",
        "kafka.tls_ca: ",
        "discovery.consul_ca: /nonexistent/consul.pem can't be read",
    ] {
        ensure!(said.contains(fault), "it does not say {fault}: {said}");
    }
    Ok(())
}

/// Settings of TLS between services.
fn between(authority: &Authority, files: &Files) -> [String; 3] {
    [
        format!("tls.ca={}", authority.ca),
        format!("tls.certificate={}", files.certificate),
        format!("tls.key={}", files.key),
    ]
}

/// Settings of TLS towards devices.
fn at_the_gateway(files: &Files) -> [String; 2] {
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

/// The server is not talked to, over HTTP and over WebSocket, for this reason.
async fn refused(server: Server, reason: &str) -> Result<()> {
    let http = log_in(server.clone()).await.err().context("HTTP was not refused")?;
    let socket = client::Connection::open(&server, "token", None)
        .await
        .err()
        .context("a WebSocket was not refused")?;
    for said in [http.to_string(), socket.to_string()] {
        ensure!(said.contains(reason), "'{said}' does not say {reason}");
    }
    Ok(())
}

/// Two users at two gateways write to each other.
async fn conversation(one: &str, other: &str, trust: &Trust) -> Result<()> {
    let server =
        |address: &str| Server::parse(&format!("https://{address}")).map(|server| server.trusting(trust));
    let mut alice = device(server(one)?, "alice").await?;
    let mut bob = device(server(other)?, "bob").await?;
    for number in 0..10 {
        tell(&alice, &mut bob, &format!("message {number}")).await?;
        tell(&bob, &mut alice, &format!("re: message {number}")).await?;
    }
    alice.client.close().await;
    bob.client.close().await;
    Ok(())
}

/// One writes to the other, who hears it.
async fn tell(one: &Device, other: &mut Device, said: &str) -> Result<()> {
    one.client.send(&abi::ids::direct(&one.user, &other.user), text(said)).await?;
    heard(&mut other.events, said).await
}

async fn heard(events: &mut Events, wanted: &str) -> Result<()> {
    let next = async {
        loop {
            match events.next().await {
                Some(Event::Entry(entry)) if tests::device::text(&entry) == wanted => return Ok(()),
                Some(_) => {}
                None => bail!("the events ended"),
            }
        }
    };
    timeout(PATIENCE, next).await.with_context(|| format!("'{wanted}' did not come"))?
}
